"""Curves and tests against scikit-survival and lifelines on real data."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from scipy.stats import chi2
from sksurv.compare import compare_survival
from sksurv.linear_model.coxph import BreslowEstimator
from sksurv.nonparametric import CensoringDistributionEstimator, kaplan_meier_estimator
from sksurv.util import Surv

from pathoml.survival import (
    StepFunction,
    breslow_hazard,
    censoring_survival,
    cox_survival,
    kaplan_meier,
    log_rank,
)
from pathoml.survival.baselines import fit_cox

TOLERANCE = {"rtol": 0, "atol": 1e-9}


def test_a_step_function_is_continuous_from_the_right() -> None:
    steps = StepFunction(np.array([1.0, 2.0]), np.array([0.5, 0.2]), 1.0)
    assert steps.at(np.array([0.0, 1.0, 1.5, 2.0, 9.0])).tolist() == [1.0, 0.5, 0.5, 0.2, 0.2]
    assert steps.just_before(np.array([0.0, 1.0, 1.5, 2.0, 9.0])).tolist() == [1.0, 1.0, 0.5, 0.5, 0.2]


def test_kaplan_meier_equals_scikit_survival_and_lifelines(everyone) -> None:
    curve = kaplan_meier(everyone.time, everyone.event)
    days, values = kaplan_meier_estimator(everyone.event.astype(bool), everyone.time)
    np.testing.assert_allclose(curve.days, days, **TOLERANCE)
    np.testing.assert_allclose(curve.values, values, **TOLERANCE)
    grid = np.linspace(0, everyone.time.max(), 50)
    fitted = KaplanMeierFitter().fit(everyone.time, everyone.event)
    np.testing.assert_allclose(curve.at(grid), fitted.survival_function_at_times(grid), **TOLERANCE)


def test_the_censoring_curve_equals_scikit_survivals_with_ties(everyone) -> None:
    outcome = Surv.from_arrays(everyone.event.astype(bool), everyone.time)
    reference = CensoringDistributionEstimator().fit(outcome)
    curve = censoring_survival(everyone.time, everyone.event)
    np.testing.assert_allclose(curve.at(everyone.time), reference.predict_proba(everyone.time), **TOLERANCE)


def test_without_censoring_nobody_is_reweighted() -> None:
    curve = censoring_survival(np.array([1.0, 2.0, 2.0]), np.ones(3, dtype=np.int64))
    assert curve.values.tolist() == [1.0, 1.0]


def test_the_baseline_hazard_equals_scikit_survivals(everyone) -> None:
    log_hazard = fit_cox(everyone.design, everyone.time, everyone.event).log_hazard(everyone.design)
    reference = BreslowEstimator().fit(log_hazard, everyone.event.astype(bool), everyone.time)
    curve = breslow_hazard(everyone.time, everyone.event, log_hazard)
    np.testing.assert_allclose(curve.at(everyone.time), reference.cum_baseline_hazard_(everyone.time), **TOLERANCE)


def test_survival_curves_equal_scikit_survivals(everyone) -> None:
    log_hazard = fit_cox(everyone.design, everyone.time, everyone.event).log_hazard(everyone.design)
    reference = BreslowEstimator().fit(log_hazard, everyone.event.astype(bool), everyone.time)
    grid = np.linspace(everyone.time.min(), everyone.time.max(), 20)
    expected = np.array([function(grid) for function in reference.get_survival_function(log_hazard[:30])])
    found = cox_survival(breslow_hazard(everyone.time, everyone.event, log_hazard), log_hazard[:30], grid)
    np.testing.assert_allclose(found, expected, **TOLERANCE)


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_a_shift_of_all_log_hazards_does_not_change_the_survival_curves(everyone, shift: float) -> None:
    log_hazard = everyone.design[:, 0]
    grid = np.linspace(0, everyone.time.max(), 20)
    plain = cox_survival(breslow_hazard(everyone.time, everyone.event, log_hazard), log_hazard, grid)
    moved = log_hazard + shift
    shifted = cox_survival(breslow_hazard(everyone.time, everyone.event, moved), moved, grid)
    np.testing.assert_allclose(shifted, plain, rtol=1e-9)


def test_the_log_rank_test_equals_lifelines_and_scikit_survival(everyone) -> None:
    group = (everyone.design[:, 1] > np.median(everyone.design[:, 1])).astype(np.int64)
    high = group == 1
    statistic, p_value = log_rank(everyone.time, everyone.event, group)
    reference = logrank_test(everyone.time[high], everyone.time[~high], everyone.event[high], everyone.event[~high])
    np.testing.assert_allclose([statistic, p_value], [reference.test_statistic, reference.p_value], rtol=1e-9)
    outcome = Surv.from_arrays(everyone.event.astype(bool), everyone.time)
    np.testing.assert_allclose(statistic, compare_survival(outcome, group)[0], rtol=1e-9)


def test_the_log_rank_test_does_not_care_which_group_is_called_one(everyone) -> None:
    group = (everyone.design[:, 0] > 0).astype(np.int64)
    np.testing.assert_allclose(
        log_rank(everyone.time, everyone.event, group), log_rank(everyone.time, everyone.event, 1 - group), rtol=1e-10
    )


def test_one_group_alone_gives_p_1() -> None:
    assert log_rank(np.arange(5.0), np.ones(5, dtype=np.int64), np.zeros(5, dtype=np.int64)) == (0.0, 1.0)


def test_the_p_value_is_uniform_when_groups_do_not_differ() -> None:
    rng = np.random.default_rng(0)
    values = []
    for _ in range(300):
        time, event, group = rng.exponential(1, 60), rng.integers(0, 2, 60), rng.integers(0, 2, 60)
        values.append(log_rank(time, event, group)[0])
    assert 0.02 < np.mean(np.array(values) > chi2.ppf(0.95, 1)) < 0.09
