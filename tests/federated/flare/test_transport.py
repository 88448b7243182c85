"""Who is waited for, and how long: all that live; the slow after a quorum not for ever; the dead not at all."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pathoml.errors import FederationError
from pathoml.federated.messages import Message, to_bytes
from tests.federated.flare.kits import small_plan

pytest.importorskip("nvflare")
from nvflare.apis.shareable import make_reply
from nvflare.apis.signal import Signal

from pathoml.federated.flare.controller import FlareTransport
from pathoml.federated.flare.envelopes import enclose

REQUEST = Message("train", "ab" * 32, 2)
SITES = ("north", "south", "west")


class Network:
    """FLARE as the transport sees it: sites that answer after a while, fail, are dead, or never answer."""

    def __init__(self, after_s: dict[str, float], *, dead: tuple[str, ...] = (), failing: tuple[str, ...] = ()) -> None:
        self._after_s, self._dead, self._failing = after_s, dead, failing
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cancelled = 0

    def broadcast(self, task: Any, fl_ctx: Any, targets: list[str], min_responses: int) -> None:
        self.asked = targets
        for name in targets:
            one = SimpleNamespace(client=SimpleNamespace(name=name), result=None, result_received_time=None)
            task.client_tasks.append(one)
            if name in self._after_s:
                threading.Timer(self._after_s[name], self._answer, [name, one]).start()

    def _answer(self, name: str, one: Any) -> None:
        content = self.content.get(name, to_bytes(Message("trained", name)))
        one.result = make_reply("EXECUTION_EXCEPTION") if name in self._failing else enclose(content)
        one.result_received_time = time.time()

    def get_client_disconnect_time(self, name: str) -> float | None:
        return 1.0 if name in self._dead else None

    def cancel_task(self, task: Any) -> None:
        self.cancelled += 1


def transport(network: Network, patience_s: float, signal: Signal | None = None) -> FlareTransport:
    engine = SimpleNamespace(sync_clients_from_main_process=lambda: None)
    context = SimpleNamespace(get_engine=lambda: engine)
    return FlareTransport(network, small_plan(patience_s=patience_s), context, signal or Signal())  # type: ignore[arg-type]


def test_all_that_live_are_waited_for_even_with_a_quorum():
    network = Network({"north": 0.0, "south": 0.0, "west": 0.5})
    answers = transport(network, patience_s=60).exchange(REQUEST, SITES, 2)
    assert set(answers) == set(SITES)
    assert answers["west"] == to_bytes(Message("trained", "west"))
    assert network.cancelled == 1


def test_the_dead_are_not_waited_for_once_a_quorum_has_answered():
    answers = transport(Network({"north": 0.0, "south": 0.2}, dead=("west",)), patience_s=1e6).exchange(
        REQUEST, SITES, 2
    )
    assert set(answers) == {"north", "south"}


def test_the_slow_are_waited_for_no_longer_than_patience_allows():
    answers = transport(Network({"north": 0.0, "south": 0.0}), patience_s=0.3).exchange(REQUEST, SITES, 2)
    assert set(answers) == {"north", "south"}


def test_without_a_quorum_even_the_dead_are_waited_for():
    answers = transport(Network({"north": 0.0, "south": 0.5}, dead=("south", "west")), patience_s=0.01).exchange(
        REQUEST, SITES, 2
    )
    assert set(answers) == {"north", "south"}


def test_the_few_that_are_asked_something_apart_are_waited_for_unless_they_are_dead_or_too_slow():
    """A coordinator asks sites that were away whether they are back; no quorum can come of them."""
    assert transport(Network({}, dead=("west",)), patience_s=1e6).exchange(REQUEST, ["west"], 2) == {}
    assert transport(Network({}), patience_s=0.2).exchange(REQUEST, ["west"], 2) == {}
    assert set(transport(Network({"west": 0.2}), patience_s=1e6).exchange(REQUEST, ["west"], 2)) == {"west"}


def test_a_site_that_fails_is_absent_and_not_waited_for():
    network = Network({"north": 0.0, "south": 0.0, "west": 0.0}, failing=("west",))
    assert set(transport(network, patience_s=1e6).exchange(REQUEST, SITES, 2)) == {"north", "south"}


def test_who_is_asked_is_asked_and_nobody_else():
    network = Network({"south": 0.0})
    assert set(transport(network, patience_s=0.01).exchange(REQUEST, ["south"], 1)) == {"south"}
    assert network.asked == ["south"]


def test_the_operator_can_stop_a_round_that_waits():
    network, signal = Network({}), Signal()
    threading.Timer(0.3, signal.trigger, [True]).start()
    with pytest.raises(FederationError, match="stopped by the operator"):
        transport(network, 1e6, signal).exchange(REQUEST, SITES, 2)
    assert network.cancelled == 1


def test_how_far_a_round_is_can_be_seen():
    network = Network({"north": 0.0, "south": 0.0}, dead=("west",))
    one = transport(network, 1e6)
    one.exchange(REQUEST, SITES, 2)
    said = {"asked for": "train", "round": 2, "sites": list(SITES), "answered": ["north", "south"], "refused": {}}
    assert one.progress() == said


def test_the_operator_can_see_who_says_no_and_that_it_changed_its_mind():
    network = Network(dict.fromkeys(SITES, 0.0))
    one = transport(network, 1e6)
    network.content["south"] = to_bytes(Message("refused", "ab" * 32, 2, code="NOT_APPROVED"))
    one.exchange(REQUEST, SITES, 2)
    assert one.progress()["refused"] == {"south": "NOT_APPROVED"}
    one.exchange(REQUEST, ["north"], 1)
    assert one.progress()["refused"] == {"south": "NOT_APPROVED"}, "it was not asked again"
    network.content["south"] = to_bytes(REQUEST)
    one.exchange(REQUEST, SITES, 2)
    assert one.progress()["refused"] == {}
