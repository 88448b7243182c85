"""A network with patients' privacy: what leaves has noise, everything is counted, and nothing else is asked or answered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathoml.errors import FederationError
from pathoml.federated.accountant import Release, epsilon_of
from pathoml.federated.audit import read_log, verify_log
from pathoml.federated.coordinator import run_federation
from pathoml.federated.guard import PRIVATE_REQUESTS
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.simulate import simulate
from pathoml.federated.site import Site
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings
from tests.federated.networks import FEATURES, Recorder, cohort_of, parts_of, plan_of

pytest.importorskip("opacus", reason="opacus is not installed: pip install 'pathoml[federated]'")

GIVEN: dict[str, Any] = {
    "covariates": [
        {"kind": "numeric", "column": "age", "mean": 60, "scale": 12},
        {"kind": "categorical", "column": "sex", "words": ["female", "male"]},
    ],
    "bins": {"kind": "fixed", "edges_days": [0, 400, 1200, 3000]},
    "method": {"kind": "rounds", "rounds": 3, "local_epochs": 2, "weight": "patients", "start": "zero"},
    "train": {"loss": {"kind": "discrete"}, "learning_rate": 0.02},
}  # fmt: skip


def private_plan(privacy: dict[str, Any] | None = None, **changes: Any) -> Plan:
    method = {**GIVEN["method"], **changes.pop("method", {})}
    wanted = {"epsilon": 4.0, "sample_rate": 0.25, **(privacy or {})}
    return plan_of(**{**GIVEN, **changes, "method": method, "privacy": wanted})


def site_at(folder: Path, plan: Plan, data: SiteData, limits: LimitsSettings = DEFAULT_LIMITS) -> Site:
    return Site(folder, lambda _: plan, lambda _: data, limits)


def network(plan: Plan, folder: Path, parts: dict[str, SiteData] | None = None) -> Recorder:
    return Recorder({name: site_at(folder / name, plan, data) for name, data in (parts or parts_of(plan)).items()})


def said(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "federation.json").read_text())


def test_epsilon_is_spent_up_to_the_plans_and_stands_in_report_history_and_every_line_of_the_log(
    tmp_path: Path,
) -> None:
    plan = private_plan({"spare_passes": 0})
    run_federation(plan, network(plan, tmp_path), tmp_path / "out")
    told = said(tmp_path / "out")
    assert 3.9 < told["privacy"]["epsilon_spent"] <= 4.0
    spent = [row["epsilon"] for row in told["history"]]
    assert spent == sorted(spent)
    assert len(set(spent)) == 3
    package = json.loads((tmp_path / "out" / "package" / "model.json").read_text())
    assert package["summary"]["privacy"]["epsilon"] == 4.0
    for name in plan.sites:
        lines = read_log(tmp_path / name / "audit.jsonl")
        assert verify_log(tmp_path / name / "audit.jsonl").problem == ""
        of_plan = [line["privacy"]["epsilon"] for line in lines[1:]]  # before the first request there is nothing to say
        assert of_plan == sorted(of_plan)
        assert of_plan[-1] == pytest.approx(spent[-1], abs=0.2), "delta follows the number of patients"
        assert lines[-1]["privacy"]["delta"] == pytest.approx(1 / (10 * (len(parts_of(plan)[name].train))))
        rows = json.loads((tmp_path / name / "privacy.json").read_text())["releases"]
        assert [(row["purpose"], row["times"]) for row in rows] == [("training", 24)]


def test_without_privacy_nothing_says_private(tmp_path: Path) -> None:
    plan = plan_of()
    run_federation(plan, network(plan, tmp_path), tmp_path / "out")
    assert said(tmp_path / "out")["privacy"] is None
    assert {line["privacy"] for line in read_log(tmp_path / "north" / "audit.jsonl")[1:]} == {None}
    assert not (tmp_path / "north" / "privacy.json").exists()


def test_nothing_leaves_but_noised_models_and_losses(tmp_path: Path) -> None:
    plan = private_plan({"metric_noise": 20.0}, method={"keep": "best_validation"})
    recorder = network(plan, tmp_path)
    run_federation(plan, recorder, tmp_path / "out")
    messages = [from_bytes(content) for _, content in recorder.left]
    assert {one.kind for one in messages} == {"join", "setup", "train", "validate"}
    numbers = {name for one in messages for name in one.numbers}
    assert numbers == {"patients", "epsilon", "train_loss"}, "48 / 3 validation patients are too few to speak of"
    weights = {"model.covariate_weight", "model.bias", "model.absent"}
    assert {name for one in messages for name in one.arrays} == weights
    assert said(tmp_path / "out")["shared"] == {"sites": {}, "overall": {}}


@pytest.mark.slow
def test_validation_losses_leave_with_noise_that_is_counted(tmp_path: Path) -> None:
    plan = private_plan({"metric_noise": 10.0}, method={"keep": "best_validation"}, validation_share=0.3)
    parts = parts_of(plan, cohort_of(600))
    result = run_federation(plan, network(plan, tmp_path, parts), tmp_path / "out")
    losses = [row["validation_loss"] for row in result.history]
    assert len(losses) == 3
    assert all(abs(one) < 10 for one in losses)
    rows = json.loads((tmp_path / "north" / "privacy.json").read_text())["releases"]
    assert {(row["purpose"], row["times"]) for row in rows} == {("training", 24), ("validation loss", 4)}
    releases = [Release(row["sample_rate"], row["noise_multiplier"], row["times"]) for row in rows]
    counted = epsilon_of(releases, 1 / (10 * len(parts["north"].train)))
    assert counted <= 4.0
    last = read_log(tmp_path / "north" / "audit.jsonl")[-1]["privacy"]
    assert last["epsilon"] == pytest.approx(counted)


@pytest.mark.parametrize("kind", ["values", "squares", "products", "tiles", "times", "newton", "evaluate", "calibrate"])
def test_requests_for_sums_without_noise_are_refused(tmp_path: Path, kind: str) -> None:
    assert kind not in PRIVATE_REQUESTS
    plan = private_plan()
    site = site_at(tmp_path, plan, parts_of(plan)["north"])
    answer = from_bytes(site.answer(to_bytes(Message(kind, plan.digest))))
    assert answer.code == "MAY_NOT_LEAVE"
    assert not answer.arrays
    assert not answer.numbers


def test_the_same_request_gets_the_same_noise_and_costs_nothing_more(tmp_path: Path) -> None:
    plan = private_plan()
    parts = parts_of(plan)
    site, ledger = site_at(tmp_path, plan, parts["north"]), tmp_path / "privacy.json"
    setup = network(plan, tmp_path / "other", parts)
    run_federation(plan, setup, tmp_path / "out")
    site.answer(setup.asked("setup", 0))
    request = setup.asked("train", 0)
    first, spent = site.answer(request), ledger.read_bytes()
    assert from_bytes(first).numbers["epsilon"] > 0
    again = site_at(tmp_path, plan, parts["north"])  # after a restart
    assert again.answer(request) == first
    assert ledger.read_bytes() == spent
    message = from_bytes(request)
    changed = Message("train", plan.digest, 0, {name: one + 1 for name, one in message.arrays.items()})
    assert again.answer(to_bytes(changed)) != first
    assert ledger.read_bytes() != spent


def test_a_killed_coordinator_costs_no_privacy_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    plan = private_plan({"spare_passes": 0})
    parts = parts_of(plan)
    recorder = network(plan, tmp_path, parts)

    class LosesTheLastAnswers(Recorder):
        def exchange(self, request: Any, sites: Any, quorum: int) -> Any:
            answers = super().exchange(request, sites, quorum)
            if (request.kind, request.round_number) == ("train", 2) and self.stop_before is None:
                self.stop_before = ("train", 2)
                raise KeyboardInterrupt
            return answers

    killed = LosesTheLastAnswers(recorder.members)
    with pytest.raises(KeyboardInterrupt):
        run_federation(plan, killed, tmp_path / "out")
    before = (tmp_path / "north" / "privacy.json").read_bytes()
    sent = [content for name, content in killed.left if name == "north"][-1]
    fresh = network(plan, tmp_path, parts)  # the sites were started again, too
    result = run_federation(plan, fresh, tmp_path / "out")
    assert (tmp_path / "north" / "privacy.json").read_bytes() == before
    assert sent in [content for name, content in fresh.left if name == "north"]
    assert len(result.history) == 3


def test_asking_for_more_than_the_plan_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    plan = private_plan({"spare_passes": 0})
    parts = parts_of(plan)
    recorder = network(plan, tmp_path, parts)
    run_federation(plan, recorder, tmp_path / "out")
    before = (tmp_path / "north" / "privacy.json").read_bytes()
    site = site_at(tmp_path / "north", plan, parts["north"])
    arrays = from_bytes(recorder.asked("train", 2)).arrays
    beyond = from_bytes(site.answer(to_bytes(Message("train", plan.digest, 3, arrays))))
    assert beyond.code == "BAD_REQUEST"
    others = {name: one + np.float32(0.01) for name, one in arrays.items()}
    answer = from_bytes(site.answer(to_bytes(Message("train", plan.digest, 2, others))))
    assert answer.code == "LIMIT_OF_SITE"
    assert not answer.arrays
    assert (tmp_path / "north" / "privacy.json").read_bytes() == before
    assert "privacy budget" in read_log(tmp_path / "north" / "audit.jsonl")[-1]["why"]


def test_a_ledger_that_was_deleted_stops_the_site(tmp_path: Path) -> None:
    plan = private_plan()
    parts = parts_of(plan)
    run_federation(plan, network(plan, tmp_path, parts), tmp_path / "out")
    (tmp_path / "north" / "privacy.json").unlink()
    site = site_at(tmp_path / "north", plan, parts["north"])
    answer = from_bytes(site.answer(to_bytes(Message("join", plan.digest))))
    assert answer.code == "LIMIT_OF_SITE"
    assert "deleted or an older copy put back" in read_log(tmp_path / "north" / "audit.jsonl")[-1]["why"]


@pytest.mark.parametrize(
    ("limit", "privacy", "code"),
    [
        (2.0, {"epsilon": 4.0}, "LIMIT_OF_SITE"),
        (4.0, {"epsilon": 4.0}, ""),
        (4.0, None, "LIMIT_OF_SITE"),
        (None, None, ""),
    ],
)
def test_a_site_with_a_limit_takes_part_in_private_plans_only(
    tmp_path: Path, limit: float | None, privacy: dict[str, Any] | None, code: str
) -> None:
    plan = plan_of() if privacy is None else private_plan(privacy)
    site = site_at(tmp_path, plan, parts_of(plan)["north"], LimitsSettings(epsilon=limit))
    assert from_bytes(site.answer(to_bytes(Message("join", plan.digest)))).code == code


def test_all_plans_together_stay_within_the_sites_limit(tmp_path: Path) -> None:
    first, second = private_plan({"spare_passes": 0}), private_plan({"spare_passes": 0}, seed=5)
    plans = {first.digest: first, second.digest: second}
    parts, limits = parts_of(first), LimitsSettings(epsilon=5.0)
    members = {
        name: Site(tmp_path / name, plans.__getitem__, lambda _, d=data: d, limits) for name, data in parts.items()
    }
    run_federation(first, Recorder(members), tmp_path / "first")
    assert from_bytes(members["north"].answer(to_bytes(Message("join", second.digest)))).code == ""
    with pytest.raises(FederationError, match="0 of 3 sites gave an answer that can be used"):
        run_federation(second, Recorder(members), tmp_path / "second")
    assert read_log(tmp_path / "north" / "audit.jsonl")[-1]["privacy"]["epsilon_of_all_plans"] <= 5.0


def test_tiles_are_trained_on_as_they_are(tmp_path: Path) -> None:
    plan = private_plan(
        features={**FEATURES, "scaling": "none"},
        model={"tile_components": None, "aggregator": {"kind": "abmil", "hidden_dim": 4, "attention_dim": 4}},
    )
    result = simulate(plan, parts_of(plan), tmp_path)
    projection = result.package.members[0].projection
    assert projection is not None
    np.testing.assert_array_equal(projection.mean, 0)
    np.testing.assert_array_equal(projection.scale, 1)
    assert said(tmp_path / "coordinator")["privacy"]["epsilon_spent"] > 3


@pytest.mark.slow
def test_a_network_with_little_noise_finds_what_matters(tmp_path: Path) -> None:
    plan = private_plan({"epsilon": 50.0, "sample_rate": 0.5}, method={"rounds": 15, "local_epochs": 1})
    result = simulate(plan, parts_of(plan, cohort_of(600)), tmp_path)
    age, *sexes = result.package.members[0].model.covariate_weight.tolist()
    assert age > 0.15
    assert age > max(map(abs, sexes))
    member = result.package.members[0]
    assert member.risk_cutoff == member.risk_centre
    assert -3000 < member.risk_centre < 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": {"kind": "rounds", "start": "newton"}}, "method.start: Newton steps are sums"),
        ({"method": {"weight": "events"}}, "method.weight: the number of events"),
        ({"method": {"keep": "best_validation"}}, r"method.keep: .* set privacy.metric_noise"),
        ({"bins": {"kind": "network"}}, "bins: edges from counts"),
        ({"covariates": [{"kind": "numeric", "column": "age"}]}, "covariates: age: means of patients"),
        ({"covariates": [{"kind": "block", "name": "b", "columns": ["gene0", "gene1"]}]}, "leave blocks out"),
        ({"features": FEATURES}, "features: standardising tiles"),
        ({"features": {**FEATURES, "scaling": "site"}, "model": {"tile_components": None}}, "features: standardising"),
        ({"train": {"loss": {"kind": "cox", "stratified": True}}}, "cox compares each patient"),
        ({"train": {"loss": {"kind": "discrete"}, "batch_patients": 16}}, "sample_rate decides"),
    ],
)  # fmt: skip
def test_plans_that_would_let_something_out_without_noise_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        private_plan(**changes)


def test_newton_plans_have_no_privacy() -> None:
    with pytest.raises(ValueError, match="method: Newton steps are sums over patients without noise"):
        plan_of(**{**GIVEN, "method": {"kind": "newton"}, "privacy": {"epsilon": 1.0}})


def test_numbers_of_a_plan_are_given_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mean and scale are given together"):
        private_plan(covariates=[{"kind": "numeric", "column": "age", "mean": 60}])
    plan = plan_of(
        covariates=[{"kind": "numeric", "column": "age", "mean": 50, "scale": 10}], method={"kind": "newton"}
    )
    fitted = simulate(plan, parts_of(plan), tmp_path).package.members[0].covariates.parts[0]
    assert (fitted.mean, fitted.scale, fitted.fill) == (50, 10, 50)


@pytest.mark.parametrize("private", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_site_looks_for_itself_at_what_the_model_tells(tmp_path: Path, private: bool) -> None:
    plan = private_plan(membership=True) if private else plan_of(membership=True)
    limits = LimitsSettings(reference_models=4)
    members = {name: site_at(tmp_path / name, plan, data, limits) for name, data in parts_of(plan).items()}
    recorder = Recorder(members)
    run_federation(plan, recorder, tmp_path / "out")
    answers = [one for _, content in recorder.left if (one := from_bytes(content)).kind == "membership"]
    assert len(answers) == 3
    assert not any(one.arrays or one.numbers or one.code for one in answers), "nothing of it leaves"
    for name, data in parts_of(plan).items():
        found = json.loads((tmp_path / name / "state" / plan.digest[:16] / "membership.json").read_text())
        assert len(found["attacks"]) == 2
        assert (
            f"({len(data.train)} patients trained on, {len(data.validation) + len(data.test)} not)"
            in found["sentences"][0]
        )
        assert set(found["most_exposed"]) <= set(data.train)
        assert len(found["most_exposed"]) == 10
    if private:
        rows = json.loads((tmp_path / "north" / "privacy.json").read_text())["releases"]
        assert [row["times"] for row in rows] == [24], "models that never leave cost nothing"
