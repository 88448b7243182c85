"""A coordinator that asks for more than the plan needs, a site that says what cannot be, and a log that two write."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathoml.errors import FederationError
from pathoml.federated.audit import AuditLog, read_log, verify_log
from pathoml.federated.coordinator import run_federation
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.requests import MOST_POINTS, kinds_asked
from pathoml.federated.site import Site
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings
from tests.federated.networks import GENES, Recorder, cohort_of, parts_of, plan_of
from tests.federated.test_training import sites_of

GIVEN = [{"kind": "numeric", "column": "age", "mean": 60.0, "scale": 12.0}]
FIXED = {"kind": "fixed", "edges_days": [0, 600, 1200, 3000]}
NEWTON = {"kind": "newton"}


def site_with(folder: Path, plan: Plan, data: SiteData, limits: LimitsSettings = DEFAULT_LIMITS) -> Site:
    return Site(folder, lambda _: plan, lambda _: data, limits)


def ask(site: Site, plan: Plan, kind: str, number: int = 0, **arrays: Any) -> Message:
    return from_bytes(site.answer(to_bytes(Message(kind, plan.digest, number, arrays))))


def test_a_site_answers_what_its_plan_needs_and_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(
        covariates=GIVEN,
        bins=FIXED,
        quorum=1,
        method={"kind": "rounds", "rounds": 1, "start": "zero"},
        validation_share=0.0,
    )
    assert kinds_asked(plan) == {"join", "setup", "train", "calibrate", "evaluate"}
    site = site_with(tmp_path, plan, parts_of(plan)["west"])
    recorder = Recorder({"west": site})
    run_federation(plan, recorder, tmp_path / "out")
    assert {from_bytes(content).kind for _, content in recorder.left} == {
        "join",
        "setup",
        "train",
        "calibrate",
        "evaluate",
    }
    for kind in (
        "values",
        "squares",
        "products",
        "tiles",
        "times",
        "newton",
        "validate",
        "personal",
        "membership",
        "score",
    ):
        assert ask(site, plan, kind).code == "BAD_REQUEST", kind
    assert "does not have a site asked" in read_log(tmp_path / "audit.jsonl")[-1]["why"]


@pytest.mark.parametrize(
    ("kind", "number", "arrays", "words"),
    [
        ("join", 1, {}, "round 1, and the plan has it asked in rounds 0 to 0"),
        ("join", 0, {"a": np.zeros(1)}, "expected {}"),
        ("squares", 0, {"numbers.mean": np.zeros(3)}, r"expected {'numbers.mean': (9,)}"),
        ("squares", 0, {"numbers.mean": np.full(9, np.nan)}, "numbers.mean not finite"),
        ("products", 0, {"numbers.mean": np.zeros(9)}, "'numbers.scale': (9,)"),
        ("newton", 0, {"parameters": np.zeros((2, 2))}, "expected parameters with one axis"),
        ("newton", 0, {"parameters": np.zeros(2)}, "parameters of shape (2,), expected"),
        ("train", 3, {"model.bias": np.zeros(2)}, "rounds 0 to 2"),
        ("train", 0, {"pickle": np.zeros(2)}, "expected model. and control.*"),
        ("train", 0, {"model.bias": np.zeros(99)}, "bias (99,), expected (3,)"),
        ("evaluate", 0, {"model.bias": np.full(2, np.inf)}, "model.bias not finite"),
        ("setup", 0, {"edges": np.zeros(3)}, "setup does not fit the plan"),
    ],
)
def test_what_is_wrong_with_a_request_stands_in_the_sites_log_and_a_code_leaves(
    tmp_path: Path, kind: str, number: int, arrays: dict[str, Any], words: str
) -> None:
    plan = plan_of(quorum=1, method={"kind": "rounds", "rounds": 3})
    site = site_with(tmp_path, plan, parts_of(plan)["west"])
    run_federation(plan, Recorder({"west": site}), tmp_path / "out")
    answer = ask(site, plan, kind, number, **arrays)
    assert answer == Message("refused", plan.digest, number, {}, {}, "BAD_REQUEST")
    last = read_log(tmp_path / "audit.jsonl")[-1]
    assert words in last["why"]
    assert last["direction"] == "out"


def test_nobody_stands_alone_in_the_difference_of_two_sums(tmp_path: Path) -> None:
    """With a slope so steep that all but the oldest are sure, two gradients differ by the oldest patient's own age."""
    plan = plan_of(covariates=GIVEN, bins=FIXED, method=NEWTON, quorum=1)
    data = parts_of(plan)["west"]
    site = site_with(tmp_path, plan, data)
    run_federation(plan, Recorder({"west": site}), tmp_path / "out")
    ages = np.sort(data.cohort.covariates["age"].to_numpy()[data.cohort.rows_of(data.train)])
    oldest = (ages[~np.isnan(ages)][-1] - 60.0) / 12.0
    for slope in (4000.0, 400.0, 40.0):
        point = np.array([slope, *np.full(3, -slope * (oldest - 0.01))])
        assert ask(site, plan, "newton", parameters=point).code == "LIMIT_OF_SITE"
    assert "where few patients count by themselves" in read_log(tmp_path / "audit.jsonl")[-1]["why"]


def test_newtons_sums_are_told_at_so_many_points_and_at_no_more_whatever_is_restarted(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON, quorum=1)
    data = parts_of(plan)["west"]
    recorder = Recorder({"west": site_with(tmp_path, plan, data)})
    run_federation(plan, recorder, tmp_path / "out")
    point = from_bytes(recorder.asked("newton", 0)).arrays["parameters"]
    taken = sum(from_bytes(content).kind == "newton" for _, content in recorder.left)
    codes, site = [], site_with(tmp_path, plan, data)
    for number in range(MOST_POINTS + 5):
        site = site_with(tmp_path, plan, data) if number % 20 == 0 else site
        codes.append(ask(site, plan, "newton", parameters=point * (1 + 1e-3 * (number + 1))).code)
    assert codes.count("") == MOST_POINTS - taken
    assert set(codes[codes.count("") :]) == {"LIMIT_OF_SITE"}
    assert ask(site, plan, "newton", parameters=point).code == "", "the very same question may be asked again"


def test_a_mutation_of_one_patient_and_a_value_of_one_patient_are_in_no_sum(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON, quorum=1)
    cohort = cohort_of(patients=150, sites=("west",))
    carrier = np.zeros(150)
    data = parts_of(plan_of(("west",)), cohort)["west"]
    row = data.cohort.rows_of(data.train)[7]
    name = str(data.cohort.patient_id[row])
    table = data.cohort.covariates.copy()
    at = data.cohort.rows_of((name,))[0]
    carrier[at] = 1.0
    table["gene3"] = carrier
    lone = np.full(150, np.nan)
    lone[at] = 37.21
    table["gene5"] = lone
    data = replace(data, cohort=replace(data.cohort, covariates=table))
    recorder = Recorder({"west": site_with(tmp_path, plan, data)})
    run_federation(plan, recorder, tmp_path / "out")
    told = {from_bytes(content).kind: from_bytes(content).arrays for _, content in recorder.left}
    for column in (GENES.index("gene3"), GENES.index("gene5")):
        assert told["values"]["numbers.count"][column + 1] == told["values"]["numbers.sum"][column + 1] == 0
        assert not told["products"]["products.0"][column].any()
    assert told["values"]["numbers.count"][1 + GENES.index("gene0")] == len(data.train)


def test_a_word_that_few_have_counts_as_the_commonest_there(tmp_path: Path) -> None:
    plan = plan_of(method=NEWTON)
    parts = parts_of(plan)
    recorder = Recorder(sites_of(plan, parts, tmp_path))
    run_federation(plan, recorder, tmp_path / "out")
    for name, content in recorder.left:
        if from_bytes(content).kind == "values":
            counts = from_bytes(content).arrays["words.0"]
            assert counts.sum() == len(parts[name].train)
            assert all(count == 0 or count >= 20 for count in counts.tolist())


def test_a_site_with_too_few_patients_for_a_blocks_columns_is_not_asked_for_their_products(tmp_path: Path) -> None:
    columns = [f"g{number}" for number in range(40)]
    plan = plan_of(covariates=[{"kind": "block", "name": "b", "columns": columns, "components": 3}], method=NEWTON)
    cohort = cohort_of()
    table = cohort.covariates.assign(**{name: np.random.default_rng(7).normal(size=len(cohort)) for name in columns})
    parts = parts_of(plan, replace(cohort, covariates=table))
    site = site_with(tmp_path, plan, parts["west"])
    assert len(parts["west"].train) < 80
    assert ask(site, plan, "join").code == "TOO_FEW_PATIENTS"
    assert "nothing is said of fewer than 80" in read_log(tmp_path / "audit.jsonl")[-1]["why"]


# A site that says what cannot be.


def told(**numbers: float | None) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        answer = from_bytes(content)
        merged = {**answer.numbers, **numbers}
        return to_bytes(replace(answer, numbers={name: one for name, one in merged.items() if one is not None}))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (told(events=None), "numbers events are missing"),
        (told(patients=None), "numbers patients are missing"),
        (told(events=-20.0), "events: no count"),
        (told(events=1e12), "1000000000000 events of"),
        (told(patients=1e12, events=1e12), "and (2"),
        (told(events=20.5), "events: no count"),
    ],
)
def test_a_site_whose_counts_cannot_be_is_left_out_and_the_others_go_on(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    plan = plan_of(quorum=2)
    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path))
    recorder.altered[("west", "train")] = change
    result = run_federation(plan, recorder, tmp_path / "out")
    assert [row["sites"] for row in result.history] == [2.0, 2.0, 2.0]
    assert words in (tmp_path / "out" / "coordinator.jsonl").read_text()


@pytest.mark.parametrize("kind", ["join", "values", "squares", "products", "times", "newton", "calibrate", "evaluate"])
@pytest.mark.parametrize("how", ["no numbers, no arrays", "not finite", "garbage"])
def test_one_site_that_answers_badly_does_not_end_the_run(tmp_path: Path, kind: str, how: str) -> None:
    def spoil(content: bytes) -> bytes:
        answer = from_bytes(content)
        if how == "garbage":
            return b"\x00" * 40
        if how == "not finite":
            endless = {name: np.full(one.shape, np.nan) for name, one in answer.arrays.items()}
            return to_bytes(replace(answer, arrays=endless or {"strange": np.full(1, np.nan)}))
        return to_bytes(replace(answer, arrays={}, numbers={}))

    plan = plan_of(quorum=2, method={"kind": "rounds", "rounds": 1})
    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path))
    recorder.altered[("west", kind)] = spoil
    result = run_federation(plan, recorder, tmp_path / "out")
    assert len(result.history) == 1
    assert '"west"' in (tmp_path / "out" / "coordinator.jsonl").read_text()


@pytest.mark.parametrize("kind", ["squares", "products", "newton"])
def test_a_site_that_dies_between_two_sums_is_left_out_of_both_and_the_others_go_on(tmp_path: Path, kind: str) -> None:
    plan = plan_of(quorum=2, method=NEWTON)
    parts = parts_of(plan)

    class Dying(Recorder):
        asked_for = 0

        def exchange(self, request: Any, sites: Any, quorum: int) -> Any:
            self.asked_for += request.kind == kind
            if self.asked_for >= (3 if kind == "newton" else 1):
                self.lost |= {("west", name, 0) for name in kinds_asked(plan)}
            return super().exchange(request, sites, quorum)

    result = run_federation(plan, Dying(sites_of(plan, parts, tmp_path)), tmp_path / "out")
    assert set(result.scores) == {"north", "south"}
    if kind != "newton":  # transforms of two sites, then: the same as a network of two
        two = plan.model_copy(update={"sites": ("north", "south")})
        expected = run_federation(
            two, Recorder(sites_of(two, {n: parts[n] for n in two.sites}, tmp_path / "two")), tmp_path / "b"
        )
        first, second = (one.package.members[0].model.covariate_weight.detach().numpy() for one in (result, expected))
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_losses_of_other_sites_are_not_compared(tmp_path: Path) -> None:
    """A round in which the site with the highest loss is away looks better, and is not."""
    method = {"kind": "rounds", "rounds": 4, "keep": "best_validation", "aggregation": {"kind": "fedavg"}}
    plan = plan_of(quorum=2, method=method, minimum_patients=1, minimum_events=1)
    recorder = Recorder(sites_of(plan, parts_of(plan), tmp_path, LimitsSettings(public_benchmark=True)))

    def worse(content: bytes) -> bytes:
        answer = from_bytes(content)
        return to_bytes(replace(answer, numbers={**answer.numbers, "validation_loss": 9.0}))

    recorder.altered[("west", "train")] = worse
    recorder.lost.add(("west", "train", 2))
    result = run_federation(plan, recorder, tmp_path / "out")
    losses = [row["validation_loss"] for row in result.history]
    assert np.argmin(losses) == 2
    sent = from_bytes(recorder.asked("train", 2)).arrays
    kept = result.package.members[0].model.covariate_weight.detach().numpy()
    assert not np.array_equal(kept, sent["model.covariate_weight"])


# The log.


def test_two_that_write_one_log_keep_its_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def write(log: AuditLog) -> None:
        for number in range(20):
            message = Message("train", "ab", number)
            log.note("out", message, to_bytes(message))

    writers = [threading.Thread(target=write, args=(AuditLog(path),)) for _ in range(3)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert (verify_log(path).lines, verify_log(path).problem) == (60, "")


def test_a_line_that_a_power_cut_left_half_written_is_set_aside_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for number in range(3):
        log.note("out", Message("train", "ab", number), b"x")
    path.write_bytes(path.read_bytes()[:-30])
    again = AuditLog(path)
    again.note("out", Message("train", "ab", 3), b"x")
    lines = read_log(path)
    assert [line["direction"] for line in lines] == ["out", "out", "torn", "out"]
    assert verify_log(path).problem == ""
    assert (tmp_path / "audit.torn-2").read_bytes().startswith(b'{"arrays"')
    assert json.loads(path.read_text().splitlines()[2])["why"].endswith("it is in audit.torn-2")


def test_a_log_that_cannot_be_written_lets_nothing_out(tmp_path: Path) -> None:
    plan = plan_of()
    site = site_with(tmp_path, plan, parts_of(plan)["west"])
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(OSError, match="nothing leaves without its line"):
        ask(site, plan, "join")


def test_a_network_whose_sites_have_no_event_says_what_to_do(tmp_path: Path) -> None:
    plan = plan_of(
        minimum_patients=1, minimum_events=0, bins=FIXED, method={"kind": "rounds", "rounds": 1, "start": "zero"}
    )
    cohort = cohort_of()
    parts = parts_of(plan, replace(cohort, event=np.zeros(len(cohort), dtype=np.int64)))
    with pytest.raises(FederationError, match=r"set method\.weight: patients"):
        run_federation(
            plan, Recorder(sites_of(plan, parts, tmp_path, LimitsSettings(public_benchmark=True))), tmp_path / "out"
        )
