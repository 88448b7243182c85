"""What each patient contributes to a survival probability or a restricted mean, as if nobody had been censored."""

from collections.abc import Callable

import numpy as np

from pathoml.survival.draws import blocks_of_draws, risk_table_of_draws
from pathoml.units import FloatArray, IntArray


def survival_pseudo_observations(
    time_days: FloatArray, event: IntArray, counts: FloatArray, *, at_days: float
) -> FloatArray:
    """Return the jackknife pseudo-observations of the survival probability at one time, in every draw.

    Their mean is close to the Kaplan-Meier estimate; without censoring they are 1 for patients free of the event then and 0
    for the others. Regression on them needs no further care for censoring that does not depend on the covariates.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    at_days : float
        The time.

    Returns
    -------
    ndarray of float64, shape (draws, patients)
        Of one copy of each patient; those of patients who were not drawn mean nothing.

    References
    ----------
    Andersen PK, Klein JP, Rosthoj S. Generalised linear models for correlated pseudo-observations, with applications to
    multi-state models. Biometrika 90 (2003) 15-27.
    """
    return _jackknife(lambda drawn: _curves(time_days, event, drawn, at_days), counts)


def restricted_mean_pseudo_observations(
    time_days: FloatArray, event: IntArray, counts: FloatArray, *, until_days: float
) -> FloatArray:
    """Return the jackknife pseudo-observations of the mean days without event until a time, in every draw.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    until_days : float
        Until when.

    Returns
    -------
    ndarray of float64, shape (draws, patients)
        Days; without censoring the smaller of follow-up and the time.

    References
    ----------
    Andersen PK, Hansen MG, Klein JP. Regression analysis of restricted mean survival time based on pseudo-observations.
    Lifetime Data Anal 10 (2004) 335-350.
    """
    return _jackknife(lambda drawn: _areas(time_days, event, drawn, until_days), counts)


def _jackknife(estimate: Callable[[FloatArray], tuple[FloatArray, FloatArray]], counts: FloatArray) -> FloatArray:
    """Compare an estimate of everybody with that without each patient in turn."""
    pseudo = np.empty_like(counts)
    for rows in blocks_of_draws(*counts.shape):
        whole, without = estimate(counts[rows])
        size = counts[rows].sum(axis=1, keepdims=True)
        pseudo[rows] = size * whole - (size - 1) * without
    return pseudo


def _curves(
    time_days: FloatArray, event: IntArray, counts: FloatArray, at_days: float
) -> tuple[FloatArray, FloatArray]:
    """Return Kaplan-Meier at a time, with everybody and without each patient in turn."""
    days, keep, without_one, own = _factors(time_days, event, counts)
    position = np.searchsorted(days, time_days)
    end = int(np.searchsorted(days, at_days, side="right"))
    whole = keep[:, :end].prod(axis=1, keepdims=True)
    before = _products(without_one)  # until just before a step, somebody being absent from every risk set
    after = _products(keep[:, :end][:, ::-1])[:, ::-1]  # from a step to the end, as it is
    stop = np.minimum(position, end)
    tail = after[:, np.minimum(position + 1, end)]
    at_own = np.where(position < end, own, 1.0)
    return whole, before[:, stop] * at_own * tail


def _areas(
    time_days: FloatArray, event: IntArray, counts: FloatArray, until_days: float
) -> tuple[FloatArray, FloatArray]:
    """Return the area below Kaplan-Meier until a time, with everybody and without each patient in turn."""
    days, keep, without_one, own = _factors(time_days, event, counts)
    position = np.searchsorted(days, time_days)
    edges = np.concatenate([[0.0], np.minimum(days, until_days), [max(until_days, days[-1])]])
    lengths = np.minimum(np.diff(edges), np.maximum(until_days - edges[:-1], 0.0))
    curve, reduced = _products(keep), _products(without_one)
    whole = (curve * lengths).sum(axis=1, keepdims=True)
    until_own = np.cumsum(reduced * lengths, axis=1)[:, position]
    # The area after a step, in units of the curve there, runs backwards so that no product of zeros is divided by.
    following = np.empty_like(curve)
    following[:, -1] = lengths[-1]
    for step in range(curve.shape[1] - 2, -1, -1):
        following[:, step] = lengths[step] + keep[:, step] * following[:, step + 1]
    return whole, until_own + reduced[:, position] * own * following[:, position + 1]


def _factors(
    time_days: FloatArray, event: IntArray, counts: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return steps, and Kaplan-Meier's factor at each with everybody and with one fewer at risk; and at each patient's own."""
    days, at_risk, events = risk_table_of_draws(time_days, event, counts)
    keep = 1 - _divide(events, at_risk)
    without_one = 1 - _divide(events, at_risk - 1)
    position = np.searchsorted(days, time_days)
    own = 1 - _divide(np.maximum(events[:, position] - event, 0.0), at_risk[:, position] - 1)
    return days, keep, without_one, own


def _divide(above: FloatArray, below: FloatArray) -> FloatArray:
    share: FloatArray = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return share


def _products(factors: FloatArray) -> FloatArray:
    """Return products of all factors before each place, and of all."""
    return np.concatenate([np.ones((len(factors), 1)), np.cumprod(factors, axis=1)], axis=1)
