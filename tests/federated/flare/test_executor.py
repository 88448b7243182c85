"""What goes through a site's end of FLARE: bytes, or a code."""

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from pathoml.errors import CohortError, PathomlError
from pathoml.federated.messages import Message, from_bytes, to_bytes

pytest.importorskip("nvflare")
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.fuel.utils import fobs
from nvflare.private.fed.client.client_engine_executor_spec import TaskAssignment
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig, TaskRouter
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from pathoml.federated.flare.envelopes import content_of, enclose
from pathoml.federated.flare.executor import SiteExecutor
from pathoml.federated.flare.jobs import TASK

CANARY = "Mustermann-4711"
REQUEST = to_bytes(Message("train", "ab" * 32, 3, {"weight": np.arange(6.0)}))


class Echo:
    """A site that gives back what it is asked."""

    def answer(self, request: bytes) -> bytes:
        return request


class Broken:
    """A site that fails and says too much."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def answer(self, request: bytes) -> bytes:
        raise self._error


class Engine:
    """As much of FLARE's engine as its task loop needs to run one task."""

    def register_aux_message_handler(self, topic: str, message_handle_func: Any) -> None:
        pass

    def fire_event(self, event_type: str, fl_ctx: Any) -> None:
        pass


def executor_with(site: Any) -> SiteExecutor:
    executor = SiteExecutor()
    executor._site = site
    return executor


def through_flare(executor: SiteExecutor, request: Any) -> Any:
    """Run one task as FLARE's own loop at a site does, and spell the reply as it leaves."""
    router = TaskRouter()
    router.add_executor([TASK], executor)
    runner = ClientRunner({}, ClientRunnerConfig(router, {}, {}), "job", Engine())
    context, peer = FLContext(), FLContext()
    peer.set_prop(ReservedKey.RUN_NUM, "job", private=False)
    context.set_peer_context(peer)
    context.set_prop(FLContextKey.WORKSPACE_ROOT, "/nowhere", private=True)
    context.set_prop(ReservedKey.ENGINE, Engine(), private=True)
    return runner._process_task(TaskAssignment(TASK, "1", request), context)


@pytest.fixture(autouse=True)
def _fobs() -> None:
    nvflare_fobs_initialize()


def test_bytes_come_out_of_flares_own_spelling_as_they_went_in():
    travelled = fobs.loads(fobs.dumps(enclose(REQUEST)))
    assert content_of(travelled) == REQUEST
    assert from_bytes(content_of(travelled) or b"").round_number == 3


@pytest.mark.parametrize("other", [None, Shareable(), Shareable({"content": "text"}), Shareable({"content": {"a": 1}})])
def test_what_holds_no_message_is_none(other: Any):
    assert content_of(other) is None


def test_a_site_answers_through_flares_task_loop():
    reply = through_flare(executor_with(Echo()), enclose(REQUEST))
    assert content_of(fobs.loads(fobs.dumps(reply))) == REQUEST


@pytest.mark.parametrize(
    "error",
    [
        CohortError(CANARY),
        PathomlError(CANARY),
        RuntimeError(CANARY),
        ValueError(CANARY),
        MemoryError(CANARY),
        KeyError(CANARY),
    ],
)
def test_a_failing_site_sends_a_code_and_not_a_word(error: Exception):
    reply = through_flare(executor_with(Broken(error)), enclose(REQUEST))
    spelled = fobs.dumps(reply)
    assert reply.get_return_code() in {ReturnCode.EXECUTION_EXCEPTION, ReturnCode.EXECUTION_RESULT_ERROR}
    assert content_of(reply) is None
    for word in (CANARY, type(error).__name__, "Traceback", ".py"):
        assert word.encode() not in spelled


def test_a_site_that_has_not_joined_sends_a_code_and_not_its_path(tmp_path: Path):
    context = FLContext()
    context.set_prop(FLContextKey.WORKSPACE_ROOT, str(tmp_path), private=True)
    reply = SiteExecutor().execute(TASK, enclose(REQUEST), context, Signal())
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert str(tmp_path).encode() not in fobs.dumps(reply)


def test_a_request_without_a_message_is_refused():
    reply = through_flare(executor_with(Echo()), Shareable())
    assert reply.get_return_code() == ReturnCode.BAD_TASK_DATA


def test_a_class_that_a_message_names_is_not_built():
    """FOBS builds what FLARE has registered; it pickles nothing, and a stranger's class is refused by name."""
    stranger = {"__fobs_type__": "subprocess.Popen", "__fobs_data__": ["true"], "__fobs_dc__": ""}
    with pytest.raises(ValueError, match=r"subprocess\.Popen.* is not allowed"):
        fobs.deserialize(msgpack.packb(stranger))
