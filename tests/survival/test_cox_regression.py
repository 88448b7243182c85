"""Cox regression of draws against scikit-survival and lifelines, and proportional hazards against lifelines."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.statistics import proportional_hazard_test
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pathoml.losses import cox_loss
from pathoml.survival.baselines import fit_cox
from pathoml.survival.cox_regression import fit_cox_draws, proportional_hazards_test
from pathoml.survival.partial_likelihood import partial_likelihood


def untied(time: np.ndarray) -> np.ndarray:
    """Return times without ties, in an order that keeps them."""
    return time + np.random.default_rng(0).permutation(len(time)) * 1e-6


def lifelines_fit(part, time: np.ndarray, columns: slice, **options) -> tuple[CoxPHFitter, pd.DataFrame]:
    table = pd.DataFrame(part.design[:, columns]).assign(time=time, event=part.event)
    if "stratum" in options:
        table["stratum"] = options["stratum"]
    fitter = CoxPHFitter().fit(
        table, "time", "event", strata=["stratum"] if "stratum" in options else None,
        fit_options={"precision": 1e-14},
    )  # fmt: skip
    return fitter, table


def test_coefficients_equal_scikit_survivals_with_ties(everyone) -> None:
    model = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-14)
    model.fit(everyone.design, Surv.from_arrays(everyone.event.astype(bool), everyone.time))
    found = fit_cox_draws(everyone.design, everyone.time, everyone.event)
    np.testing.assert_allclose(found.coefficients[0], model.coef_, atol=1e-9)


def test_the_likelihood_is_that_of_the_loss_that_models_are_trained_with(everyone) -> None:
    """Tied, with patients drawn several times or never, in strata; and that of the baseline where there are neither."""
    rng = np.random.default_rng(4)
    design, time = np.array(everyone.design[:, :2]), np.ceil(np.array(everyone.time) / 30)
    event, stratum = np.array(everyone.event), rng.integers(0, 3, len(time))
    counts = rng.integers(0, 3, (1, len(time))).astype(np.float64)
    found = fit_cox_draws(design, time, event, counts=counts, stratum=stratum)
    drawn = np.repeat(np.arange(len(time)), counts[0].astype(int))
    outcome = torch.from_numpy(event[drawn] == 1), torch.from_numpy(time[drawn])
    log_hazard = torch.from_numpy(design[drawn] @ found.coefficients[0])
    loss = cox_loss(log_hazard, *outcome, stratum=torch.from_numpy(stratum[drawn])).item()
    assert found.log_likelihood[0] == pytest.approx(-loss * event[drawn].sum(), rel=1e-9)
    plain = fit_cox_draws(design, time, event)
    own = partial_likelihood(design @ plain.coefficients[0], time, event)
    assert plain.log_likelihood[0] == pytest.approx(own, rel=1e-9)


def test_a_ridge_is_that_of_the_baseline(everyone) -> None:
    found = fit_cox_draws(everyone.design, everyone.time, everyone.event, ridge=20.0)
    expected = fit_cox(everyone.design, everyone.time, everyone.event, ridge=20.0).coefficients
    np.testing.assert_allclose(found.coefficients[0], expected, atol=1e-6)


@pytest.mark.parametrize("stratified", [False, True])
def test_fit_and_standard_errors_equal_lifelines_without_ties(everyone, stratified: bool) -> None:
    time, columns = untied(everyone.time), slice(0, 3)
    stratum = np.arange(len(time)) % 3
    options = {"stratum": stratum} if stratified else {}
    reference, _ = lifelines_fit(everyone, time, columns, **options)
    found = fit_cox_draws(everyone.design[:, columns], time, everyone.event, **options)
    np.testing.assert_allclose(found.coefficients[0], reference.params_, atol=1e-9)
    errors = np.sqrt(np.diag(np.linalg.inv(found.information[0])))
    np.testing.assert_allclose(errors, reference.standard_errors_, rtol=1e-8)
    assert found.log_likelihood[0] == pytest.approx(reference.log_likelihood_, abs=1e-8)
    statistic = reference.log_likelihood_ratio_test().test_statistic
    assert found.likelihood_ratio[0] == pytest.approx(statistic, abs=1e-7)


def test_proportional_hazards_equal_lifelines_without_ties(everyone) -> None:
    time, columns = untied(everyone.time), slice(0, 3)
    fitter, table = lifelines_fit(everyone, time, columns)
    reference = proportional_hazard_test(fitter, table, time_transform="km")
    found = proportional_hazards_test(everyone.design[:, columns], time, everyone.event)
    np.testing.assert_allclose(found.statistic, reference.test_statistic, rtol=1e-7)
    np.testing.assert_allclose(found.p_value, reference.p_value, rtol=1e-7)


def test_an_effect_that_fades_is_found_and_said_to_weaken() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 800).astype(float)
    early, late = rng.exponential(np.where(group == 1, 0.5, 2.0)), 0.5 + rng.exponential(1.0, 800)
    time = np.where(early < 0.5, early, late)
    found = proportional_hazards_test(group[:, None], time, np.ones(800, dtype=np.int64))
    assert found.p_value[0] < 1e-6
    assert found.correlation[0] < 0


def test_draws_are_fitted_as_explicit_resampling_is(everyone) -> None:
    rng, count = np.random.default_rng(1), len(everyone.time)
    counts = rng.multinomial(count, np.full(count, 1 / count), size=8).astype(float)
    design, stratum = everyone.design[:, :2], np.arange(count) % 2
    found = fit_cox_draws(design, everyone.time, everyone.event, counts=counts, stratum=stratum)
    for place, drawn in enumerate(counts):
        rows = np.repeat(np.arange(count), drawn.astype(int))
        one = fit_cox_draws(design[rows], everyone.time[rows], everyone.event[rows], stratum=stratum[rows])
        np.testing.assert_allclose(found.coefficients[place], one.coefficients[0], atol=1e-8)
        assert found.likelihood_ratio[place] == pytest.approx(one.likelihood_ratio[0], abs=1e-7)


def test_permuted_designs_are_fitted_as_one_after_the_other(everyone) -> None:
    rng = np.random.default_rng(2)
    orders = [rng.permutation(len(everyone.time)) for _ in range(5)]
    together = np.stack([everyone.design[order, :2] for order in orders])
    found = fit_cox_draws(together, everyone.time, everyone.event, ridge=1.0)
    for place, order in enumerate(orders):
        one = fit_cox_draws(everyone.design[order, :2], everyone.time, everyone.event, ridge=1.0)
        np.testing.assert_allclose(found.coefficients[place], one.coefficients[0], atol=1e-9)


def test_a_separating_covariate_has_no_estimate() -> None:
    time = np.arange(1.0, 21.0)
    found = fit_cox_draws(-time[:, None], time, np.ones(20, dtype=np.int64))
    assert np.isnan(found.coefficients).all()


@pytest.mark.parametrize("design", [np.zeros((6, 1)), np.zeros((6, 0))], ids=["constant", "none"])
def test_a_covariate_without_information_has_no_effect(design: np.ndarray) -> None:
    found = fit_cox_draws(design, np.arange(6.0), np.array([1, 0, 1, 1, 0, 1]))
    np.testing.assert_allclose(found.coefficients, 0)
    np.testing.assert_allclose(found.likelihood_ratio, 0, atol=1e-12)


def test_nobody_with_an_event_is_no_error() -> None:
    found = fit_cox_draws(np.arange(6.0)[:, None], np.arange(6.0), np.zeros(6, dtype=np.int64))
    assert found.log_likelihood[0] == 0


def test_a_column_that_does_not_vary_has_no_test_of_proportional_hazards() -> None:
    rng = np.random.default_rng(0)
    design = np.column_stack([rng.normal(size=40), np.zeros(40)])
    time_days, event = rng.exponential(500, size=40), np.ones(40, dtype=np.int64)
    found = proportional_hazards_test(design, time_days, event)
    assert np.isfinite(found.statistic[0])
    assert np.isnan(found.statistic[1])
