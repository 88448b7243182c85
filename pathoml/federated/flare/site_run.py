"""The process of a run at a site: FLARE's own, without what would answer more than the run's task."""

import runpy

from pathoml.federated.flare.deafening import deafen

if __name__ == "__main__":
    deafen()
    runpy.run_module("nvflare.private.fed.app.client.worker_process", run_name="__main__", alter_sys=True)
