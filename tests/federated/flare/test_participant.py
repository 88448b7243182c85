"""What a site's main process still answers, whoever asks."""

import subprocess
import sys

import pytest

from pathoml.federated.flare.deafening import ANSWERED_AT_A_SITE, ANSWERED_BY_A_RUN
from pathoml.federated.flare.kits import Role
from pathoml.federated.flare.participant import command_of
from tests.federated.flare.kits import kit_at

pytest.importorskip("nvflare")

TAKEN_OVER = """
from types import SimpleNamespace
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.fuel.sec.audit import AuditService
from nvflare.private.admin_defs import Message
from nvflare.private.fed.client.admin import FedAdminAgent
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from pathoml.federated.flare.deafening import deafen
import contextlib, sys, tempfile

if sys.argv[1] == "deaf":
    deafen()
AuditService.initialize(tempfile.mktemp())
cell = SimpleNamespace(register_request_cb=lambda **_: None)
agent = FedAdminAgent("north", cell, SimpleNamespace(new_context=lambda: contextlib.nullcontext(FLContext())))
for processor in ClientRequestProcessors.request_processors:
    agent.register_processor(processor)
for topic, body in (("sys.shell", "cat secret.txt"), ("sys.info", "")):
    print(topic, agent._dispatch_request(CellMessage({}, Message(topic=topic, body=body))).payload.body)
print(sorted(type(one).__name__ for one in ClientRequestProcessors.request_processors))
"""
"""A server that has been taken over asks without the mark by which a site's policies would be asked."""


def answers(mode: str, folder: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", TAKEN_OVER, mode], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_a_server_that_was_taken_over_cannot_read_files_of_a_site(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("site")
    (folder / "secret.txt").write_text("Mustermann-4711")
    assert "Mustermann-4711" in answers("as it comes", str(folder)), (
        "FLARE no longer does what this is a defence against"
    )
    heard = answers("deaf", str(folder))
    assert "Mustermann" not in heard
    assert heard.count("invalid_request") == 2
    assert str(sorted(ANSWERED_AT_A_SITE)) in heard


DIAGNOSED = """
import socket, sys, time
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.net_agent import NetAgent
from nvflare.private.fed.client import fed_client_base
from nvflare.private.fed.client.admin_commands import AdminCommands
from pathoml.federated.flare.deafening import deafen

if sys.argv[1] == "deaf":
    deafen()
with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    url = f"tcp://localhost:{one.getsockname()[1]}"
server = CoreCell(fqcn=FQCN.ROOT_SERVER, root_url=url, secure=False, credentials={})
server.start()
agent = NetAgent(server)
site = CoreCell(fqcn="north", root_url=url, secure=False, credentials={})
site.start()
held = fed_client_base.NetAgent(site)
time.sleep(1.0)
for ask in (agent.get_process_info, agent.get_config_vars, agent.get_comm_config):
    print(ask.__name__, "answered" if isinstance(ask("north"), dict) else "heard nothing", flush=True)
print("stopped", agent.stop_cell("north"), flush=True)
print(sorted(type(one).__name__ for one in AdminCommands.commands), flush=True)
import os
os._exit(0)
"""
"""A server asks a site's part of FLARE's network about its process, its threads and its configuration, and to stop."""


def diagnosed(mode: str) -> str:
    return subprocess.run([sys.executable, "-c", DIAGNOSED, mode], capture_output=True, text=True, check=True).stdout


def test_a_site_tells_no_server_of_its_process_or_its_configuration_and_does_not_stop_for_it() -> None:
    before, heard = diagnosed("as it comes"), diagnosed("deaf")
    assert before.count("answered") == 3, "FLARE no longer does what this is a defence against"
    assert "ConfigureJobLogCommand" in before
    assert "ShowErrorsCommand" in before
    assert heard.count("heard nothing") == 3
    assert "stopped ok" in before
    assert "stopped ok" not in heard
    assert str(sorted(ANSWERED_BY_A_RUN)) in heard


def test_a_run_at_a_site_is_started_by_the_module_that_hears_no_more_than_the_run() -> None:
    from nvflare.apis.fl_constant import FLContextKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.job_launcher_spec import JobProcessArgs

    from pathoml.errors import FederationError
    from pathoml.federated.flare.launcher import SiteRunLauncher

    context = FLContext()
    module = "nvflare.private.fed.app.client.worker_process"
    context.set_prop(FLContextKey.JOB_PROCESS_ARGS, {JobProcessArgs.EXE_MODULE: ("-m", module)})
    assert SiteRunLauncher().get_command({}, context).split()[1:] == ["-m", "pathoml.federated.flare.site_run"]
    other = FLContext()
    other.set_prop(FLContextKey.JOB_PROCESS_ARGS, {JobProcessArgs.EXE_MODULE: ("-m", "nvflare.another")})
    with pytest.raises(FederationError, match="nothing is started"):
        SiteRunLauncher().get_command({}, other)


def test_participants_are_started_with_the_settings_of_their_kits(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("kits")
    module, words = command_of(kit_at(folder / "site"))
    assert module.endswith("client_train")
    assert {"secure_train=true", "uid=north", str(folder / "site")} <= set(words)
    module, words = command_of(kit_at(folder / "coordinator", Role.COORDINATOR))
    assert module.endswith("server_train")
    assert {"secure_train=true", "fed_server.json"} <= set(words)
