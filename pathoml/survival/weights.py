"""Inverse probabilities of censoring, and ratios of weighted sums."""

import numpy as np

from pathoml.survival.curves import StepFunction
from pathoml.units import FloatArray, IntArray


def inverse_probability(probability: FloatArray) -> FloatArray:
    """Return one over a probability, 0 where it is 0.

    Parameters
    ----------
    probability : ndarray of float64
        Any shape.

    Returns
    -------
    ndarray of float64
        Same shape.
    """
    inverse: FloatArray = np.divide(1.0, probability, out=np.zeros_like(probability), where=probability > 0)
    return inverse


def inverse_censoring(time_days: FloatArray, event: IntArray, censoring: StepFunction) -> FloatArray:
    """Return the weight of each event: one over the probability of not having been censored until then.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    censoring : StepFunction
        Probability of not being censored.

    Returns
    -------
    ndarray of float64, shape (patients,)
        0 for censored patients, and where the probability is 0.
    """
    return np.where(event == 1, inverse_probability(censoring.at(time_days)), 0.0)


def weighted_ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return a ratio, NaN where there is nothing to divide by.

    Parameters
    ----------
    above : ndarray of float64
        Any shape.
    below : ndarray of float64
        Same shape, not negative.

    Returns
    -------
    ndarray of float64
        Same shape.
    """
    ratio: FloatArray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return ratio
