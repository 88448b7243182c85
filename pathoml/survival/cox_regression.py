"""Cox regression of many bootstrap draws, or of many permutations, at once; and its check of proportional hazards.

scikit-survival fits one data set without case weights at a time, which a bootstrap would need thousands of times.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc

from pathoml.survival.curves import kaplan_meier
from pathoml.units import AnyArray, FloatArray, IntArray

_CELLS = 500_000
"""Numbers that a block of draws works on at once: as many as a processor's cache holds."""
_ITERATIONS = 40
_TOLERANCE = 1e-6
"""A step no longer than this ends the climb: the error of Newton's method after it is about its square."""
_VANISHED = 1e-290
"""A risk set whose hazards add up to less has no inverse that could be counted with."""
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


class _Sorted(NamedTuple):
    """Patients by stratum, then by falling time; only rows of events enter the likelihood."""

    order: IntArray
    events: IntArray
    last: IntArray
    """Of each event the last row whose time is at least its own, in its stratum."""
    before: IntArray
    """Of each event the row before its stratum's first; -1 for none."""


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
    rows = _sort(time_days, event, stratum)
    scale = np.where(own.std(axis=1, keepdims=True) > 0, own.std(axis=1, keepdims=True), 1.0)
    standard = ((own - own.mean(axis=1, keepdims=True)) / scale)[:, rows.order]
    weight = weight[:, rows.order]
    columns = own.shape[2]
    size = max(1, _CELLS // (len(time_days) * (1 + columns + columns * (columns + 1) // 2)))
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


def _sort(time_days: FloatArray, event: IntArray, stratum: AnyArray | None) -> _Sorted:
    group = np.zeros(len(time_days), dtype=np.int64)
    if stratum is not None:
        group = np.unique(stratum, return_inverse=True)[1]
    order = np.lexsort((-time_days, group))
    group, time_days = group[order], time_days[order]
    events = np.flatnonzero(event[order] == 1)
    rows = np.arange(len(order))
    is_last = np.append((time_days[1:] != time_days[:-1]) | (group[1:] != group[:-1]), True)
    last = np.minimum.accumulate(np.where(is_last, rows, len(rows))[::-1])[::-1]
    first = np.searchsorted(group, group)
    return _Sorted(order, events, last[events], first[events] - 1)


def _newton(
    design: FloatArray, weight: FloatArray, rows: _Sorted, ridge: FloatArray, start_at: FloatArray
) -> CoxFits:  # fmt: skip
    """Climb the penalised log likelihood of a block of draws; a step that leads down is halved."""
    draws, columns = max(len(design), len(weight)), design.shape[2]
    null = _derivatives(design, weight, rows, np.zeros((draws, columns)), ridge)[0]
    best = np.tile(start_at, (draws, 1))
    value, slope, information = _derivatives(design, weight, rows, best, ridge)
    climbing = np.ones(draws, dtype=bool)
    for _ in range(_ITERATIONS if columns else 0):
        step = (np.linalg.pinv(information, hermitian=True) @ slope[:, :, None])[:, :, 0]
        trial = best + np.where(climbing[:, None], step, 0.0)
        for _ in range(10):
            there = _derivatives(design, weight, rows, trial, ridge)
            worse = ~(
                _penalised(there[0], trial, ridge) >= _penalised(value, best, ridge) - 1e-9 * np.abs(value) - 1e-12
            )
            if not worse.any():
                break
            trial = np.where(worse[:, None], (trial + best) / 2, trial)
        climbing = np.abs(trial - best).max(axis=1) > _TOLERANCE
        best, (value, slope, information) = trial, there
        if not climbing.any():
            break
    lost = np.abs(best).max(axis=1, initial=0.0) > _LARGEST
    return CoxFits(np.where(lost[:, None], np.nan, best), value, null, information)


def _penalised(log_likelihood: FloatArray, beta: FloatArray, ridge: FloatArray) -> FloatArray:
    value: FloatArray = log_likelihood - (ridge * beta**2).sum(axis=1) / 2
    return value


def _derivatives(
    design: FloatArray, weight: FloatArray, rows: _Sorted, beta: FloatArray, ridge: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the log likelihood, and slope and negative curvature of the penalised one, of each draw."""
    columns = design.shape[2]
    linear = beta @ design[0].T if len(design) == 1 else (design @ beta[:, :, None])[:, :, 0]
    linear = linear - linear.max(axis=1, keepdims=True)
    share = weight * np.exp(linear)
    drawn = np.broadcast_to(weight, share.shape)[:, rows.events]
    total = _risk_set(share, rows)
    counted = (drawn > 0) & (total > _VANISHED)
    safe = np.where(counted, total, 1.0)
    value = np.where(counted, drawn * (linear[:, rows.events] - np.log(safe)), 0.0).sum(axis=1)
    value[((drawn > 0) & ~counted).any(axis=1)] = -np.inf  # so far apart that a risk set vanishes: too long a step
    over, inverse = np.where(counted, drawn / safe, 0.0), np.where(counted, 1 / safe, 0.0)
    slope = np.empty((len(share), columns))
    information = np.empty((len(share), columns, columns))
    weighted = [share * design[:, :, one] for one in range(columns)]
    means = [_risk_set(one, rows) * inverse for one in weighted]
    for one in range(columns):
        slope[:, one] = (drawn * (design[:, rows.events, one] - means[one])).sum(axis=1)
        for other in range(one + 1):
            second = _risk_set(weighted[one] * design[:, :, other], rows) * over
            both = (second - drawn * means[one] * means[other]).sum(axis=1)
            information[:, one, other] = information[:, other, one] = both
    slope -= ridge * beta
    information += ridge[:, :, None] * np.eye(columns)
    return value, slope, information


def _risk_set(values: FloatArray, rows: _Sorted) -> FloatArray:
    """Sum over those still at risk at each event."""
    total = np.cumsum(values, axis=1)
    sums: FloatArray = total[:, rows.last]
    if (rows.before >= 0).any():
        sums = sums - np.where(rows.before >= 0, total[:, rows.before], 0.0)
    return sums


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
    rows = _sort(time_days, event, stratum)
    if len(rows.events) < 3 or np.isnan(fit.coefficients).any():
        return ProportionalHazards(*(np.full(columns, np.nan) for _ in range(3)))
    own = (design - design.mean(axis=0))[rows.order]
    linear = own @ fit.coefficients[0]
    share = np.exp(linear - linear.max())[None]
    total = _risk_set(share, rows)
    means = np.stack([_risk_set(share * own[None, :, one], rows)[0] / total[0] for one in range(columns)], axis=1)
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
