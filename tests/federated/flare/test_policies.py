"""What a kit's own files allow, judged by FLARE's own readers of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pathoml.federated.flare.kits import Role
from pathoml.federated.flare.policies import (
    CONTROLLER,
    EXECUTOR,
    HEARTBEAT_TIMEOUT_S,
    OBSERVER_ROLE,
    OPERATOR_ROLE,
    write_policies,
)
from tests.federated.flare.kits import kit_at

pytest.importorskip("nvflare")
NEVER_AT_A_SITE = [
    "cat", "ls", "head", "tail", "grep", "pwd", "show_errors", "show_stats", "sys_info", "report_env", "report_resources",
    "restart", "shutdown", "configure_site_log", "configure_job_log", "download_job", "clone_job", "byoc", "call",
]  # fmt: skip
NEVER_AT_THE_COORDINATOR = ["cat", "ls", "tail", "grep", "shutdown", "byoc", "download_job", "remove_client", "call"]


def local(folder: Path, role: Role, name: str) -> dict[str, Any]:
    write_policies(kit_at(folder, role))
    loaded: dict[str, Any] = json.loads((folder / "local" / name).read_text())
    return loaded


def may(folder: Path, role: Role, right: str, who: str = OPERATOR_ROLE) -> bool:
    from nvflare.fuel.sec.authz import AuthzContext, Person
    from nvflare.security.security import FLAuthorizer

    authorizer = FLAuthorizer("north", local(folder, role, "authorization.json"))
    permitted, error = authorizer.authorize(
        AuthzContext(right, Person("operator", "coordinator", who), Person("operator", "coordinator", who))
    )
    assert not error or not permitted
    return bool(permitted)


@pytest.mark.parametrize("right", NEVER_AT_A_SITE)
@pytest.mark.parametrize("who", [OPERATOR_ROLE, "project_admin", "org_admin", "member"])
def test_nobody_looks_into_a_site_or_brings_code(tmp_path: Path, right: str, who: str):
    assert not may(tmp_path, Role.SITE, right, who)


@pytest.mark.parametrize("right", NEVER_AT_THE_COORDINATOR)
def test_the_operator_has_no_shell_at_the_coordinator(tmp_path: Path, right: str):
    assert not may(tmp_path, Role.COORDINATOR, right)


@pytest.mark.parametrize("role", [Role.SITE, Role.COORDINATOR])
@pytest.mark.parametrize("right", ["submit_job", "abort_job", "check_status"])
def test_the_operator_starts_and_stops_runs(tmp_path: Path, role: Role, right: str):
    assert may(tmp_path, role, right)


@pytest.mark.parametrize("right", ["submit_job", "abort_job", "delete_job", "restart", "cat", "byoc", "download_job"])
def test_an_observer_does_nothing_anywhere(tmp_path: Path, right: str):
    for role in (Role.SITE, Role.COORDINATOR):
        assert not may(tmp_path / role, role, right, OBSERVER_ROLE)


@pytest.mark.parametrize("right", ["list_jobs", "check_status", "show_stats"])
def test_an_observer_looks_at_the_coordinator_and_at_no_site(tmp_path: Path, right: str):
    assert may(tmp_path / "coordinator", Role.COORDINATOR, right, OBSERVER_ROLE)
    assert not may(tmp_path / "site", Role.SITE, right, OBSERVER_ROLE)


@pytest.mark.parametrize(("role", "allowed"), [(Role.SITE, EXECUTOR), (Role.COORDINATOR, CONTROLLER)])
def test_a_job_may_name_one_class_and_no_other(tmp_path: Path, role: Role, allowed: str):
    from nvflare.apis.fl_exception import UnsafeComponentError
    from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer

    local(tmp_path, role, "resources.json")

    class Workspace:
        def get_resources_file_path(self) -> str:
            return str(tmp_path / "local" / "resources.json")

    authorizer = ComponentPathAuthorizer()
    authorizer.authorize_component_config({"path": allowed, "args": {}}, workspace=Workspace())
    for other in (
        "nvflare.app_common.np.np_trainer.NPTrainer",
        "nvflare.app_common.logging.job_log_streamer.JobLogStreamer",
        "subprocess.Popen",
    ):
        with pytest.raises(UnsafeComponentError, match="not in allow_list"):
            authorizer.authorize_component_config({"path": other, "args": {}}, workspace=Workspace())


def test_no_log_of_a_site_is_sent(tmp_path: Path):
    resources = local(tmp_path, Role.SITE, "resources.json")
    assert resources["allow_log_streaming"] is False
    assert not [one for one in resources["components"] if "log" in one["path"].lower()]


def test_dead_sites_are_noticed_soon_and_everything_is_kept_in_the_kit(tmp_path: Path):
    resources = local(tmp_path, Role.COORDINATOR, "resources.json")
    assert resources["servers"][0]["heart_beat_timeout"] == HEARTBEAT_TIMEOUT_S == 30
    store = next(one for one in resources["components"] if one["id"] == "job_manager")
    assert Path(store["args"]["uri_root"]).is_relative_to(tmp_path)


def test_what_flare_would_have_taken_by_default_is_gone(tmp_path: Path):
    kit = kit_at(tmp_path)
    (tmp_path / "local").mkdir()
    for name in ("resources.json.default", "authorization.json.default", "privacy.json.sample"):
        (tmp_path / "local" / name).write_text("{}")
    write_policies(kit)
    assert sorted(path.name for path in (tmp_path / "local").iterdir()) == [
        "authorization.json", "comm_config.json", "log_config.json", "resources.json",
    ]  # fmt: skip
