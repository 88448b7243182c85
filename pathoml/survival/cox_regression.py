"""Cox regression of many bootstrap draws, or of many permutations, at once; and its check of proportional hazards.

scikit-survival fits one data set without case weights at a time, which a bootstrap would need thousands of times.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc

from pathoml.survival.curves import kaplan_meier
from pathoml.survival.partial_likelihood import RiskSets, at_risk, derivatives, log_likelihood, risk_sets
from pathoml.units import AnyArray, FloatArray, IntArray

_CELLS = 500_000
"""Numbers that a block of draws works on at once: as many as a processor's cache holds."""
_ITERATIONS = 40
_TOLERANCE = 1e-6
"""A step no longer than this ends the climb: the error of Newton's method after it is about its square."""
_FLAT = 1e-12
"""A curvature no larger than this, of a standardised column, says nothing."""
_LARGEST = 30.0
"""A log hazard ratio per standard deviation beyond this one means that the likelihood has no maximum."""


class CoxFits(NamedTuple):
    """Fits of several draws.

    Parameters
    ----------
    coefficients : ndarray of float64, shape (draws, columns)
        Log hazard ratios of one unit; NaN where the likelihood has no maximum.
    log_likelihood : ndarray of float64, shape (draws,)
        Partial likelihood at the coefficients, Breslow's ties, without any penalty.
    null_log_likelihood : ndarray of float64, shape (draws,)
        With all coefficients 0.
    information : ndarray of float64, shape (draws, columns, columns)
        Negative second derivative at the coefficients, penalty included.
    """

    coefficients: FloatArray
    log_likelihood: FloatArray
    null_log_likelihood: FloatArray
    information: FloatArray

    @property
    def likelihood_ratio(self) -> FloatArray:
        """Twice the gain in log likelihood over no covariate."""
        return 2 * (self.log_likelihood - self.null_log_likelihood)


def fit_cox_draws(
    design: FloatArray, time_days: FloatArray, event: IntArray, *, counts: FloatArray | None = None,
    stratum: AnyArray | None = None, ridge: float = 0.0,
) -> CoxFits:  # fmt: skip
    """Fit Cox's proportional hazards to every draw, ties as Breslow.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns) or (draws, patients, columns)
        Covariates; with three axes each draw has its own, as permutations of the patients have.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    counts : ndarray of float64, shape (draws, patients), optional
        How often each patient was drawn; none given: once each.
    stratum : ndarray, shape (patients,), optional
        Strata with baseline hazards of their own.
    ridge : float, optional
        Half of this times the sum of squared coefficients is taken from the log partial likelihood.

    Returns
    -------
    CoxFits
        One row a draw.

    References
    ----------
    Cox DR. Regression models and life-tables. J R Stat Soc B 34 (1972) 187-220.
    """
    own = design if design.ndim == 3 else design[None]
    draws = len(own) if counts is None else len(counts)
    weight = np.ones((1, len(time_days))) if counts is None else counts
    rows = risk_sets(time_days, event, stratum)
    scale = np.where(own.std(axis=1, keepdims=True) > 0, own.std(axis=1, keepdims=True), 1.0)
    standard = ((own - own.mean(axis=1, keepdims=True)) / scale)[:, rows.order]
    weight = weight[:, rows.order]
    columns = own.shape[2]
    size = max(1, _CELLS // (len(time_days) * (6 + columns)))
    start_at = np.zeros(columns)
    if len(standard) == 1 and draws > 1:  # draws lie around everybody's fit, so that few steps remain
        everybody = _newton(standard, np.ones((1, len(time_days))), rows, ridge / scale[:, 0] ** 2, start_at)
        start_at = np.nan_to_num(everybody.coefficients[0])
    fits = [
        _newton(_part(standard, block), _part(weight, block), rows, ridge / _part(scale, block)[:, 0] ** 2, start_at)
        for block in (slice(start, min(start + size, draws)) for start in range(0, draws, size))
    ]
    joined = CoxFits(*(np.concatenate(values) for values in zip(*fits, strict=True)))
    unit = scale[:, 0]
    return joined._replace(
        coefficients=joined.coefficients / unit, information=joined.information * unit[:, :, None] * unit[:, None, :]
    )


def _part(values: FloatArray, block: slice) -> FloatArray:
    return values if len(values) == 1 else values[block]


def _newton(
    design: FloatArray, weight: FloatArray, rows: RiskSets, ridge: FloatArray, start_at: FloatArray
) -> CoxFits:  # fmt: skip
    """Climb the penalised log likelihood of a block of draws; a step that leads down is halved."""
    draws, columns = max(len(design), len(weight)), design.shape[2]

    def plain(beta: FloatArray) -> FloatArray:
        return log_likelihood(_linear(design, beta), weight, rows)

    def penalised(beta: FloatArray, value: FloatArray) -> FloatArray:
        found: FloatArray = value - (ridge * beta**2).sum(axis=1) / 2
        return found

    def slope_and_information(beta: FloatArray) -> tuple[FloatArray, FloatArray]:
        slope, curvature = derivatives(design, _linear(design, beta), weight, rows)
        return slope - ridge * beta, curvature + ridge[:, :, None] * np.eye(columns)

    best = np.tile(start_at, (draws, 1))
    value = plain(best)
    slope, information = slope_and_information(best)
    climbing = np.ones(draws, dtype=bool)
    for _ in range(_ITERATIONS if columns else 0):
        step = _solved(information, slope)
        trial = best + np.where(climbing[:, None], step, 0.0)
        for _ in range(10):
            there = plain(trial)
            least = penalised(best, value) - 1e-9 * np.abs(value) - 1e-12
            worse = ~(penalised(trial, there) >= least)
            if not worse.any():
                break
            trial = np.where(worse[:, None], (trial + best) / 2, trial)
        climbing = np.abs(trial - best).max(axis=1) > _TOLERANCE
        best, value = trial, there
        slope, information = slope_and_information(best)
        if not climbing.any():
            break
    lost = np.abs(best).max(axis=1, initial=0.0) > _LARGEST
    null = plain(np.zeros((draws, columns)))
    return CoxFits(np.where(lost[:, None], np.nan, best), value, null, information)


def _solved(information: FloatArray, slope: FloatArray) -> FloatArray:
    """Return the step to the maximum, 0 along columns that a draw tells nothing about."""
    if slope.shape[1] == 1:
        curvature = information[:, :, 0]
        return np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > _FLAT)
    step: FloatArray = (np.linalg.pinv(information, hermitian=True) @ slope[:, :, None])[:, :, 0]
    return step


def _linear(design: FloatArray, beta: FloatArray) -> FloatArray:
    """Return the log hazards of each draw."""
    found: FloatArray = beta @ design[0].T if len(design) == 1 else (design @ beta[:, :, None])[:, :, 0]
    return found


class ProportionalHazards(NamedTuple):
    """Whether the log hazard ratio of a column changes with time.

    Parameters
    ----------
    statistic : ndarray of float64, shape (columns,)
        Chi-squared with one degree of freedom each.
    p_value : ndarray of float64, shape (columns,)
        Small: hazards are not proportional.
    correlation : ndarray of float64, shape (columns,)
        Of scaled residuals with transformed time; negative: the effect weakens with time.
    """

    statistic: FloatArray
    p_value: FloatArray
    correlation: FloatArray


def proportional_hazards_test(
    design: FloatArray, time_days: FloatArray, event: IntArray, *, stratum: AnyArray | None = None
) -> ProportionalHazards:
    """Test each column by its scaled Schoenfeld residuals, against one minus Kaplan-Meier as the clock.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Covariates.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    stratum : ndarray, shape (patients,), optional
        Strata with baseline hazards of their own.

    Returns
    -------
    ProportionalHazards
        One entry a column; NaN where there are fewer than three events.

    References
    ----------
    Grambsch PM, Therneau TM. Proportional hazards tests and diagnostics based on weighted residuals. Biometrika 81 (1994)
    515-526.
    """
    columns = design.shape[1]
    fit = fit_cox_draws(design, time_days, event, stratum=stratum)
    rows = risk_sets(time_days, event, stratum)
    if len(rows.events) < 3 or np.isnan(fit.coefficients).any():
        return ProportionalHazards(*(np.full(columns, np.nan) for _ in range(3)))
    own = (design - design.mean(axis=0))[rows.order]
    linear = own @ fit.coefficients[0]
    share = np.exp(linear - linear.max())[None]
    total = at_risk(share, rows)
    means = at_risk(share[:, :, None] * own, rows)[0] / total[0][:, None]
    residuals = own[rows.events] - means
    variance = np.linalg.pinv(fit.information[0], hermitian=True)
    scaled = len(rows.events) * residuals @ variance
    clock = 1 - kaplan_meier(time_days, event).at(time_days[rows.order][rows.events])
    centred = clock - clock.mean()
    spread = float((centred**2).sum())
    if spread <= 0:
        return ProportionalHazards(*(np.full(columns, np.nan) for _ in range(3)))
    scale = len(rows.events) * np.diag(variance) * spread  # 0 for a column that does not vary: nothing can be tested
    statistic = np.divide((centred @ scaled) ** 2, scale, out=np.full(columns, np.nan), where=scale > 0)
    deviation = np.sqrt(((scaled - scaled.mean(axis=0)) ** 2).sum(axis=0) * spread)
    correlation = np.divide(centred @ scaled, deviation, out=np.zeros(columns), where=deviation > 0)
    return ProportionalHazards(statistic, chdtrc(1, statistic), correlation)
