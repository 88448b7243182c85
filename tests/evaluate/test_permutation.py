"""Models fitted again on shuffled outcomes: the same as one by one, and uniform where there is nothing to find."""

import numpy as np
import pytest
from scipy.stats import kstest

from pathoml.evaluate.permutation import LinearFold, permutation_p_value, permute_fits, permute_linear, shuffles
from pathoml.survival import concordance, log_rank
from pathoml.survival.baselines import fit_cox
from tests.counts import NULL_COHORTS


def cohort(patients: int, seed: int, effect: float = 0.0):
    rng = np.random.default_rng([seed, 4])
    design = rng.normal(size=(patients, 3))
    happens = rng.exponential(500 * np.exp(-effect * design[:, 0]))
    leaves = rng.uniform(100, 1500, patients)
    place = rng.permutation(patients) % 4
    folds = [LinearFold(design, np.flatnonzero(place != one), np.flatnonzero(place == one)) for one in range(4)]
    return folds, np.minimum(happens, leaves), (happens <= leaves).astype(np.int64)


def one_by_one(folds, time, event, ridge: float) -> tuple[float, float]:
    values, high = [], np.zeros(len(time), dtype=np.int64)
    for fold in folds:
        model = fit_cox(fold.design[fold.fitted_on], time[fold.fitted_on], event[fold.fitted_on], ridge=ridge)
        risk = model.log_hazard(fold.design)
        high[fold.tested] = risk[fold.tested] > np.median(risk[fold.fitted_on])
        values.append(concordance(time[fold.tested], event[fold.tested], risk[fold.tested]))
    tested = np.sort(np.concatenate([fold.tested for fold in folds]))
    return float(np.mean(values)), log_rank(time[tested], event[tested], high[tested])[0]


@pytest.mark.parametrize("tested_folds", [4, 3])
def test_every_shuffle_is_fitted_and_judged_as_the_baseline_would_be(tested_folds: int) -> None:
    folds, time, event = cohort(80, 0, effect=0.7)
    folds = folds[:tested_folds]
    order = shuffles(80, 6, seed=3)
    found = permute_linear(folds, time, event, order=order, ridge=5.0)
    for draw, given in enumerate(order):
        expected = one_by_one(folds, time[given], event[given], 5.0)
        assert found.concordance[draw] == pytest.approx(expected[0], abs=1e-9)
        assert found.log_rank[draw] == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize("tested_folds", [4, 3])
def test_fits_made_one_after_the_other_give_what_fits_of_all_at_once_give(tested_folds: int) -> None:
    folds, time, event = cohort(80, 0, effect=0.7)
    folds, order = folds[:tested_folds], shuffles(80, 6, seed=3)
    at_once = permute_linear(folds, time, event, order=order, ridge=5.0)
    fits = [(fold, lambda *known: fit_cox(*known, ridge=5.0).coefficients) for fold in folds]
    found = permute_fits(fits, time, event, order=order)
    np.testing.assert_allclose(found.concordance, at_once.concordance, atol=1e-9)
    np.testing.assert_allclose(found.log_rank, at_once.log_rank, atol=1e-6)


def test_a_signal_has_the_smallest_p_value_that_the_shuffles_allow() -> None:
    folds, time, event = cohort(160, 1, effect=1.0)
    found = permute_linear(folds, time, event, order=shuffles(160, 99, seed=0), ridge=1.0).to_json()
    assert found["p_value"] == found["log_rank_p_value"] == 0.01
    assert found["concordance"]["null_high"] < found["concordance"]["observed"]
    assert "fitted again" in found["condition"]


def test_a_p_value_counts_ties_and_undefined_shuffles_against_the_model() -> None:
    assert permutation_p_value(np.array([0.6, 0.5, 0.6, np.nan])) == pytest.approx(3 / 4)
    assert permutation_p_value(np.array([np.nan, 0.5])) is None
    assert permutation_p_value(np.array([0.6])) is None


def test_the_first_row_is_everybodys_own_outcome_and_each_row_gives_out_every_outcome_once() -> None:
    order = shuffles(30, 5, seed=0)
    assert order[0].tolist() == list(range(30))
    assert (np.sort(order, axis=1) == np.arange(30)).all()
    assert len({tuple(row) for row in order}) == 6


@pytest.mark.slow
def test_refitted_p_values_are_uniform_over_null_cohorts() -> None:
    p_values = []
    for seed in range(NULL_COHORTS):
        folds, time, event = cohort(80, seed)
        found = permute_linear(folds, time, event, order=shuffles(80, 99, seed=seed), ridge=1.0)
        p_values.append([permutation_p_value(found.concordance), permutation_p_value(found.log_rank)])
    spread = np.random.default_rng(0).uniform(-0.01, 0, (NULL_COHORTS, 2))  # p-values are multiples of 1/100
    for values in (np.array(p_values) + spread).T:
        assert kstest(values, "uniform").pvalue > 0.01
