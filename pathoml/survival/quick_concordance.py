"""Harrell's concordance without a matrix of pairs: for every epoch of a training, and for cohorts of a hundred thousand."""

import numpy as np

from pathoml.units import FloatArray, IntArray


def concordant_pairs(time_days: FloatArray, event: IntArray, risk: FloatArray, *, tied: float) -> tuple[float, int]:
    """Count pairs of whom it is known who had the event first.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    tied : float
        Risks that differ by no more are equal.

    Returns
    -------
    tuple of float and int
        Pairs in which the one with the higher risk had it first, equal risks counting one half; and all pairs.

    Notes
    -----
    Patients are put in the order in which they left: those who outlived an event are then the first `outlived` of the order.
    How many of a first part have a risk below a bound is counted in runs of 1, 2, 4, ... neighbours, each sorted by
    risk: a first part of any length consists of one run of each length at most. O(n log(n)^2), without loops over patients.
    """
    censored_after = np.where(event == 1, 1, 0)
    order = np.lexsort(
        (censored_after, -time_days)
    )  # falling time; of equal times the censored, who outlive, come first
    times, is_event, risks = time_days[order], event[order] == 1, risk[order]
    queries = np.flatnonzero(is_event)
    if len(queries) == 0:
        return 0.0, 0
    # Of equal times only the censored count: the first event of that time ends the part that outlived.
    first_event_of_time = np.searchsorted(-times[queries], -times[queries], side="left")
    outlived = queries[first_event_of_time]
    levels = np.sort(risks)
    below = np.searchsorted(levels, risks[queries] - tied, side="left")
    up_to = np.searchsorted(levels, risks[queries] + tied, side="right")
    place = np.searchsorted(levels, risks, side="left")
    lower = _count_below(place, outlived, below)
    not_higher = _count_below(place, outlived, up_to)
    return float(lower.sum() + 0.5 * (not_higher - lower).sum()), int(outlived.sum())


def _count_below(place: IntArray, first: IntArray, bound: IntArray) -> IntArray:
    """Return how many of the first so many places lie below a bound, for many parts and bounds."""
    count = len(place)
    found = np.zeros(len(first), dtype=np.int64)
    length = 1
    run = np.arange(count)
    while length <= count:
        has_run = np.flatnonzero(first & length)
        if len(has_run):
            # Runs one after another, each sorted by place; a key of run and place makes them one sorted array.
            keys = np.sort((run // length) * (count + 1) + place)
            own = (first[has_run] & ~(2 * length - 1)) // length
            found[has_run] += np.searchsorted(keys, own * (count + 1) + bound[has_run]) - own * length
        length *= 2
    return found
