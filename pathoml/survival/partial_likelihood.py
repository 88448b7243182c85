"""Cox's partial likelihood of linear models, and its derivatives, of one or many draws of the patients at once.

`pathoml.losses.cox_loss` is the same quantity where networks are trained; here it is climbed by Newton's method, which
needs its curvature, and for a thousand bootstrap draws side by side.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pathoml.units import AnyArray, FloatArray, IntArray

_VANISHED = 1e-290
"""A risk set whose hazards, beside the largest of its draw, add up to less is counted in logarithms."""


class RiskSets(NamedTuple):
    """Patients by stratum, then by falling time; only rows of events enter the likelihood.

    Parameters
    ----------
    order : ndarray of int, shape (patients,)
        Brings patients into this order; all functions here take arrays that are in it.
    events : ndarray of int, shape (events,)
        Rows with an event.
    last : ndarray of int, shape (events,)
        Of each event the last row whose time is at least its own, in its stratum.
    ends : ndarray of int
        The rows that are the last of some event, ascending.
    first_event : ndarray of int
        Of each of these the first event that ends there.
    strata : tuple of slice
        The rows of each stratum.
    """

    order: IntArray
    events: IntArray
    last: IntArray
    ends: IntArray
    first_event: IntArray
    strata: tuple[slice, ...]


def risk_sets(time_days: FloatArray, event: IntArray, stratum: AnyArray | None = None) -> RiskSets:
    """Return who is at risk at which event.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    stratum : ndarray, shape (patients,), optional
        Strata with baseline hazards of their own.

    Returns
    -------
    RiskSets
        Of all events.
    """
    group = np.zeros(len(time_days), dtype=np.int64)
    if stratum is not None:
        group = np.unique(stratum, return_inverse=True)[1]
    order = np.lexsort((-time_days, group))
    group, time_days = group[order], time_days[order]
    events = np.flatnonzero(event[order] == 1)
    rows = np.arange(len(order))
    is_last = np.append((time_days[1:] != time_days[:-1]) | (group[1:] != group[:-1]), True)
    last = np.minimum.accumulate(np.where(is_last, rows, len(rows))[::-1])[::-1]
    ends, first_event = np.unique(last[events], return_index=True)
    bounds = [*np.unique(group, return_index=True)[1].tolist(), len(group)]
    strata = tuple(slice(start, stop) for start, stop in pairwise(bounds))
    return RiskSets(order, events, last[events], ends, first_event, strata)


def partial_likelihood(log_hazard: FloatArray, time_days: FloatArray, event: IntArray) -> float:
    """Return the log partial likelihood of log hazards, ties as Breslow.

    Parameters
    ----------
    log_hazard : ndarray of float64, shape (patients,)
        Higher is worse.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    Returns
    -------
    float
        0 without events; higher is better.
    """
    rows = risk_sets(time_days, event)
    return float(log_likelihood(log_hazard[rows.order][None], np.ones((1, len(log_hazard))), rows)[0])


def log_likelihood(linear: FloatArray, weight: FloatArray, rows: RiskSets) -> FloatArray:
    """Return the log partial likelihood of each draw, ties as Breslow.

    Parameters
    ----------
    linear : ndarray of float64, shape (draws, patients)
        Log hazards, however far apart.
    weight : ndarray of float64, shape (draws, patients) or (1, patients)
        How often each patient was drawn.
    rows : RiskSets
        Of the patients.

    Returns
    -------
    ndarray of float64, shape (draws,)
        0 without events.

    References
    ----------
    Cox DR. Partial likelihood. Biometrika 62 (1975) 269-276. Breslow NE. Covariance analysis of censored survival data.
    Biometrics 30 (1974) 89-99.
    """
    if linear.shape[1] == 0:
        return np.zeros(len(linear))
    weight = np.broadcast_to(weight, linear.shape)
    drawn = weight[:, rows.events]
    highest = linear.max(axis=1, keepdims=True)
    total = at_risk(weight * np.exp(linear - highest), rows)
    counted = total > _VANISHED
    log_total = np.log(np.where(counted, total, 1.0)) + highest
    far = ((drawn > 0) & ~counted).any(axis=1)
    if far.any():
        log_total[far] = _log_at_risk(linear[far], weight[far], rows)
    value: FloatArray = (drawn * np.where(drawn > 0, linear[:, rows.events] - log_total, 0.0)).sum(axis=1)
    return value


def derivatives(
    design: FloatArray, linear: FloatArray, weight: FloatArray, rows: RiskSets
) -> tuple[FloatArray, FloatArray]:
    """Return slope and negative curvature of the log partial likelihood of each draw, by the coefficients.

    With p_ij the share of patient j in the hazard of those at risk at event i: the slope is the sum over events of
    x_i - sum_j p_ij x_j, the negative curvature sum_i (sum_j p_ij x_j x_j' - m_i m_i') with m_i = sum_j p_ij x_j. Sum_i p_ij
    is the patient's cumulative hazard, so that the first part is one weighted product in place of a cumulative sum for
    each pair of columns.

    Parameters
    ----------
    design : ndarray of float64, shape (1, patients, columns) or (draws, patients, columns)
        Covariates.
    linear : ndarray of float64, shape (draws, patients)
        Log hazards at which the derivatives are taken. An event whose risk set vanishes beside the largest hazard of its
        draw (by a factor of 1e290) is left out.
    weight : ndarray of float64, shape (draws, patients) or (1, patients)
        How often each patient was drawn.
    rows : RiskSets
        Of the patients.

    Returns
    -------
    ndarray of float64, shape (draws, columns)
        Slope.
    ndarray of float64, shape (draws, columns, columns)
        Negative curvature.
    """
    share = weight * np.exp(linear - linear.max(axis=1, keepdims=True))
    drawn = np.broadcast_to(weight, share.shape)[:, rows.events]
    total = at_risk(share, rows)
    counted = (drawn > 0) & (total > _VANISHED)
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=counted)
    spent = share * _cumulative_hazard(drawn * inverse, rows, share.shape[1])
    observed = np.zeros_like(share)
    observed[:, rows.events] = np.where(counted, drawn, 0.0)
    means = at_risk(share[:, :, None] * design, rows) * inverse[:, :, None]
    slope = _products(observed - spent, design)
    return slope, _second_moments(spent, design) - (means * drawn[:, :, None]).transpose(0, 2, 1) @ means


def at_risk(values: FloatArray, rows: RiskSets) -> FloatArray:
    """Sum over those still at risk at each event.

    Parameters
    ----------
    values : ndarray of float64, shape (draws, patients) or (draws, patients, columns)
        In the order of the risk sets.
    rows : RiskSets
        Of the patients.

    Returns
    -------
    ndarray of float64, shape (draws, events) or (draws, events, columns)
        The sums.
    """
    total = np.empty_like(values)
    for stratum in rows.strata:  # a difference of sums over all strata would lose those whose hazards are small
        np.cumsum(values[:, stratum], axis=1, out=total[:, stratum])
    sums: FloatArray = total[:, rows.last]
    return sums


def _log_at_risk(linear: FloatArray, weight: FloatArray, rows: RiskSets) -> FloatArray:
    """Return the logarithm of what `at_risk` says of the hazards, where these are too far apart to be added."""
    logs = linear + np.log(weight, out=np.full(weight.shape, -np.inf), where=weight > 0)
    for stratum in rows.strata:
        np.logaddexp.accumulate(logs[:, stratum], axis=1, out=logs[:, stratum])
    return logs[:, rows.last]


def _cumulative_hazard(steps: FloatArray, rows: RiskSets, patients: int) -> FloatArray:
    """Sum over the events at which each row is still at risk."""
    hazard = np.zeros((len(steps), patients))
    if len(rows.ends):
        hazard[:, rows.ends] = np.add.reduceat(steps, rows.first_event, axis=1)
    for stratum in rows.strata:
        hazard[:, stratum] = np.cumsum(hazard[:, stratum][:, ::-1], axis=1)[:, ::-1]
    return hazard


def _products(weight: FloatArray, design: FloatArray) -> FloatArray:
    """Sum columns with the weights of each draw."""
    found: FloatArray = weight @ design[0] if len(design) == 1 else (weight[:, None] @ design)[:, 0]
    return found


def _second_moments(weight: FloatArray, design: FloatArray) -> FloatArray:
    """Sum products of all pairs of columns with the weights of each draw."""
    columns = design.shape[2]
    if len(design) > 1 or len(weight) == 1:
        found: FloatArray = (design.transpose(0, 2, 1) * weight[:, None]) @ design
        return found
    pairs = (design[0, :, :, None] * design[0, :, None, :]).reshape(design.shape[1], columns**2)
    return (weight @ pairs).reshape(len(weight), columns, columns)
