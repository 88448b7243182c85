"""What a site's main process still answers, whoever asks."""

import subprocess
import sys

import pytest

from pathoml.federated.flare.kits import Role
from pathoml.federated.flare.participant import ANSWERED_AT_A_SITE, command_of
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
from pathoml.federated.flare.participant import deafen
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


def test_participants_are_started_with_the_settings_of_their_kits(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("kits")
    module, words = command_of(kit_at(folder / "site"))
    assert module.endswith("client_train")
    assert {"secure_train=true", "uid=north", str(folder / "site")} <= set(words)
    module, words = command_of(kit_at(folder / "coordinator", Role.COORDINATOR))
    assert module.endswith("server_train")
    assert {"secure_train=true", "fed_server.json"} <= set(words)
