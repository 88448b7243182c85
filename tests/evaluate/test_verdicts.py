"""A model is called better only where patients and repetitions both show it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pathoml.errors import InputError
from pathoml.evaluate.fold_metrics import Samples, fold_samples, summarise
from pathoml.evaluate.scheme import build_scheme
from pathoml.evaluate.verdicts import corrected_interval
from pathoml.predictions import Predictions
from pathoml.survival import concordance


def predictions(
    quality: dict[str, float], *, patients: int = 120, repeats: int = 4, folds: int = 4, seed: int = 0
) -> Predictions:
    """Models whose risk is the true log hazard times a quality, and noise."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=patients)
    event_time, censoring = rng.exponential(np.exp(-hazard)), rng.exponential(3, patients)
    time, event = np.minimum(event_time, censoring), (event_time <= censoring).astype(int)
    parts = []
    for repeat in range(repeats):
        fold = rng.permutation(np.arange(patients) % folds)
        for model, good in quality.items():
            risk = good * hazard + rng.normal(size=patients)
            parts += [
                pd.DataFrame(
                    {
                        "model": model, "scheme": "kfold", "fold": f"{repeat}-{number}", "repeat": repeat,
                        "role": np.where(fold == number, "test", "train"), "site": "", "risk_group": "low",
                        "patient_id": [f"p{index}" for index in range(patients)],
                        "time_days": time, "event": event, "risk": risk,
                    }
                )
                for number in range(folds)
            ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    return Predictions(table, np.array([1.0, 2.0]), np.full((len(table), 2), 0.5))


def judged(known: Predictions, *, bootstraps: int = 1000) -> dict:
    """Return everything that is said of the first model and the others."""
    scheme = build_scheme(known, bootstraps=bootstraps, seed=0)
    samples: dict[str, Samples] = {model: fold_samples(scheme, model, ()) for model in scheme.models}
    return summarise(scheme, samples)


@pytest.mark.parametrize(("quality", "better"), [((3.0, 0.0), 1), ((0.0, 3.0), -1)])
def test_a_much_better_model_is_called_better_and_the_other_way_round_worse(quality, better: int) -> None:
    found = judged(predictions({"a": quality[0], "b": quality[1]}))
    assert found["verdicts"]["a - b"]["better"] == better


@pytest.mark.parametrize("scheme", ["kfold", "files", "fixed", "leave_one_site_out", "external"])
def test_one_dealing_is_never_enough(scheme: str) -> None:
    known = predictions({"good": 3.0, "poor": 0.0}, repeats=1)
    verdict = judged(Predictions(known.table.assign(scheme=scheme), known.curve_days, known.survival))["verdicts"]
    assert verdict["good - poor"] == {
        "better": 0, "by_interval": 1, "by_repeats": None, "repeats_low": None, "repeats_high": None
    }  # fmt: skip


def test_equal_models_are_not_called_different() -> None:
    found = [
        judged(predictions({"a": 1.0, "b": 1.0}, seed=seed), bootstraps=300)["verdicts"]["a - b"]["better"]
        for seed in range(20)
    ]
    assert found.count(0) >= 19


def test_patients_alone_are_not_enough_where_dealings_disagree() -> None:
    known = predictions({"a": 1.5, "b": 1.5}, patients=80, repeats=2, folds=2)
    table = known.table
    better = (table["model"] == "a") & (table["fold"] == "0-0")
    table.loc[better, "risk"] = -table.loc[better, "time_days"]
    worse = (table["model"] == "b") & (table["fold"] == "0-0")
    table.loc[worse, "risk"] = table.loc[worse, "time_days"]
    verdict = judged(known)["verdicts"]["a - b"]
    assert (verdict["better"], verdict["by_interval"], verdict["by_repeats"]) == (0, 1, 0)
    assert verdict["repeats_low"] < 0 < verdict["repeats_high"]


def test_the_difference_is_that_of_concordances_within_folds() -> None:
    known = predictions({"a": 1.0, "b": 0.3})
    table = known.table[known.table["role"] == "test"]
    means = {
        model: np.mean(
            [
                concordance(*(one[name].to_numpy() for name in ("time_days", "event", "risk")))
                for _, one in rows.groupby("fold")
            ]
        )
        for model, rows in table.groupby("model")
    }
    found = judged(known, bootstraps=100)["differences"]["a - b"]["concordance"]["value"]
    assert found == pytest.approx(means["a"] - means["b"])


def test_more_repeats_of_the_same_dealing_do_not_make_a_difference_significant() -> None:
    rng = np.random.default_rng(0)
    folds = rng.normal(0.01, 0.04, 5)
    once, often = (corrected_interval(np.tile(folds, times), 0.25) for times in (1, 100))
    assert once[0] < 0 < once[1]
    assert often[0] < 0 < often[1]


def test_without_the_correction_the_interval_is_students() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.05, 12)
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert corrected_interval(values, 0.0) == pytest.approx(expected)


def test_every_other_model_gets_its_verdict() -> None:
    found = judged(predictions({"model": 2.0, "clinical": 0.5, "forest": 0.0}), bootstraps=200)
    assert list(found["verdicts"]) == ["model - clinical", "model - forest"]


def test_models_tested_on_different_patients_are_not_compared() -> None:
    known = predictions({"a": 1.0, "b": 1.0})
    odd = known.table[(known.table["model"] == "b") & (known.table["role"] == "test")].index[0]
    kept = known.table.index != odd
    with pytest.raises(InputError, match="the models are tested on different patients"):
        judged(Predictions(known.table[kept].reset_index(drop=True), known.curve_days, known.survival[kept]))


def test_folds_in_which_no_order_is_known_show_nothing() -> None:
    known = predictions({"a": 1.0, "b": 1.0})
    known.table["event"] = 0
    verdict = judged(known, bootstraps=50)["verdicts"]["a - b"]
    assert (verdict["better"], verdict["by_interval"]) == (None, None)
