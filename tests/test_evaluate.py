"""Metrics within folds, intervals over test patients, differences on the same draws."""

import json

import numpy as np
import pandas as pd
import pytest
from lifelines.statistics import logrank_test
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from pathoml.errors import InputError
from pathoml.evaluate import EvaluateSettings, evaluate, fold_mean_concordance
from pathoml.predictions import Predictions
from pathoml.survival.metrics import restricted_days

SETTINGS = EvaluateSettings(bootstraps=200, horizons_days=(300.0, 600.0))
DAYS = np.linspace(50, 900, 18)


def predictions(
    seed: int = 0, folds: int = 3, patients: int = 120, noise: tuple[float, ...] = (0.5, 2.0)
) -> Predictions:
    """Return test and training rows of models whose risk is the truth with noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=patients)
    event_time, censoring = rng.exponential(600 * np.exp(-truth)).round(), rng.uniform(200, 2500, patients).round()
    time, event = np.minimum(event_time, censoring), (event_time <= censoring).astype(np.int64)
    names, rows, curves = np.array([f"p{i:03d}" for i in range(patients)]), [], []
    for model, amount in zip(("model", "clinical"), noise, strict=False):
        risk = truth + rng.normal(0, amount, patients)
        for fold in range(folds):
            tested = np.arange(patients) % folds == fold
            role = np.where(tested, "test", np.where(np.arange(patients) % 5 == 0, "validation", "train"))
            cutoff = np.median(risk[~tested])
            # Risks of folds are not comparable: shift and stretch them so that pooling would be wrong.
            scaled = risk * (1 + fold) + 7 * fold
            table = pd.DataFrame({"role": role, "patient_id": names, "time_days": time, "event": event, "risk": scaled})
            group = np.where(risk > cutoff, "high", "low")
            rows.append(
                table.assign(
                    model=model,
                    scheme="kfold",
                    fold=str(fold),
                    site="",
                    endpoint="os",
                    repeat=0,
                    seed=0,
                    risk_group=group,
                )
            )
            curves.append(np.exp(-DAYS[None, :] / 800 * np.exp(risk)[:, None]))
    return Predictions(pd.concat(rows, ignore_index=True), DAYS, np.concatenate(curves))


def scheme(given: Predictions, settings: EvaluateSettings = SETTINGS) -> dict:
    return evaluate(given, settings)["schemes"]["kfold"]


def by_fold(given: Predictions, model: str):
    for fold in ("0", "1", "2"):
        part = given.select(model=model, fold=fold)
        test = part.select(role="test")
        seen = part.table[part.table["role"] != "test"]
        outcome = [Surv.from_arrays(table["event"] == 1, table["time_days"]) for table in (seen, test.table)]
        yield seen, test, outcome


@pytest.mark.parametrize("model", ["model", "clinical"])
def test_concordance_is_scikit_survivals_of_each_fold_averaged(model: str) -> None:
    given = predictions()
    values = [
        concordance_index_censored(outcome[1]["event"], outcome[1]["time"], test.table["risk"])[0]
        for _, test, outcome in by_fold(given, model)
    ]
    found = scheme(given)
    assert found["metrics"][model]["concordance"]["value"] == pytest.approx(np.mean(values), abs=1e-12)
    np.testing.assert_allclose([fold["concordance"][model] for fold in found["folds"]], values, atol=1e-12)
    table = given.select(model=model, role="test").table
    columns = (table[name].to_numpy() for name in ("time_days", "event", "risk"))
    assert fold_mean_concordance(*columns, table["fold"].tolist()) == pytest.approx(np.mean(values), abs=1e-12)


def test_the_other_metrics_are_scikit_survivals_of_each_fold_averaged() -> None:
    given = predictions()
    expected: dict[str, list[float]] = {"concordance_ipcw": [], "auc_300d": [], "auc_600d": [], "integrated_brier": []}
    for seen, test, outcome in by_fold(given, "model"):
        end = restricted_days(seen["time_days"].to_numpy(), seen["event"].to_numpy())
        risk, within = test.table["risk"].to_numpy(), end >= DAYS
        expected["concordance_ipcw"].append(concordance_index_ipcw(*outcome, risk, tau=end)[0])
        for day in (300, 600):
            expected[f"auc_{day}d"].append(cumulative_dynamic_auc(*outcome, risk, [day])[0][0])
        expected["integrated_brier"].append(integrated_brier_score(*outcome, test.survival[:, within], DAYS[within]))
    found = scheme(given)["metrics"]["model"]
    for name, values in expected.items():
        assert found[name]["value"] == pytest.approx(np.mean(values), abs=1e-9), name
        assert found[name]["folds"] == 3


def test_intervals_contain_their_estimates_and_json_can_hold_them() -> None:
    found = scheme(predictions())
    json.dumps(found, allow_nan=False)
    for values in (*found["metrics"].values(), *found["differences"].values()):
        for name, estimate in values.items():
            assert estimate["low"] <= estimate["value"] <= estimate["high"], name


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    given = predictions()
    other = SETTINGS.model_copy(update={"seed": 1})
    assert scheme(given) == scheme(given)
    first, second = (scheme(given, one)["metrics"]["model"]["concordance"] for one in (SETTINGS, other))
    assert first["value"] == second["value"]
    assert first["low"] != second["low"]


def test_differences_are_the_model_minus_the_clinical_one_and_paired() -> None:
    given = predictions()
    found = scheme(given)
    for name, estimate in found["differences"]["model - clinical"].items():
        values = [found["metrics"][model][name]["value"] for model in ("model", "clinical")]
        assert estimate["value"] == pytest.approx(values[0] - values[1], abs=1e-12)
    assert found["differences"]["model - clinical"]["concordance"]["low"] > 0
    assert found["differences"]["model - clinical"]["integrated_brier"]["high"] < 0


def test_a_model_compared_with_itself_differs_by_exactly_nothing() -> None:
    given = predictions(noise=(0.5,))
    copy = Predictions(given.table.assign(model="clinical"), DAYS, given.survival)
    both = Predictions(
        pd.concat([given.table, copy.table], ignore_index=True), DAYS, np.concatenate([given.survival] * 2)
    )
    for estimate in scheme(both)["differences"]["model - clinical"].values():
        assert (estimate["value"], estimate["low"], estimate["high"]) == (0, 0, 0)


def test_only_the_order_of_risks_within_a_fold_matters() -> None:
    given = predictions()
    moved = Predictions(given.table.assign(risk=np.tanh(given.table["risk"] / 9) - 3), DAYS, given.survival)
    first, second = scheme(given)["metrics"]["model"], scheme(moved)["metrics"]["model"]
    for name in ("concordance", "concordance_ipcw", "auc_300d"):
        assert first[name] == pytest.approx(second[name], abs=1e-12)


def test_a_fold_without_comparable_pairs_is_left_out_and_counted() -> None:
    given = predictions()
    table = given.table.copy()
    table.loc[(table["fold"] == "1") & (table["role"] == "test"), "event"] = 0
    found = scheme(Predictions(table, DAYS, given.survival))
    estimate, folds = found["metrics"]["model"]["concordance"], found["folds"]
    assert estimate["folds"] == 2
    assert folds[1]["concordance"]["model"] is None
    assert estimate["value"] == pytest.approx(np.mean([folds[i]["concordance"]["model"] for i in (0, 2)]), abs=1e-12)


def test_a_horizon_after_all_follow_up_is_undefined_and_not_an_error() -> None:
    found = scheme(predictions(), SETTINGS.model_copy(update={"horizons_days": (1e6,)}))["metrics"]["model"]
    assert found["auc_1000000d"] == {"value": None, "low": None, "high": None, "folds": 0}


def test_horizons_are_quartiles_of_the_event_times_if_none_are_given() -> None:
    given = predictions()
    patients = given.table.drop_duplicates("patient_id")
    expected = np.quantile(patients[patients["event"] == 1]["time_days"], [0.25, 0.5, 0.75]).round()
    assert evaluate(given, EvaluateSettings(bootstraps=100))["horizons_days"] == expected.tolist()


def test_risk_groups_are_those_of_the_training_cut_off_with_lifelines_log_rank() -> None:
    given = predictions()
    test = given.select(model="model", role="test").table
    high, found = test["risk_group"] == "high", scheme(given)["groups"]["model"]
    reference = logrank_test(
        test["time_days"][high], test["time_days"][~high], test["event"][high], test["event"][~high]
    )
    assert found["log_rank"] == pytest.approx(reference.test_statistic, rel=1e-9)
    assert (
        found["p_value"] is found["permutation_p_value"] is None
    )  # models have seen outcomes of the other folds' patients
    assert found["curves"]["high"]["patients"] == high.sum()
    assert found["curves"]["low"]["events"] == test["event"][~high].sum()


def test_numbers_at_risk_are_those_still_followed_at_each_year() -> None:
    given = predictions()
    groups, test = scheme(given)["groups"]["model"], given.select(model="model", role="test").table
    assert groups["at_risk_days"][:3] == [0, 365.25, 730.5]
    for name in ("low", "high"):
        time = test["time_days"][test["risk_group"] == name]
        assert groups["curves"][name]["at_risk"] == [(time >= day).sum() for day in groups["at_risk_days"]]


def test_predictions_without_test_patients_are_refused() -> None:
    given = predictions()
    with pytest.raises(InputError, match="no test patients"):
        evaluate(given.select(role="train"), SETTINGS)


def test_the_order_of_rows_does_not_matter() -> None:
    given = predictions()
    order = np.random.default_rng(0).permutation(len(given.table))
    models = given.table["model"].to_numpy()[order]
    order = np.concatenate([order[models == name] for name in ("model", "clinical")])
    moved = Predictions(given.table.iloc[order].reset_index(drop=True), DAYS, given.survival[order])
    for model in ("model", "clinical"):
        first, second = (scheme(one)["metrics"][model]["concordance"]["value"] for one in (given, moved))
        assert first == pytest.approx(second, abs=1e-12)


@pytest.mark.parametrize("days", [(5000.0, 6000.0), (100.0, 6000.0)])
def test_a_curve_grid_beyond_follow_up_leaves_the_brier_score_undefined(days: tuple[float, ...]) -> None:
    given = predictions()
    far = Predictions(given.table, np.array(days), given.survival[:, :2])
    with np.errstate(invalid="warn", divide="warn"):  # whatever another test's library left switched off
        found = scheme(far)
    assert found["metrics"]["model"]["integrated_brier"]["value"] is None


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    large = predictions(999, folds=2, patients=2400, noise=(0.5,)).select(role="test").table
    columns = (large[name].to_numpy() for name in ("time_days", "event", "risk"))
    truth = fold_mean_concordance(*columns, large["fold"].tolist())
    covered = []
    for seed in range(100):
        given = predictions(seed, folds=2, patients=160, noise=(0.5,))
        one = given.select(fold="0")
        estimate = scheme(one, EvaluateSettings(bootstraps=200))["metrics"]["model"]["concordance"]
        covered.append(estimate["low"] <= truth <= estimate["high"])
    assert 0.85 <= np.mean(covered) <= 1.0
