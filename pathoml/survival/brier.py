"""The Brier score at one time and over time, and beside what knowing nothing about the patients would reach."""

import numpy as np

from pathoml.survival.curves import StepFunction
from pathoml.survival.metrics import Metric
from pathoml.survival.weights import inverse_probability, weighted_ratio
from pathoml.units import FloatArray, IntArray


def brier_metric(
    time_days: FloatArray, event: IntArray, survival: FloatArray, curve_days: FloatArray, censoring: StepFunction
) -> Metric:
    """Prepare the integrated Brier score.

    The mean squared distance between the predicted survival probability and what happened, averaged over time.
    0 is perfect, 0.25 is what predicting one half always gives.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    survival : ndarray of float64, shape (patients, times)
        Predicted probabilities.
    curve_days : ndarray of float64, shape (times,)
        When they are given, ascending; two or more.
    censoring : StepFunction
        Probability of not being censored, from training patients.

    Returns
    -------
    Metric
        To be called with bootstrap counts.

    References
    ----------
    Graf E, Schmoor C, Sauerbrei W, Schumacher M. Assessment and comparison of prognostic classification schemes for
    survival data. Stat Med 18 (1999) 2529-2545.
    """
    loss = brier_losses(time_days, event, survival, curve_days, censoring)
    return _mean_metric(_over_time(loss, curve_days))


def brier_at_metric(
    time_days: FloatArray, event: IntArray, survival: FloatArray, censoring: StepFunction, *, horizon_days: float
) -> Metric:
    """Prepare the Brier score at one time.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    survival : ndarray of float64, shape (patients,)
        Predicted probabilities of no event until the time.
    censoring : StepFunction
        Probability of not being censored, from training patients.
    horizon_days : float
        The time.

    Returns
    -------
    Metric
        To be called with bootstrap counts.
    """
    loss = brier_losses(time_days, event, survival[:, None], np.array([horizon_days]), censoring)
    return _mean_metric(loss[:, 0])


def scaled_brier_metric(
    time_days: FloatArray, event: IntArray, survival: FloatArray, curve_days: FloatArray, *,
    censoring: StepFunction, reference: FloatArray,
) -> Metric:  # fmt: skip
    """Prepare the share of the integrated Brier score of a reference that the model saves.

    1 is perfect; 0 is no better than giving every patient the reference's curve; negative is worse.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    survival : ndarray of float64, shape (patients, times)
        Predicted probabilities.
    curve_days : ndarray of float64, shape (times,)
        When they are given, ascending; two or more.
    censoring : StepFunction
        Probability of not being censored, from training patients.
    reference : ndarray of float64, shape (times,)
        One curve for everybody, such as the Kaplan-Meier curve of the training patients.

    Returns
    -------
    Metric
        To be called with bootstrap counts.

    References
    ----------
    Kattan MW, Gerds TA. The index of prediction accuracy: an intuitive measure useful for evaluating risk prediction
    models. Diagn Progn Res 2 (2018) 7.
    """
    own = _over_time(brier_losses(time_days, event, survival, curve_days, censoring), curve_days)
    flat = np.broadcast_to(reference, survival.shape)
    plain = _over_time(brier_losses(time_days, event, flat, curve_days, censoring), curve_days)

    def metric(counts: FloatArray) -> FloatArray:
        return 1 - weighted_ratio(counts @ own, counts @ plain)

    return metric


def brier_losses(
    time_days: FloatArray, event: IntArray, survival: FloatArray, curve_days: FloatArray, censoring: StepFunction
) -> FloatArray:
    """Return what each patient adds to the Brier score at each time.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    survival : ndarray of float64, shape (patients, times)
        Predicted probabilities.
    curve_days : ndarray of float64, shape (times,)
        When they are given.
    censoring : StepFunction
        Probability of not being censored, from training patients.

    Returns
    -------
    ndarray of float64, shape (patients, times)
        Weighted squared distances.
    """
    had_event = (time_days[:, None] <= curve_days[None, :]) & (event[:, None] == 1)
    event_free = time_days[:, None] > curve_days[None, :]
    at_event = inverse_probability(censoring.at(time_days))[:, None]
    at_curve = inverse_probability(censoring.at(curve_days))[None, :]
    losses: FloatArray = had_event * survival**2 * at_event + event_free * (1 - survival) ** 2 * at_curve
    return losses


def _over_time(losses: FloatArray, curve_days: FloatArray) -> FloatArray:
    mean: FloatArray = np.trapezoid(losses, curve_days, axis=1) / (curve_days[-1] - curve_days[0])
    return mean


def _mean_metric(per_patient: FloatArray) -> Metric:
    def metric(counts: FloatArray) -> FloatArray:
        return weighted_ratio(counts @ per_patient, counts.sum(axis=1))

    return metric
