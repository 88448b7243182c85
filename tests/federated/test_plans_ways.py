"""What a plan can fix instead of leaving it to the network: fills, levels, who judges, how long an update may be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathoml.covariates import FittedCategorical, FittedNumeric
from pathoml.federated.clipping import change_norm
from pathoml.federated.coordinator import run_federation
from pathoml.federated.guard import models_of
from pathoml.federated.judging import calibrated, calibration_sums, member_of, spread_out
from pathoml.federated.messages import from_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.simulate import pool, simulate
from pathoml.federated.site import Site
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import LimitsSettings
from pathoml.federated.site_sums import merged_counts, merged_exposure
from pathoml.mil.objectives import CoxObjective
from tests.federated.networks import Recorder, parts_of, plan_of
from tests.federated.test_training import setup_in

PUBLIC = LimitsSettings(public_benchmark=True)


def recorded(folder: Path, plan: Plan, parts: dict[str, SiteData], limits: LimitsSettings = PUBLIC) -> Recorder:
    return Recorder(
        {name: Site(folder / name, lambda _: plan, lambda _, d=data: d, limits) for name, data in parts.items()}
    )  # type: ignore[misc]


def test_a_plan_says_what_a_missing_value_counts_as_and_which_words_there_are(tmp_path: Path) -> None:
    covariates = [
        {"kind": "numeric", "column": "age", "fill": 50.0},
        {"kind": "categorical", "column": "sex", "words": ["female", "male", "divers"], "levels": "plan"},
    ]
    plan = plan_of(covariates=covariates, method={"kind": "newton"})
    parts = parts_of(plan)
    recorder = recorded(tmp_path, plan, dict(parts))
    run_federation(plan, recorder, tmp_path / "coordinator")
    age, sex = setup_in(tmp_path, plan).transform.parts
    assert isinstance(age, FittedNumeric)
    assert isinstance(sex, FittedCategorical)
    assert age.fill == 50.0
    assert age.mean == pytest.approx(
        pool(parts).cohort.covariates["age"].iloc[pool(parts).cohort.rows_of(pool(parts).train)].mean()
    )
    assert (sex.levels, sex.fill) == (("", "divers", "female", "male"), "")
    told = {name for _, content in recorder.left for name in from_bytes(content).arrays}
    assert not {name for name in told if name.startswith("words")}, "no site is asked how many patients have which word"


def test_a_column_that_few_patients_of_a_site_have_is_nobodys_there(tmp_path: Path) -> None:
    """Else the sum over the one patient who has a value would be that value."""
    plan = plan_of(method={"kind": "newton"})
    parts = parts_of(plan)
    west = parts["west"]
    known = west.cohort.rows_of(west.train)[:3]
    table = west.cohort.covariates.copy()
    lone = table["age"].copy()
    lone[:] = np.nan
    lone.iloc[known] = [41.0, 43.0, 47.0]
    table["age"] = lone
    table["gene1"] = lone
    parts = {**parts, "west": replace(west, cohort=replace(west.cohort, covariates=table))}
    recorder = recorded(tmp_path, plan, dict(parts), LimitsSettings())
    run_federation(plan, recorder, tmp_path / "out")
    told = {from_bytes(content).kind: from_bytes(content) for name, content in recorder.left if name == "west"}
    names = ["age", *[f"gene{number}" for number in range(8)]]
    for column in (names.index("age"), names.index("gene1")):
        assert told["values"].arrays["numbers.count"][column] == 0
        assert told["values"].arrays["numbers.sum"][column] == 0
        assert told["squares"].arrays["numbers.square"][column] == 0
    assert not told["products"].arrays["products.0"][1].any()
    assert told["values"].arrays["numbers.count"][names.index("gene0")] == len(west.train)


def test_rounds_are_judged_by_the_sites_that_the_plan_names(tmp_path: Path) -> None:
    method = {"kind": "rounds", "rounds": 2, "keep": "best_validation", "judges": ["west"]}
    plan = plan_of(method=method, minimum_patients=1, minimum_events=1)
    recorder = recorded(tmp_path, plan, dict(parts_of(plan)))
    result = run_federation(plan, recorder, tmp_path / "out")
    west = [from_bytes(content) for name, content in recorder.left if name == "west"]
    told = [one.numbers["validation_loss"] for one in west if one.kind == "train"]
    assert [row["validation_loss"] for row in result.history] == pytest.approx(told)
    with pytest.raises(ValueError, match="elsewhere is no site of the plan"):
        plan_of(method={**method, "judges": ["elsewhere"]})


def test_an_update_is_shortened_at_the_site_before_it_leaves(tmp_path: Path) -> None:
    def sent(limit: float | None) -> list[float]:
        method = {"kind": "rounds", "rounds": 2, "local_epochs": 5, "longest_update": limit}
        plan = plan_of(method=method, quorum=3)
        recorder = recorded(tmp_path / str(limit), plan, dict(parts_of(plan)))
        run_federation(plan, recorder, tmp_path / str(limit) / "out")
        answers = [from_bytes(content) for _, content in recorder.left if from_bytes(content).kind == "train"]
        asked = {number: models_of(from_bytes(recorder.asked("train", number)).arrays) for number in (0, 1)}
        return [change_norm(asked[one.round_number], models_of(one.arrays)) for one in answers]

    free, short, loose = sent(None), sent(0.05), sent(99.0)
    assert min(free) > 0.1
    assert max(short) == pytest.approx(0.05, rel=1e-5)
    assert loose == free
    with pytest.raises(ValueError, match="longer than update_norm"):
        plan_of(method={"kind": "rounds", "longest_update": 101.0})


@pytest.mark.parametrize("seed", range(5))
def test_time_at_risk_is_told_of_the_cells_that_are_told_together_and_of_no_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid, lengths = np.arange(1, 11) * 300.0, np.full(10, 300.0)
    told = merged_counts(rng.exponential(700, size=60), grid, 10)
    exposure = np.sort(rng.exponential(5000, size=10))[::-1]
    joined = merged_exposure(told, exposure)
    assert joined.sum() == pytest.approx(exposure.sum())
    np.testing.assert_array_equal(joined > 0, told > 0)
    for values in (told, joined):
        assert spread_out(told, values, lengths).sum() == pytest.approx(values.sum())
    assert not merged_exposure(np.zeros(10, dtype=np.int64), exposure).any()
    assert not spread_out(np.zeros(10, dtype=np.int64), np.zeros(10), lengths).any()


def test_no_time_at_risk_leaves_for_a_model_that_needs_none_and_coxs_baseline_is_near_breslows(tmp_path: Path) -> None:
    for loss, needs in (({"kind": "discrete"}, False), ({"kind": "cox", "stratified": True}, True)):
        plan = plan_of(train={"loss": loss, "covariate_ridge": 5.0}, method={"kind": "newton"})
        parts = parts_of(plan)
        result = simulate(plan, parts, tmp_path / loss["kind"], limits=PUBLIC)  # type: ignore[arg-type]
        member = result.package.members[0]
        setup = setup_in(tmp_path / str(loss["kind"]), plan)
        weights = {name: one.numpy() for name, one in member.model.state_dict().items()}
        sums = [
            calibration_sums(member_of(plan, setup, weights), data, plan, 10, data.train) for data in parts.values()
        ]
        assert bool(sum(one["hazard.exposure"].sum() for one, _ in sums)) == needs
        if not needs:
            continue
        coarse = calibrated(member_of(plan, setup, weights), plan, [one for one, _ in sums], [two for _, two in sums])
        exact = [
            calibration_sums(member_of(plan, setup, weights), data, plan, 1, data.train) for data in parts.values()
        ]
        fine = calibrated(member_of(plan, setup, weights), plan, [one for one, _ in exact], [two for _, two in exact])
        assert isinstance(coarse.objective, CoxObjective)
        assert isinstance(fine.objective, CoxObjective)
        assert coarse.objective.hazard is not None
        assert fine.objective.hazard is not None
        middle = len(plan.grid) // 2
        assert coarse.objective.hazard.values[middle] == pytest.approx(fine.objective.hazard.values[middle], rel=0.25)
