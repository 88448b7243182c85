"""What a participant of NVIDIA FLARE lets others do: the files of a kit's `local/` folder, written anew by pathoml.

What FLARE makes by default lets the operator read files of a site (`cat`, `grep`), sends the site's error log to the server, lets
jobs bring code, and waits ten minutes for a dead site. None of it is wanted in a network of hospitals.
"""

import json
from pathlib import Path
from typing import Any

from pathoml.federated.flare.kits import Kit, Role
from pathoml.files import make_folder, write_json

HEARTBEAT_TIMEOUT_S = 30
"""So long after a site's last sign of life it counts as dead; sites send one every ten seconds."""

CONTROLLER = "pathoml.federated.flare.controller.CoordinatorController"
EXECUTOR = "pathoml.federated.flare.executor.SiteExecutor"
LAUNCHER = "pathoml.federated.flare.launcher.SiteRunLauncher"
REJOINING = "pathoml.federated.flare.rejoining.Rejoining"
OPERATOR_ROLE, OBSERVER_ROLE = "lead", "member"
STATS_GROUP = "pathoml"
"""Under which the coordinator tells the operator how far a run is."""
_LAUNCHERS = "nvflare.app_common.job_launcher"
_ADMIN_TIMEOUT_S = 20.0
_NOTHING = "none"
_ANYONE = "any"


def write_policies(kit: Kit) -> None:
    """Write the files of a kit's `local/` folder; what FLARE would have taken by default is removed.

    Parameters
    ----------
    kit : Kit
        A coordinator's, whose store of jobs lies in the kit, so that this is done at every start; or a site's.
    """
    local = kit.folder / "local"
    make_folder(local)
    for left in (*local.glob("*.default"), *local.glob("*.sample")):
        left.unlink()
    write_json(local / "resources.json", _server_resources(kit) if kit.role is Role.COORDINATOR else _site_resources())
    write_json(local / "authorization.json", _authorization(kit.role))
    write_json(local / "comm_config.json", {"allow_adhoc_conns": False})
    write_json(local / "log_config.json", _log_config())


def _authorization(role: Role) -> dict[str, Any]:
    """Let the operator start, stop and look at jobs, and the observer look; on a site neither looks."""
    at_coordinator = _ANYONE if role is Role.COORDINATOR else _NOTHING
    rights = {
        "submit_job": _ANYONE, "manage_job": _ANYONE, "view": at_coordinator, "download_job": _NOTHING,
        "clone_job": _NOTHING, "operate": _NOTHING, "shell_commands": _NOTHING, "byoc": _NOTHING,
        "check_status": _ANYONE, "configure_job_log": _NOTHING, "delete_job": at_coordinator,
    }  # fmt: skip
    watching = dict.fromkeys(rights, _NOTHING) | {"view": at_coordinator, "check_status": at_coordinator}
    return {"format_version": "1.0", "permissions": {OPERATOR_ROLE: rights, OBSERVER_ROLE: watching}}


def _site_resources() -> dict[str, Any]:
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [EXECUTOR],
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            _component(
                "resource_manager",
                "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
                num_of_gpus=0, mem_per_gpu_in_GiB=0, expiration_period=300,
            ),
            _component("resource_consumer", "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer"),
            _component("process_launcher", LAUNCHER),
        ],
    }  # fmt: skip


def _server_resources(kit: Kit) -> dict[str, Any]:
    store = str(kit.folder / "jobs-store")
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [CONTROLLER],
        "servers": [
            {
                "admin_storage": "transfer", "max_num_clients": 100, "heart_beat_timeout": HEARTBEAT_TIMEOUT_S,
                "admin_timeout": _ADMIN_TIMEOUT_S, "shutdown_period": 5.0,
            }
        ],
        "components": [
            _component("job_scheduler", "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler", max_jobs=1),
            _component(
                "job_manager", "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                uri_root=store, job_store_id="job_store",
            ),
            _component("job_store", "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"),
            _component("process_launcher", f"{_LAUNCHERS}.server_process_launcher.ServerProcessJobLauncher"),
            _component("rejoining", REJOINING),
        ],
    }  # fmt: skip


def _component(name: str, path: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "path": path, "args": arguments}


def _log_config() -> dict[str, Any]:
    """One log file in the kit, of limited size, and the terminal."""
    handler = {"level": "INFO", "formatter": "plain"}
    file = {
        **handler, "class": "logging.handlers.RotatingFileHandler", "filename": "log.txt", "mode": "a",
        "maxBytes": 20 << 20, "backupCount": 5,
    }  # fmt: skip
    return {
        "version": 1, "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {
            "console": {**handler, "class": "logging.StreamHandler", "stream": "ext://sys.stdout"}, "logFileHandler": file
        },
        "loggers": {"root": {"level": "INFO", "handlers": ["console", "logFileHandler"]}},
    }  # fmt: skip


def policy_of(folder: Path) -> dict[str, Any]:
    """Read which rights a kit gives.

    Parameters
    ----------
    folder : Path
        Of a kit.

    Returns
    -------
    dict of str to Any
        As FLARE reads them.
    """
    loaded: dict[str, Any] = json.loads((folder / "local" / "authorization.json").read_text(encoding="utf-8"))
    return loaded
