"""Kaplan-Meier, the censoring distribution, Breslow's baseline hazard as step functions; and the log-rank test."""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from pathoml.units import FloatArray, IntArray


@dataclass(frozen=True)
class StepFunction:
    """A right-continuous step function of time.

    Parameters
    ----------
    days : ndarray of float64, shape (steps,)
        Where it steps, ascending.
    values : ndarray of float64, shape (steps,)
        Its value from each step on.
    before : float
        Its value before the first step.
    """

    days: FloatArray
    values: FloatArray
    before: float

    def at(self, days: FloatArray) -> FloatArray:
        """Return the value at given times.

        Parameters
        ----------
        days : ndarray of float64
            Any times.

        Returns
        -------
        ndarray of float64
            Same shape.
        """
        index = np.searchsorted(self.days, days, side="right")
        return np.concatenate([[self.before], self.values])[index]

    def just_before(self, days: FloatArray) -> FloatArray:
        """Return the left limit at given times.

        Parameters
        ----------
        days : ndarray of float64
            Any times.

        Returns
        -------
        ndarray of float64
            Same shape.
        """
        index = np.searchsorted(self.days, days, side="left")
        return np.concatenate([[self.before], self.values])[index]


def kaplan_meier(time_days: FloatArray, event: IntArray) -> StepFunction:
    """Estimate the probability of no event until each time.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    Returns
    -------
    StepFunction
        Steps at every distinct follow-up time, from 1.

    References
    ----------
    Kaplan EL, Meier P. Nonparametric estimation from incomplete observations. J Am Stat Assoc 53 (1958) 457-481.
    """
    days, at_risk, events = _risk_table(time_days, event, np.ones(len(time_days)))
    return StepFunction(days, np.cumprod(1 - events / at_risk, dtype=np.float64), 1.0)


def censoring_survival(time_days: FloatArray, event: IntArray) -> StepFunction:
    """Estimate the probability of not being censored until each time (reverse Kaplan-Meier).

    Patients with an event at a time leave the risk set before those censored at the same time.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    Returns
    -------
    StepFunction
        Steps at every distinct follow-up time, from 1.
    """
    weights = np.ones(len(time_days))
    days, at_risk, events = _risk_table(time_days, event, weights)
    _, _, censored = _risk_table(time_days, 1 - event, weights)
    remaining = at_risk - events
    factor = np.where(remaining > 0, 1 - censored / np.maximum(remaining, 1), 1.0)
    return StepFunction(days, np.cumprod(factor, dtype=np.float64), 1.0)


def breslow_hazard(time_days: FloatArray, event: IntArray, log_hazard: FloatArray) -> StepFunction:
    """Estimate the cumulative baseline hazard of a Cox model.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    log_hazard : ndarray of float64, shape (patients,)
        The model's log hazards of the same patients.

    Returns
    -------
    StepFunction
        Steps at every distinct follow-up time, from 0; of a patient whose log hazard is 0.

    References
    ----------
    Breslow NE. Discussion of Cox (1972). J R Stat Soc B 34 (1972) 216-217.
    """
    shift = float(log_hazard.max())
    days, at_risk, events = _risk_table(time_days, event, np.exp(log_hazard - shift))
    return StepFunction(days, np.cumsum(events / at_risk) * np.exp(-shift), 0.0)


def cox_survival(hazard: StepFunction, log_hazard: FloatArray, curve_days: FloatArray) -> FloatArray:
    """Return the survival curves of a Cox model.

    Parameters
    ----------
    hazard : StepFunction
        Cumulative baseline hazard.
    log_hazard : ndarray of float64, shape (patients,)
        The model's log hazards.
    curve_days : ndarray of float64, shape (times,)
        When.

    Returns
    -------
    ndarray of float64, shape (patients, times)
        Probability of no event until then.

    Notes
    -----
    The cumulative hazard is added to the log hazard as a logarithm: the exponential of a log hazard above 709 has no float64,
    and infinity times a hazard of 0 would be no number.
    """
    with np.errstate(divide="ignore", over="ignore"):  # log 0 is minus infinity, and exp of too much is a survival of 0
        log_cumulative = np.log(hazard.at(curve_days))[None, :] + log_hazard[:, None]
        curves: FloatArray = np.exp(-np.exp(log_cumulative))
    return curves


def log_rank(time_days: FloatArray, event: IntArray, group: IntArray) -> tuple[float, float]:
    """Compare the survival of two groups.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    group : ndarray of int, shape (patients,)
        0 or 1.

    Returns
    -------
    tuple of float
        Chi-squared statistic with one degree of freedom, and its p-value (1 where it cannot be computed).

    References
    ----------
    Mantel N. Evaluation of survival data and two new rank order statistics. Cancer Chemother Rep 50 (1966) 163-170.
    """
    _, at_risk, events = _risk_table(time_days, event, np.ones(len(time_days)))
    _, at_risk_one, events_one = _risk_table(time_days, event, (group == 1).astype(np.float64), counted=group == 1)
    share = at_risk_one / at_risk
    expected = events * share
    spread = events * share * (1 - share) * (at_risk - events) / np.maximum(at_risk - 1, 1)
    variance = float(spread.sum())
    if variance <= 0:
        return 0.0, 1.0
    statistic = float((events_one - expected).sum() ** 2 / variance)
    return statistic, float(chdtrc(1, statistic))


def _risk_table(
    time_days: FloatArray,
    event: IntArray,
    weights: FloatArray,
    *,
    counted: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None" = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return distinct times, weight at risk just before each, and events at each (of the counted patients)."""
    days, position = np.unique(time_days, return_inverse=True)
    leaving = np.bincount(position, weights=weights, minlength=len(days)).astype(np.float64)
    at_risk = np.cumsum(leaving[::-1])[::-1]
    counts = event if counted is None else event * counted
    events = np.bincount(position, weights=counts.astype(np.float64), minlength=len(days)).astype(np.float64)
    return days, at_risk, events
