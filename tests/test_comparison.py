"""A model is called better only where patients and dealings both show it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pathoml.comparison import compare_models, corrected_interval, judge_all
from pathoml.errors import InputError
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
                        "role": np.where(fold == number, "test", "train"),
                        "patient_id": [f"p{index}" for index in range(patients)],
                        "time_days": time, "event": event, "risk": risk,
                    }
                )
                for number in range(folds)
            ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    return Predictions(table, np.zeros(0), np.zeros((len(table), 0)))


def test_a_much_better_model_is_called_better_and_the_other_way_round_worse() -> None:
    known = predictions({"good": 3.0, "poor": 0.0})
    assert compare_models(known, "good", "poor").finding == "better"
    assert compare_models(known, "poor", "good").finding == "worse"


def test_one_dealing_is_never_enough() -> None:
    verdict = compare_models(predictions({"good": 3.0, "poor": 0.0}, repeats=1), "good", "poor")
    assert verdict.finding == "not shown"
    assert verdict.patients_interval is not None
    assert verdict.patients_interval[0] > 0
    assert verdict.dealings_interval is None
    assert "set repeats: 5" in verdict.reasons[-1]


def test_equal_models_are_not_called_different() -> None:
    found = [
        compare_models(predictions({"a": 1.0, "b": 1.0}, seed=seed), "a", "b", bootstraps=300).finding
        for seed in range(20)
    ]
    assert found.count("not shown") >= 19


def test_patients_alone_are_not_enough_where_dealings_disagree() -> None:
    known = predictions({"a": 1.5, "b": 1.5}, patients=80, repeats=2, folds=2)
    table = known.table
    better = (table["model"] == "a") & (table["fold"] == "0-0")
    table.loc[better, "risk"] = -table.loc[better, "time_days"]
    worse = (table["model"] == "b") & (table["fold"] == "0-0")
    table.loc[worse, "risk"] = table.loc[worse, "time_days"]
    verdict = compare_models(known, "a", "b")
    assert verdict.patients_interval is not None
    assert verdict.patients_interval[0] > 0
    assert verdict.dealings_interval is not None
    assert verdict.dealings_interval[0] < 0
    assert verdict.finding == "not shown"
    assert "Both intervals have to exclude 0" in verdict.reasons[-1]


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
    assert compare_models(known, "a", "b").difference == pytest.approx(means["a"] - means["b"])


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


def test_every_other_model_gets_its_verdict_in_plain_values() -> None:
    verdicts = judge_all(predictions({"model": 2.0, "clinical": 0.5, "forest": 0.0}), "model", bootstraps=200)
    assert list(verdicts) == ["clinical", "forest"]
    plain = verdicts["forest"].to_json()
    assert set(plain) == {"finding", "difference", "patients_interval", "dealings_interval", "reasons"}
    assert "refitting" in plain["reasons"][1]


def test_models_tested_on_different_patients_are_not_compared() -> None:
    known = predictions({"a": 1.0, "b": 1.0})
    odd = known.table[(known.table["model"] == "b") & (known.table["role"] == "test")].index[0]
    table = known.table.drop(index=odd).reset_index(drop=True)
    with pytest.raises(InputError, match="a and b are tested on different patients"):
        compare_models(Predictions(table, np.zeros(0), np.zeros((len(table), 0))), "a", "b")


def test_a_competing_event_counts_as_censored() -> None:
    known = predictions({"a": 1.0, "b": 0.3})
    plain = compare_models(known, "a", "b", bootstraps=50)
    known.table["event"] = known.table["event"].where(known.table["event"] == 1, 2)
    assert compare_models(known, "a", "b", bootstraps=50).difference == plain.difference


def test_two_schemes_at_once_are_refused() -> None:
    known = predictions({"a": 1.0, "b": 1.0})
    known.table.loc[:50, "scheme"] = "fixed"
    with pytest.raises(InputError, match="compared within one scheme"):
        compare_models(known, "a", "b")


def test_folds_in_which_no_order_is_known_show_nothing() -> None:
    known = predictions({"a": 1.0, "b": 1.0})
    known.table["event"] = 0
    verdict = compare_models(known, "a", "b")
    assert (verdict.finding, verdict.difference) == ("not shown", None)
