"""The job that FLARE is given: the plan as data, the package of an evaluation for the coordinator, and nothing of code."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathoml.federated.flare.policies import CONTROLLER, EXECUTOR, HEARTBEAT_TIMEOUT_S
from pathoml.files import make_folder, write_json
from pathoml.package_files import PackageFiles, write_package_files

if TYPE_CHECKING:
    from pathoml.federated.plan import Plan

TASK = "answer"
_APP, _COORDINATORS_APP = "app", "coordinator"
PACKAGE = "package"
"""Folder of the coordinator's part of a job, with the package that is to be scored."""
_ASKS_EVERY_S = 0.1


def job_name(plan_digest: str) -> str:
    """Return the name under which FLARE knows a plan's job.

    Parameters
    ----------
    plan_digest : str
        Hash of the plan.

    Returns
    -------
    str
        Letters, digits and hyphens.
    """
    return f"pathoml-{plan_digest[:16]}"


def write_job(plan: "Plan", folder: Path, package: PackageFiles | None = None) -> Path:
    """Write a plan's job.

    Parameters
    ----------
    plan : Plan
        What is to be done.
    folder : Path
        In which the job's own folder is made.
    package : PackageFiles, optional
        What the sites of an evaluation score: it goes to the coordinator, which sends it to the sites as it sends anything.

    Returns
    -------
    Path
        The job's folder, absolute: FLARE looks for others elsewhere.
    """
    job = (folder / job_name(plan.digest)).absolute()
    apart = _APP if package is None else _COORDINATORS_APP
    for app in {_APP, apart}:
        make_folder(job / app / "config")
    write_json(job / "meta.json", _meta(plan, apart))
    write_json(job / apart / "config" / "config_fed_server.json", _server_config(plan))
    write_json(job / _APP / "config" / "config_fed_client.json", _site_config())
    if package is not None:
        make_folder(job / apart / PACKAGE)
        write_package_files(job / apart / PACKAGE, package)
    return job


def _meta(plan: "Plan", coordinators: str) -> dict[str, Any]:
    """Let the job start with any one site: who is missing joins later, and the coordinator judges the quorum."""
    apps = {_APP: ["server", *plan.sites]} if coordinators == _APP else {coordinators: ["server"], _APP: [*plan.sites]}
    return {"name": job_name(plan.digest), "resource_spec": {}, "min_clients": 1, "deploy_map": apps}


def _server_config(plan: "Plan") -> dict[str, Any]:
    """Hold the plan as one text: FLARE takes a mapping that has a `name` for the name of a class."""
    arguments = {"plan": plan.model_dump_json(), "digest": plan.digest}
    return {
        "format_version": 2,
        "server": {"heart_beat_timeout": HEARTBEAT_TIMEOUT_S, "task_request_interval": _ASKS_EVERY_S},
        "dead_client_grace_period": HEARTBEAT_TIMEOUT_S,
        "workflows": [{"id": "coordinator", "path": CONTROLLER, "args": arguments}],
        "components": [], "task_data_filters": [], "task_result_filters": [],
    }  # fmt: skip


def _site_config() -> dict[str, Any]:
    return {
        "format_version": 2,
        "default_task_fetch_interval": _ASKS_EVERY_S,
        "executors": [{"tasks": [TASK], "executor": {"path": EXECUTOR, "args": {}}}],
        "components": [], "task_data_filters": [], "task_result_filters": [],
    }  # fmt: skip
