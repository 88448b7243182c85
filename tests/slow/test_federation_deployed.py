"""A real coordinator and three real sites over TLS: trained, killed, resumed, attacked; the same weights as the simulation."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.audit import read_log, verify_log
from pathoml.federated.coordinator import run_evaluation, run_federation
from pathoml.federated.flare.jobs import write_job
from pathoml.federated.flare.kits import Kit, Role, read_kit
from pathoml.federated.flare.operating import resume, status_of, submit
from pathoml.federated.flare.provisioning import provision
from pathoml.federated.flare.starting import is_connected, run_in_background, running_process, stop
from pathoml.federated.messages import Message, to_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.site import Site, site_of
from pathoml.federated.site_settings import read_site
from pathoml.federated.transport import InProcess
from pathoml.package_files import read_package_files
from pathoml.pipeline.federating import approve
from pathoml.pipeline.federation_pages import write_coordinators_page
from pathoml.testing.loopback import LoopbackNetwork, wait_until
from tests.federated.hospitals import write_hospitals
from tests.federated.networks import CANARY, plan_of
from tests.federated.test_evaluation import evaluation_of, package_in

pytestmark = pytest.mark.slow
pytest.importorskip("nvflare")

GOES_ON_WITHIN_S = 150.0
"""What the hospitals are promised when a site is killed."""


def long_plan(rounds: int) -> Plan:
    method = {"kind": "rounds", "rounds": rounds, "local_epochs": 10, "aggregation": {"kind": "fedadam"}}
    return plan_of(quorum=2, method=method)


def log_of(site_yaml: Path) -> Path:
    return read_site(site_yaml).folder / "audit.jsonl"


def rounds_done(network: LoopbackNetwork) -> list[dict[str, float]]:
    """Return the history as the checkpoint has it."""
    from safetensors import safe_open

    path = network.output / "checkpoint.safetensors"
    if not path.is_file():
        return []
    with safe_open(path, framework="np") as file:
        history: list[dict[str, float]] = json.loads((file.metadata() or {})["federation"])["history"]
    return history


class Replay:
    """The sites in this process, silent and unheard in the same rounds as in the deployed network."""

    def __init__(
        self, members: Mapping[str, Site], answered: set[tuple[str, int]], unheard: set[tuple[str, int]]
    ) -> None:
        self._members, self._answered, self._unheard = dict(members), answered, unheard

    @property
    def sites(self) -> Sequence[str]:
        return tuple(self._members)

    def exchange(self, request: Message, sites: Sequence[str], quorum: int) -> Mapping[str, bytes]:
        answers = {}
        for name in sites:
            key = (name, request.round_number)
            if request.kind == "train" and key not in self._answered:
                continue
            content = self._members[name].answer(to_bytes(request))
            if request.kind != "train" or key not in self._unheard:
                answers[name] = content
        return answers


def replayed(network: LoopbackNetwork, files: Mapping[str, Path], folder: Path) -> Path:
    """Simulate the run with who took part in which round; return the package's folder."""
    answered = {
        (name, int(line["round"]))
        for name, path in files.items()
        for line in read_log(log_of(path))
        if line["direction"] == "out" and line["kind"] == "train"
    }
    notes = [json.loads(line) for line in (network.output / "coordinator.jsonl").read_text().splitlines()]
    unheard = {(note["site"], int(note["round"])) for note in notes if note["asked"] == "train"}
    members = {
        name: site_of(read_site(path).model_copy(update={"folder": folder / name}), lambda _: network.plan)
        for name, path in files.items()
    }
    run_federation(network.plan, Replay(members, answered, unheard), folder / "coordinator")
    return folder / "coordinator" / "package"


def test_a_network_survives_the_death_of_a_site_and_of_its_coordinator(tmp_path: Path) -> None:
    plan = long_plan(rounds=400)
    files = write_hospitals(plan, tmp_path / CANARY)
    with LoopbackNetwork(plan, files, tmp_path / "network") as network:
        network.start()
        submit(network.operator, wait_s=60)
        wait_until(lambda: len(rounds_done(network)) >= 5, "five rounds are done", 120)

        west = network.sites["west"]
        network.kill(west)
        killed_at, done = time.monotonic(), len(rounds_done(network))
        wait_until(lambda: len(rounds_done(network)) >= done + 3, "rounds go on without west", GOES_ON_WITHIN_S)
        print(f"rounds went on {time.monotonic() - killed_at:.0f} s after a site was killed")
        assert rounds_done(network)[-1]["sites"] == 2

        started_at = time.monotonic()
        run_in_background(west)
        wait_until(lambda: rounds_done(network)[-1]["sites"] == 3, "west takes part again", GOES_ON_WITHIN_S)
        print(f"the site took part again {time.monotonic() - started_at:.0f} s after it was started")
        assert status_of(network.operator).is_running, "the run ended before it was tried what this test is about"

        assert is_connected(west)
        network.kill(network.coordinator)
        wait_until(lambda: not is_connected(west), "west notices that the coordinator is gone", 60)
        before = rounds_done(network)
        run_in_background(network.coordinator)
        wait_until(lambda: _all_there(network), "the sites have found the coordinator again", 120, 2.0)
        resumed_at = time.monotonic()
        resume(network.operator, wait_s=60)
        ended = network.wait_for_end(900)
        assert ended.run == "FINISHED:COMPLETED"
        print(f"the resumed run took {time.monotonic() - resumed_at:.0f} s for {400 - len(before)} rounds")
        assert rounds_done(network)[: len(before)] == before, "whole rounds were taken again"
        assert {row["sites"] for row in rounds_done(network)[len(before) :]} == {3.0}
        asked = [
            line["round"]
            for line in read_log(log_of(files["north"]))
            if (line["direction"], line["kind"]) == ("in", "train")
        ]
        assert len(asked) - len(set(asked)) <= 1, "more than one round was taken twice"

        for name, path in files.items():
            verdict = verify_log(log_of(path))
            assert not verdict.problem, name
            assert verdict.lines > 100
        same = replayed(network, files, tmp_path / "replay")
        _assert_same_weights(network.output / "package", same)
        _assert_no_canary(network)
    assert network.processes() == []


def _all_there(network: LoopbackNetwork) -> bool:
    try:
        return not status_of(network.operator).missing
    except FederationError:
        return False  # it is only starting


def _assert_same_weights(package: Path, other: Path) -> None:
    ours, theirs = load_file(package / "model.safetensors"), load_file(other / "model.safetensors")
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=0, atol=1e-6, err_msg=name)


def _assert_no_canary(network: LoopbackNetwork) -> None:
    """Nothing of a site (ids of patients, names of folders and files) stands in anything that the coordinator has."""
    folders = (network.coordinator.folder, network.operator.folder)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        for word in (CANARY, "cohort.csv", "site.yaml"):
            assert word.encode() not in content, f"{word} in {path}"


class Proxy:
    """A hospital's proxy: it lets through what asks to CONNECT, and counts."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.passed_on = bytearray()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Let nobody through any more."""
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._connect, args=(self._listener.accept()[0],), daemon=True).start()

    def _connect(self, inside: socket.socket) -> None:
        head = b""
        with inside:
            while not head.endswith(b"\r\n\r\n"):
                if not (more := inside.recv(1)):
                    return
                head += more
            self.asked.append(head.split(b"\r\n")[0])
            host, _, port = head.split()[1].decode().rpartition(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as outside:
                inside.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._pass_on, args=(inside, outside), daemon=True)
                back.start()
                self._pass_on(outside, inside)
                back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                self.passed_on += content
                target.sendall(content)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    one = Proxy()
    yield one
    one.close()


@pytest.fixture(scope="module")
def small_network(
    tmp_path_factory: pytest.TempPathFactory, proxy: Proxy
) -> Iterator[tuple[LoopbackNetwork, dict[str, Path], Path]]:
    folder = tmp_path_factory.mktemp("small")
    plan = long_plan(rounds=3)
    files = write_hospitals(plan, folder / CANARY)
    files["south"].write_text(f"{files['south'].read_text()}proxy: {proxy.address}\n")
    with LoopbackNetwork(plan, files, folder / "network") as network:
        network.start()
        yield network, files, folder


@pytest.fixture(scope="module")
def undisturbed(small_network: Any) -> Any:
    """Return the small network after a run; a second one was refused while it was under way."""
    network = small_network[0]
    submit(network.operator, wait_s=60)
    with pytest.raises(ConfigError, match="a run is under way"):
        submit(network.operator)
    assert network.wait_for_end(300).run == "FINISHED:COMPLETED"
    return small_network


def test_an_undisturbed_run_ends_in_the_weights_of_the_simulation(undisturbed: Any) -> None:
    network, files, folder = undisturbed
    (network.output / "coordinator.jsonl").touch()
    _assert_same_weights(network.output / "package", replayed(network, files, folder / "replay"))
    _assert_no_canary(network)


def test_a_site_behind_a_proxy_dials_out_through_it_and_the_proxy_reads_nothing(undisturbed: Any, proxy: Proxy) -> None:
    network, _, _ = undisturbed
    assert len(proxy.asked) >= 2, "the site's own process, and that of the run"
    port = network.plan.network.port
    assert {line for line in proxy.asked if not line.startswith(f"CONNECT localhost:{port} ".encode())} == set()
    assert len(proxy.passed_on) > 10_000
    for word in (b"covariate_weight", b"numbers.sum", network.plan.digest.encode()):
        assert word not in bytes(proxy.passed_on)


def test_an_observer_sees_how_far_the_run_is_and_can_do_nothing(small_network: Any) -> None:
    from nvflare.fuel.flare_api.api_spec import AuthorizationError
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    network, _, folder = small_network
    kit = read_kit(network.folder / "kits" / "observer")
    assert status_of(kit) == status_of(network.operator)
    with pytest.raises(ConfigError, match="the kit of the observer"):
        submit(kit)
    with pytest.raises(ConfigError, match="the observer's kit watches the run"):
        run_in_background(kit)
    session = new_secure_session(kit.name, str(kit.folder))
    try:
        with pytest.raises(AuthorizationError):
            session.submit_job(str(write_job(network.plan, folder / "observers")))
    finally:
        session.close()


def test_hospitals_score_a_package_over_the_wire_as_they_do_in_one_process(small_network: Any) -> None:
    network, files, folder = small_network
    path = package_in(folder / "elsewhere")
    plan = evaluation_of(path).model_copy(update={"network": network.plan.network, "quorum": 3})
    (folder / "evaluation.yaml").write_text(plan.model_dump_json())  # JSON is YAML
    kits = provision(folder / "evaluation.yaml", folder / "more-kits", network.folder / "kits" / "authority")
    operator = next(kit for kit in kits if kit.role is Role.OPERATOR)
    for site in files.values():
        approve(read_site(site), plan, plan.digest)
    with pytest.raises(ConfigError, match="federate evaluate KIT PACKAGE"):
        submit(operator)
    submit(operator, wait_s=60, package=path)
    wait_until(lambda: not status_of(operator).is_running, "the evaluation is over", 120, 2.0)
    assert status_of(operator).run == "FINISHED:COMPLETED"
    output = network.coordinator.output_of(plan.digest)
    told = json.loads((output / "federation.json").read_text())["shared"]["sites"]
    members = {
        name: site_of(read_site(site).model_copy(update={"folder": folder / "scored" / name}), lambda _: plan)
        for name, site in files.items()
    }
    expected = run_evaluation(plan, read_package_files(path), InProcess(members), folder / "scored")
    assert set(told) == set(files)
    for name, score in expected.items():
        for number in ("patients", "events", "concordance", "comparable", "expected_events"):
            assert told[name][number] == pytest.approx(score.numbers[number], abs=1e-6), (name, number)
    page = write_coordinators_page(network.coordinator.folder).read_text()
    assert "nothing is trained" in page
    assert "Differential privacy: none" in page
    _assert_no_canary(network)


def test_a_plan_that_no_site_approved_is_refused_by_each_and_noted(small_network: Any) -> None:
    network, files, folder = small_network
    altered = network.plan.model_copy(update={"update_norm": 1e9})
    job_id, status = _run_job(network, write_job(altered, folder / "altered"))
    assert status != "FINISHED:COMPLETED", job_id
    notes = (network.coordinator.output_of(altered.digest) / "coordinator.jsonl").read_text().splitlines()
    refused = {(note["site"], note["what"]) for note in map(json.loads, notes)}
    assert refused == {(name, "NOT_APPROVED") for name in files}
    for path in files.values():
        said = [
            (line["direction"], line["code"]) for line in read_log(log_of(path)) if line["round"] == 0 and line["code"]
        ]
        assert said[-1] == ("out", "NOT_APPROVED")
        assert not verify_log(log_of(path)).problem


def test_an_operator_cannot_submit_another_plan_with_the_kit_of_this_one(small_network: Any) -> None:
    network, _, _ = small_network
    path = network.operator.folder / "plan.yaml"
    text = path.read_text()
    path.write_text(text.replace("rounds: 3", "rounds: 4"))
    with pytest.raises(ConfigError, match="but the kit was made for"):
        submit(network.operator)
    path.write_text(text)


@pytest.mark.parametrize(
    "change",
    [{"path": "nvflare.app_common.np.np_trainer.NPTrainer"}, {"args": {"anything": "{$HOME}"}}],
    ids=["another class", "an argument"],
)
def test_a_job_that_wants_something_else_of_a_site_gets_nothing(small_network: Any, change: dict[str, Any]) -> None:
    network, files, folder = small_network
    job = write_job(network.plan, folder / f"other-{next(iter(change))}")
    config = job / "app" / "config" / "config_fed_client.json"
    content = json.loads(config.read_text())
    content["executors"][0]["executor"].update(change)
    config.write_text(json.dumps(content))
    before = {name: len(read_log(log_of(path))) for name, path in files.items()}
    (network.output / "checkpoint.safetensors").unlink(missing_ok=True)
    _, status = _run_job(network, job, limit_s=30)
    assert status != "FINISHED:COMPLETED"
    assert {name: len(read_log(log_of(path))) for name, path in files.items()} == before, "a site was reached"
    for path in network.coordinator.folder.rglob("*"):
        assert not path.is_file() or os.environ["HOME"].encode() + b"\n" not in path.read_bytes()


LOOKS = (
    "cat north local/pathoml-site.json", "ls north", "grep north x log.txt", "tail north log.txt", "sys_info client north",
    "report_env north", "report_resources client north", "restart client north", "shutdown client north", "remove_client north",
    "process_info north", "show_config_vars north", "show_comm_config north", "msg_stats north",
)  # fmt: skip


@pytest.mark.parametrize("command", LOOKS)
def test_the_operator_cannot_look_into_a_site(small_network: Any, command: str) -> None:
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    network, _, _ = small_network
    session = new_secure_session(network.operator.name, str(network.operator.folder))
    try:
        answer = session.api.do_command(command)
    finally:
        session.close()
    said = json.dumps(answer, default=str).lower()
    refusals = (
        "invalid_request",
        f"not authorized for '{command.split(maxsplit=1)[0]}'",
        "process_exception",
    )  # of the site, of the coordinator, and of FLARE's network where nobody at the site hears
    assert any(words in said for words in refusals), said
    assert CANARY.lower() not in said
    assert running_process(network.sites["north"]) is not None


def test_a_certificate_of_another_authority_is_refused(small_network: Any) -> None:
    network, files, folder = small_network
    port = network.plan.network.port
    west = network.sites["west"]
    stop(west)
    wait_until(lambda: "west" in status_of(network.operator).missing, "west has left", 60, 2.0)
    with LoopbackNetwork(network.plan, files, folder / "strangers", port=port) as strangers:
        impostor = strangers.sites["west"]
        run_in_background(impostor)
        wait_until(lambda: b"CERTIFICATE_VERIFY_FAILED" in _output(impostor), "the impostor is told", 60)
        assert "west" in status_of(network.operator).missing
        with pytest.raises(FederationError, match=r"cannot be reached|does not accept"):
            status_of(strangers.operator)
    run_in_background(west)
    wait_until(lambda: not status_of(network.operator).missing, "west is back", 60, 2.0)


def _output(kit: Kit) -> bytes:
    return b"".join(
        (kit.folder / name).read_bytes() for name in ("process.log", "log.txt") if (kit.folder / name).is_file()
    )


def _run_job(network: LoopbackNetwork, job: Path, limit_s: float = 120) -> tuple[str, str]:
    """Submit a job past pathoml's own checks; stop it after a while; return how it ended."""
    from nvflare.fuel.flare_api.api_spec import JobNotRunning
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    session = new_secure_session(network.operator.name, str(network.operator.folder))
    try:
        job_id = session.submit_job(str(job))
        until = time.monotonic() + limit_s
        while time.monotonic() < until and not session.get_job_status(job_id).startswith(("FINISHED", "FAILED")):
            time.sleep(1)
        if not session.get_job_status(job_id).startswith(("FINISHED", "FAILED")):
            with contextlib.suppress(JobNotRunning):
                session.abort_job(job_id)
            wait_until(
                lambda: session.get_job_status(job_id).startswith(("FINISHED", "FAILED")), "the job is stopped", 60, 1.0
            )
        return job_id, session.get_job_status(job_id)
    finally:
        session.close()
