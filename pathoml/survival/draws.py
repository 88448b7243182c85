"""Kaplan-Meier, restricted means and Aalen-Johansen of thousands of bootstrap draws at once.

A draw is a row of counts: how often each patient was drawn. Steps stand at the follow-up times of all patients; a time at
which nobody of a draw leaves is a step of height 0, so that all draws share one set of steps.
"""

from typing import NamedTuple

import numpy as np

from pathoml.units import AnyArray, FloatArray, IntArray

_CELLS = 500_000


class DrawnTable(NamedTuple):
    """How many are at risk and leave at each distinct follow-up time, in every draw.

    Parameters
    ----------
    days : ndarray of float64, shape (steps,)
        Distinct follow-up times.
    at_risk : ndarray of float64, shape (draws, steps)
        Still followed just before.
    events : ndarray of float64, shape (draws, steps)
        Events then.
    """

    days: FloatArray
    at_risk: FloatArray
    events: FloatArray


def risk_table_of_draws(time_days: FloatArray, event: AnyArray, counts: FloatArray) -> DrawnTable:
    """Count who is at risk and who has an event.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int or bool, shape (patients,)
        1 event, 0 not.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.

    Returns
    -------
    DrawnTable
        With steps at the times of all patients, drawn or not.
    """
    order = np.argsort(time_days, kind="stable")
    days, start = np.unique(time_days[order], return_index=True)
    drawn = counts[:, order]
    leaving = np.add.reduceat(drawn, start, axis=1)
    at_risk = np.cumsum(leaving[:, ::-1], axis=1)[:, ::-1]
    events = np.add.reduceat(drawn * (event[order] == 1), start, axis=1)
    return DrawnTable(days, at_risk, events)


def survival_of_draws(
    time_days: FloatArray, event: AnyArray, counts: FloatArray, at_days: FloatArray
) -> FloatArray:  # fmt: skip
    """Estimate the probability of no event until given times in every draw (Kaplan-Meier).

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int or bool, shape (patients,)
        1 event, 0 censored.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    at_days : ndarray of float64, shape (times,)
        When.

    Returns
    -------
    ndarray of float64, shape (draws, times)
        NaN in draws of nobody; after the last follow-up the last value.
    """
    found = np.empty((len(counts), len(at_days)))
    for rows in blocks_of_draws(len(counts), len(time_days)):
        table = risk_table_of_draws(time_days, event, counts[rows])
        curve = np.cumprod(_staying(table.events, table.at_risk), axis=1)
        whole = np.concatenate([np.ones((len(curve), 1)), curve], axis=1)
        found[rows] = whole[:, np.searchsorted(table.days, at_days, side="right")]
    found[counts.sum(axis=1) <= 0] = np.nan
    return found


def restricted_mean_of_draws(
    time_days: FloatArray, event: AnyArray, counts: FloatArray, *, until_days: float
) -> FloatArray:  # fmt: skip
    """Estimate the mean days without event until a time in every draw: the area under Kaplan-Meier.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int or bool, shape (patients,)
        1 event, 0 censored.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    until_days : float
        Until when.

    Returns
    -------
    ndarray of float64, shape (draws,)
        Days.
    """
    steps = np.unique(time_days[(time_days > 0) & (time_days < until_days)])
    starts = np.concatenate([[0.0], steps])
    lengths = np.diff(np.concatenate([starts, [until_days]]))
    return survival_of_draws(time_days, event, counts, starts) @ lengths


def incidence_of_draws(
    time_days: FloatArray, cause: IntArray, counts: FloatArray, at_days: FloatArray
) -> dict[int, FloatArray]:  # fmt: skip
    """Estimate the cumulative incidence of each cause in every draw (Aalen-Johansen).

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    cause : ndarray of int, shape (patients,)
        0 censored, 1, 2, ... causes.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    at_days : ndarray of float64, shape (times,)
        When.

    Returns
    -------
    dict of int to ndarray of float64, shape (draws, times)
        Probability that the event of a cause has happened until then, while the others compete with it.

    References
    ----------
    Aalen OO, Johansen S. An empirical transition matrix for non-homogeneous Markov chains based on censored observations.
    Scand J Stat 5 (1978) 141-150.
    """
    every = risk_table_of_draws(time_days, cause > 0, counts)
    before = np.cumprod(_staying(every.events, every.at_risk), axis=1)
    before = np.concatenate([np.ones((len(counts), 1)), before[:, :-1]], axis=1)
    position = np.searchsorted(every.days, at_days, side="right")
    found: dict[int, FloatArray] = {}
    for one in np.unique(cause[cause > 0]).tolist():
        of_cause = risk_table_of_draws(time_days, cause == one, counts)
        hazard = 1 - _staying(of_cause.events, of_cause.at_risk)
        total = np.cumsum(before * hazard, axis=1)
        found[one] = np.concatenate([np.zeros((len(counts), 1)), total], axis=1)[:, position]
    return found


def _staying(events: FloatArray, at_risk: FloatArray) -> FloatArray:
    """Return the share of those at risk that has no event, 1 where nobody is at risk."""
    share: FloatArray = 1 - np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0)
    return share


def blocks_of_draws(draws: int, patients: int) -> list[slice]:
    """Cut the draws into blocks that fit a processor's cache and memory better than all of them together.

    Parameters
    ----------
    draws : int
        How many.
    patients : int
        Columns of each.

    Returns
    -------
    list of slice
        One after another.
    """
    size = max(1, _CELLS // max(1, patients))
    return [slice(start, start + size) for start in range(0, draws, size)]
