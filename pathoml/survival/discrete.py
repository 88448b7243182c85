"""Time in bins: edges from training events, and what a model's hazard logits say about survival."""

import math
from itertools import pairwise
from typing import Literal

import numpy as np

from pathoml.units import FloatArray, IntArray

Form = Literal["hazard", "pmf", "mtlr"]
"""What a bin's logit means: of its hazard, of its probability, or one that is summed with those of later bins to the latter."""

_FINER = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PATIENTS_A_STEP = 3


def event_bins(time_days: FloatArray, event: IntArray, bins: int) -> FloatArray:
    """Return edges such that each bin holds about as many training events.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Training patients' follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    bins : int
        Number of bins asked for; fewer result where events are tied.

    Returns
    -------
    ndarray of float64, shape (edges,)
        Starts with 0, ascends strictly, ends with the last training follow-up; bin k is (edges[k], edges[k + 1]], the
        first including 0.
    """
    inner = np.quantile(time_days[event == 1], np.linspace(0, 1, bins + 1)[1:-1])
    end = max(float(time_days.max()), np.nextafter(0.0, 1.0))
    return np.unique(np.concatenate([[0.0], inner[(inner > 0) & (inner < end)], [end]]))


def coarse_edges(edges: FloatArray, time_days: FloatArray) -> FloatArray:
    """Round the edges of time bins up, so that they tell of no single patient and yet stay apart.

    Parameters
    ----------
    edges : ndarray of float64, shape (edges,)
        As `event_bins` gives them.
    time_days : ndarray of float64, shape (patients,)
        Training patients' follow-up.

    Returns
    -------
    ndarray of float64, shape (coarse edges,)
        Starts with 0, ascends strictly. Two significant digits; an inner edge that would reach the next one is rounded in
        finer steps, but in none that fewer than three patients share, even if edges fall together then.
    """
    end = coarse_ceiling(float(edges[-1]))
    inner = [_coarse_edge(edge, following, time_days) for edge, following in pairwise(edges[1:].tolist())]
    return np.unique([0.0, *(edge for edge in inner if edge < end), end])


def _coarse_edge(edge: float, following: float, time_days: FloatArray) -> float:
    rounded = coarse_ceiling(edge)
    if rounded < following:
        return rounded
    # A rounded edge says no more than that the quantile lies within one step below it. Two digits are coarse enough to be
    # shown by themselves; of a finer step at least three patients' follow-up must end in it, so that the edge is none's own.
    for finer in _FINER:
        candidate = coarse_ceiling(edge, finer=finer)
        step = _step(edge) / finer
        if np.count_nonzero((time_days > candidate - step) & (time_days <= candidate)) < _PATIENTS_A_STEP:
            break
        rounded = candidate
        if rounded <= (edge + following) / 2:  # beyond the middle a bin would lose half of its events to its neighbour
            break
    return rounded


def coarse_ceiling(days: float, *, finer: int = 1) -> float:
    """Round a time up to two significant digits, so that it tells of no single patient.

    Parameters
    ----------
    days : float
        Positive.
    finer : int, optional
        Into how many parts a step of two digits is divided.

    Returns
    -------
    float
        At least as long.

    Examples
    --------
    >>> coarse_ceiling(2931.0)
    3000.0
    """
    if days <= 0:
        return days
    step = _step(days) / finer
    return math.ceil(days / step - 1e-9) * step


def _step(days: float) -> float:
    """Return what the second significant digit counts."""
    return 10.0 ** (math.floor(math.log10(days)) - 1)


def discrete_survival(
    logits: FloatArray, edges: FloatArray, curve_days: FloatArray, *, form: Form = "hazard"
) -> FloatArray:  # fmt: skip
    """Turn logits of time bins into survival curves; within a bin the hazard is constant in time.

    Parameters
    ----------
    logits : ndarray of float64, shape (patients, bins)
        One a bin.
    edges : ndarray of float64, shape (bins + 1,)
        As `event_bins` gives them.
    curve_days : ndarray of float64, shape (times,)
        When.
    form : str, optional
        ``hazard``: logits of the probability of the event in a bin, given none before; ``pmf``: before a softmax with a zero
        for none; ``mtlr``: summed with those of later bins before it.

    Returns
    -------
    ndarray of float64, shape (patients, times)
        Probability of no event until then; constant after the last edge.
    """
    log_survival = np.concatenate([np.zeros((len(logits), 1)), _log_survival(logits, form)], axis=1)
    position = np.clip(np.searchsorted(edges, curve_days, side="right") - 1, 0, len(edges) - 2)
    part = np.clip((curve_days - edges[position]) / (edges[position + 1] - edges[position]), 0, 1)
    log_curve = log_survival[:, position] * (1 - part) + log_survival[:, position + 1] * part
    curve: FloatArray = np.exp(log_curve)
    return curve


def _log_survival(logits: FloatArray, form: Form) -> FloatArray:
    """Return the log probability of no event through each bin."""
    if form == "hazard":
        return np.cumsum(-np.logaddexp(0, logits), axis=1)
    scores = logits if form == "pmf" else np.cumsum(logits[:, ::-1], axis=1)[:, ::-1]
    scores = np.concatenate([scores, np.zeros((len(scores), 1))], axis=1)
    from_here_on = np.logaddexp.accumulate(scores[:, ::-1], axis=1)[:, ::-1]
    log_survival: FloatArray = from_here_on[:, 1:] - from_here_on[:, :1]
    return log_survival


def discrete_risk(logits: FloatArray, edges: FloatArray, *, form: Form = "hazard") -> FloatArray:
    """Return one number a patient: minus the expected days without event until the last edge.

    Parameters
    ----------
    logits : ndarray of float64, shape (patients, bins)
        One a bin.
    edges : ndarray of float64, shape (bins + 1,)
        Bin edges.
    form : str, optional
        As in `discrete_survival`.

    Returns
    -------
    ndarray of float64, shape (patients,)
        Higher is worse.

    References
    ----------
    Royston P, Parmar MKB. Restricted mean survival time. BMC Med Res Methodol 13 (2013) 152.
    """
    grid = np.linspace(0, edges[-1], 201)
    expected_days = np.trapezoid(discrete_survival(logits, edges, grid, form=form), grid, axis=1)
    return -np.asarray(expected_days, dtype=np.float64)
