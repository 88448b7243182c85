"""Calibration against brute force, and on predictions that are right or wrong by design."""

import numpy as np
import pytest

from pathoml.survival import censoring_survival, cox_survival, kaplan_meier
from pathoml.survival.calibration import (
    calibration_curve,
    calibration_groups,
    calibration_slope,
    complementary_log_log,
    d_calibration,
    observed_to_expected,
)
from pathoml.survival.curves import StepFunction
from pathoml.survival.decisions import net_benefit
from pathoml.survival.weights import inverse_censoring, inverse_probability

HORIZON = 1.0


def cohort(count: int = 600, seed: int = 0, censoring: float = 1.5):
    """Return follow-up and event of exponential times, the log hazards and the true probabilities at the horizon."""
    rng = np.random.default_rng(seed)
    log_hazard = rng.normal(0, 1, count)
    happens, leaves = rng.exponential(np.exp(-log_hazard)), rng.exponential(censoring, count)
    time, event = np.minimum(happens, leaves), (happens <= leaves).astype(np.int64)
    return time, event, log_hazard, 1 - np.exp(-HORIZON * np.exp(log_hazard))


def once(count: int) -> np.ndarray:
    return np.ones((1, count))


def test_groups_are_kaplan_meier_and_the_mean_prediction_of_each() -> None:
    time, event, _, predicted = cohort(200)
    counts = np.random.default_rng(0).integers(0, 3, (4, 200)).astype(float)
    found = calibration_groups(time, event, predicted, counts, horizon_days=HORIZON, groups=5)
    assert np.bincount(found.of_patient).tolist() == [40] * 5
    for group in range(5):
        members = np.flatnonzero(found.of_patient == group)
        below, above = predicted[members].min(), predicted[members].max()
        assert not ((predicted > below) & (predicted < above) & (found.of_patient != group)).any()
        for place, drawn in enumerate(counts):
            rows = np.repeat(members, drawn[members].astype(int))
            curve = kaplan_meier(time[rows], event[rows]).at(np.array([HORIZON]))[0]
            assert found.observed[place, group] == pytest.approx(1 - curve, abs=1e-12)
            assert found.predicted[place, group] == pytest.approx(predicted[rows].mean(), abs=1e-12)


def test_tied_predictions_give_fewer_groups_and_one_value_gives_one() -> None:
    time, event, _, predicted = cohort(100)
    for values, groups in ((np.where(predicted > 0.5, 0.6, 0.3), 2), (np.full(100, 0.4), 1)):
        found = calibration_groups(time, event, values, once(100), horizon_days=HORIZON, groups=10)
        assert found.observed.shape == (1, groups)


def test_right_predictions_are_calibrated_in_every_sense() -> None:
    time, event, log_hazard, predicted = cohort(20_000)
    ones = once(len(time))
    assert observed_to_expected(time, event, predicted, ones, horizon_days=HORIZON)[0] == pytest.approx(1, abs=0.03)
    assert calibration_slope(time, event, predicted, ones, horizon_days=HORIZON)[0] == pytest.approx(1, abs=0.04)
    curve = calibration_curve(time[:4000], event[:4000], predicted[:4000], once(4000), horizon_days=HORIZON)
    assert curve.mean_error < 0.02
    at_end = np.exp(-time * np.exp(log_hazard))
    assert d_calibration(at_end, event, ones).p_value > 0.01


def test_predictions_too_far_apart_have_a_slope_below_one_and_fail_every_check() -> None:
    time, event, log_hazard, _ = cohort(4000)
    ones, twice = once(4000), 2 * log_hazard
    predicted = 1 - np.exp(-HORIZON * np.exp(twice))
    assert calibration_slope(time, event, predicted, ones, horizon_days=HORIZON)[0] == pytest.approx(0.5, abs=0.05)
    curve = calibration_curve(time, event, predicted, ones, horizon_days=HORIZON)
    assert curve.mean_error > 0.08
    assert d_calibration(np.exp(-time * np.exp(twice)), event, ones).p_value < 1e-6


def test_in_the_large_is_a_ratio_of_brute_force() -> None:
    time, event, _, predicted = cohort(300)
    counts = np.random.default_rng(1).integers(0, 3, (3, 300)).astype(float)
    found = observed_to_expected(time, event, predicted, counts, horizon_days=HORIZON)
    for place, drawn in enumerate(counts):
        rows = np.repeat(np.arange(300), drawn.astype(int))
        observed = 1 - kaplan_meier(time[rows], event[rows]).at(np.array([HORIZON]))[0]
        assert found[place] == pytest.approx(observed / predicted[rows].mean(), abs=1e-12)


def test_the_smooth_curve_is_a_weighted_line_through_pseudo_observations() -> None:
    time, event = np.random.default_rng(0).exponential(1, 80), np.ones(80, dtype=np.int64)
    predicted = np.random.default_rng(1).uniform(0.1, 0.9, 80)
    found = calibration_curve(time, event, predicted, once(80), horizon_days=HORIZON, points=7)
    happened = (time <= HORIZON).astype(float)  # without censoring
    for point, value in zip(found.predicted, found.observed[0], strict=True):
        distance = np.abs(predicted - point)
        reach = np.quantile(distance, 0.75) * 1.0001
        weight = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
        line = np.polynomial.polynomial.polyfit(predicted - point, happened, 1, w=np.sqrt(weight))
        assert value == pytest.approx(np.clip(line[0], 0, 1), abs=1e-8)
    spread = np.abs(np.interp(predicted, found.predicted, found.observed[0]) - predicted)
    assert found.mean_error == pytest.approx(spread.mean(), abs=1e-12)


def brute_force_shares(survival: np.ndarray, event: np.ndarray, bins: int) -> np.ndarray:
    """Return counts of each bin; a censored patient's event lies evenly between 0 and the survival at censoring."""
    found = np.zeros(bins)
    for probability, happened in zip(survival, event, strict=True):
        for index in range(bins):
            low, high = index / bins, (index + 1) / bins
            if happened:
                found[index] += low <= probability < high or (index == bins - 1 and probability == 1)
            elif probability == 0:
                found[index] += index == 0
            else:
                found[index] += max(0.0, min(high, probability) - low) / probability
    return found


def test_d_calibration_equals_brute_force() -> None:
    rng = np.random.default_rng(3)
    survival, event = np.append(rng.uniform(0, 1, 200), [0.0, 1.0, 0.0, 1.0, 0.3]), rng.integers(0, 2, 205)
    counts = np.concatenate([once(205), rng.integers(0, 3, (3, 205)).astype(float)])
    found = d_calibration(survival, event, counts)
    for place, drawn in enumerate(counts):
        rows = np.repeat(np.arange(205), drawn.astype(int))
        expected = brute_force_shares(survival[rows], event[rows], 10)
        np.testing.assert_allclose(found.share[place], expected / len(rows), atol=1e-12)
    expected = brute_force_shares(survival, event, 10)
    assert found.statistic == pytest.approx(((expected - 20.5) ** 2 / 20.5).sum(), abs=1e-9)


def test_the_complementary_log_log_is_the_log_cumulative_hazard_and_finite_at_the_ends() -> None:
    np.testing.assert_allclose(complementary_log_log(1 - np.exp(-np.exp(np.array([-3.0, 0.5])))), [-3, 0.5])
    assert np.isfinite(complementary_log_log(np.array([0.0, 1.0]))).all()


def test_net_benefit_is_a_count_where_nobody_is_censored() -> None:
    rng = np.random.default_rng(0)
    predicted, happened = rng.uniform(0, 1, 90), rng.integers(0, 2, 90).astype(float)
    thresholds = np.array([0.1, 0.35, 0.8])
    found = net_benefit(predicted, happened, 1 - happened, once(90), thresholds=thresholds)
    for place, threshold in enumerate(thresholds):
        acted = predicted >= threshold
        right, vain = (acted & (happened == 1)).mean(), (acted & (happened == 0)).mean()
        odds = threshold / (1 - threshold)
        assert found.model[0, place] == pytest.approx(right - vain * odds, abs=1e-12)
        assert found.everybody[0, place] == pytest.approx(happened.mean() - (1 - happened.mean()) * odds, abs=1e-12)


def test_weighted_net_benefit_is_that_of_uncensored_follow_up_on_average() -> None:
    time, event, log_hazard, predicted = cohort(40_000)
    censoring = censoring_survival(time, event)
    case = np.where(time <= HORIZON, inverse_censoring(time, event, censoring), 0.0)
    control = np.where(time > HORIZON, inverse_probability(censoring.at(np.array([HORIZON])))[0], 0.0)
    found = net_benefit(predicted, case, control, once(len(time)), thresholds=np.array([0.5]))
    acted = predicted >= 0.5
    expected = (predicted * acted).mean() - ((1 - predicted) * acted).mean()
    assert found.model[0, 0] == pytest.approx(expected, abs=0.01)
    assert np.isfinite(log_hazard).all()


@pytest.mark.parametrize("log_hazard", [709.0, 800.0, 5000.0, -5000.0])
def test_no_log_hazard_gives_a_survival_that_is_no_number(log_hazard: float) -> None:
    steps = StepFunction(np.array([10.0, 20.0]), np.array([0.1, 0.4]), 0.0)
    found = cox_survival(steps, np.array([log_hazard, 0.0]), np.array([5.0, 10.0, 30.0]))
    assert found[0].tolist() == ([1.0, 0.0, 0.0] if log_hazard > 0 else [1.0, 1.0, 1.0])
    np.testing.assert_allclose(found[1], [1, np.exp(-0.1), np.exp(-0.4)])
