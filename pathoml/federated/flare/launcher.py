"""How a site's main process starts that of a run: by pathoml's own module, not by FLARE's."""

from typing import Any

from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher

from pathoml.errors import FederationError

_FLARES = "nvflare.private.fed.app.client.worker_process"
_OURS = "pathoml.federated.flare.site_run"


class SiteRunLauncher(ClientProcessJobLauncher):  # type: ignore[misc] # nvflare has no types
    """FLARE's launcher, with another module to run."""

    def get_command(self, job_meta: Any, fl_ctx: Any) -> str:
        """Return the command that starts a run.

        Parameters
        ----------
        job_meta : dict
            FLARE's description of the job.
        fl_ctx : FLContext
            FLARE's context.

        Returns
        -------
        str
            FLARE's, with pathoml's module.

        Raises
        ------
        FederationError
            If FLARE would start something else than it did: then nothing is started.
        """
        command = str(super().get_command(job_meta, fl_ctx))
        if command.split().count(_FLARES) != 1:
            raise FederationError(
                f"NVIDIA FLARE would start a run by another module than {_FLARES}; nothing is started"
            )
        return command.replace(_FLARES, _OURS)
