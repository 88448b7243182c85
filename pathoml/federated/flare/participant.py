"""The process of a coordinator or a site: FLARE's own, started with what pathoml needs of it, ending with who started it."""

import os
import runpy
import sys
from pathlib import Path

from pathoml.federated.flare.deafening import deafen
from pathoml.federated.flare.kits import Kit, Role, read_kit, site_yaml_of
from pathoml.federated.flare.policies import write_policies
from pathoml.federated.site_settings import read_site
from pathoml.processes import end_with


def main(arguments: list[str]) -> None:
    """Run FLARE for a kit; returns when FLARE ends.

    Parameters
    ----------
    arguments : list of str
        Folder of the kit, and the number of the process that it is to end with.
    """
    kit = read_kit(Path(arguments[0]))
    end_with(int(arguments[1]))
    os.environ["NVFLARE_SECURE_LOGGING"] = "1"  # the type of an exception at most, in all that FLARE answers with
    module, sys.argv[1:] = command_of(kit)
    if kit.role is Role.COORDINATOR:
        write_policies(kit)  # the folder may have been moved
    else:
        deafen()
        proxy = read_site(site_yaml_of(kit.folder)).proxy
        if proxy is not None:
            os.environ["grpc_proxy"] = proxy  # noqa: SIM112 - as gRPC spells it; for the process of a run as well
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def command_of(kit: Kit) -> tuple[str, list[str]]:
    """Return FLARE's module for a kit, and its arguments.

    Parameters
    ----------
    kit : Kit
        A coordinator's or a site's.

    Returns
    -------
    tuple of str and list of str
        For ``python -m``.
    """
    settings = ["secure_train=true", f"org={kit.organisation}", "config_folder=config"]
    if kit.role is Role.COORDINATOR:
        return "nvflare.private.fed.app.server.server_train", [
            "-m", str(kit.folder), "-s", "fed_server.json", "--set", *settings,
        ]  # fmt: skip
    return "nvflare.private.fed.app.client.client_train", [
        "-m", str(kit.folder), "-s", "fed_client.json", "--set", f"uid={kit.name}", *settings,
    ]  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
