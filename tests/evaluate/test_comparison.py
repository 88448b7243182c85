"""Runs side by side: paired on the same patients, whatever their folds."""

import numpy as np
import pytest

from pathoml.errors import InputError
from pathoml.evaluate.comparison import compare_runs
from pathoml.predictions import Predictions
from tests.test_evaluate import predictions

OPTIONS = {"bootstraps": 100, "seed": 0}
DAYS = (300.0, 600.0)


def run(noise: float, folds: int = 3, patients: int = 120) -> Predictions:
    return predictions(seed=5, folds=folds, patients=patients, noise=(noise,))


def test_a_run_beside_itself_differs_by_exactly_nothing() -> None:
    found = compare_runs({"a": run(0.5), "b": run(0.5)}, DAYS, **OPTIONS)["schemes"]["kfold"]
    assert found["same_folds"]
    for estimate in found["differences"][0]["measures"].values():
        assert (estimate["value"], estimate["low"], estimate["high"]) == (0, 0, 0)


def test_a_better_run_is_seen_to_be_better_and_the_difference_is_that_of_the_means() -> None:
    found = compare_runs({"poor": run(4.0), "good": run(0.3)}, DAYS, **OPTIONS)["schemes"]["kfold"]
    difference = found["differences"][0]
    assert (difference["run"], difference["minus"]) == ("good", "poor")
    assert difference["measures"]["concordance"]["low"] > 0
    values = [found["runs"][name]["concordance"]["value"] for name in ("good", "poor")]
    assert difference["measures"]["concordance"]["value"] == pytest.approx(values[0] - values[1], abs=1e-12)


def test_runs_with_other_folds_are_compared_on_the_same_draws() -> None:
    found = compare_runs({"a": run(0.5), "b": run(0.5, folds=4)}, DAYS, **OPTIONS)["schemes"]["kfold"]
    assert not found["same_folds"]
    estimate = found["differences"][0]["measures"]["concordance"]
    alone = found["runs"]["a"]["concordance"]
    assert estimate["high"] - estimate["low"] < 0.7 * (alone["high"] - alone["low"])  # paired


def test_only_patients_tested_in_every_run_are_judged_and_the_others_counted() -> None:
    large, small = run(0.5), run(0.5)
    gone = [f"p{number:03d}" for number in range(30)]
    keep = ~small.table["patient_id"].isin(gone).to_numpy()
    small = Predictions(small.table[keep].reset_index(drop=True), small.curve_days, small.survival[keep])
    tested = compare_runs({"a": large, "b": small}, DAYS, **OPTIONS)["schemes"]["kfold"]["tested"]
    assert tested["patients"] == 90
    assert tested["left_out"] == {"a": 30, "b": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "fixed"}, "no validation scheme in common"),
        ({"time_days": 77.0}, "run b: follow-up of some patients differs"),
        ({"patient_id": "x"}, "only 0 patients were tested in all runs"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_runs_that_cannot_be_compared_are_refused(change: dict, message: str) -> None:
    other = run(0.5)
    if "patient_id" in change:
        change = {"patient_id": "x" + other.table["patient_id"]}
    changed = Predictions(other.table.assign(**change), other.curve_days, other.survival)
    with pytest.raises(InputError, match=message):
        compare_runs({"a": run(0.5), "b": changed}, DAYS, **OPTIONS)
    assert np.isfinite(other.survival).all()
