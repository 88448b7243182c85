"""Metrics of prognosis that a bootstrap can recompute a thousand times.

Each metric is a ratio of two sums over pairs of patients, or over patients. The matrix of pairs is laid out once;
a bootstrap sample is a vector of how often each patient was drawn, and all samples are computed in one matrix product.
"""

from collections.abc import Callable

import numpy as np

from pathoml.survival.curves import StepFunction, kaplan_meier
from pathoml.survival.quick_concordance import concordant_pairs
from pathoml.units import FloatArray, IntArray

Metric = Callable[[FloatArray], FloatArray]
"""Counts of how often each patient is drawn, shape (samples, patients) -> one value a sample, NaN where undefined."""

TIED_RISK = 1e-8
"""Risks that differ by no more count as equal, as in scikit-survival."""


def harrell_metric(time_days: FloatArray, event: IntArray, risk: FloatArray) -> Metric:
    """Prepare Harrell's concordance index.

    Of two patients of whom it is known who had the event first, how often did the one with the higher risk have it
    first? 0.5 is guessing, 1 is perfect. Ties in risk count one half.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.

    Returns
    -------
    Metric
        To be called with bootstrap counts; all ones give the index itself.

    References
    ----------
    Harrell FE, Lee KL, Mark DB. Multivariable prognostic models. Stat Med 15 (1996) 361-387.
    """
    sums = harrell_pairs(time_days, event, risk)
    return lambda counts: _ratio(*sums(counts))


def harrell_pairs(
    time_days: FloatArray, event: IntArray, risk: FloatArray
) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
    """Prepare the two sums whose ratio is Harrell's concordance; those of several hospitals can be added.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.

    Returns
    -------
    callable
        Counts of how often each patient is drawn, shape (samples, patients) -> concordant pairs (ties count one half) and
        comparable pairs, each of shape (samples,).
    """
    comparable = _comparable(time_days, event)
    concordant = comparable * _order_score(risk, risk)

    def sums(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        return ((counts @ concordant) * counts).sum(axis=1), ((counts @ comparable) * counts).sum(axis=1)

    return sums


def concordance(time_days: FloatArray, event: IntArray, risk: FloatArray) -> float:
    """Return Harrell's concordance index itself, as `harrell_metric` gives it.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.

    Returns
    -------
    float
        NaN where no pair can be compared.
    """
    concordant, pairs = concordant_pairs(time_days, event, risk, tied=TIED_RISK)
    return concordant / pairs if pairs else float("nan")


def ipcw_metric(
    time_days: FloatArray, event: IntArray, risk: FloatArray, censoring: StepFunction, *, tau_days: float
) -> Metric:
    """Prepare Uno's concordance index, whose limit does not depend on the censoring.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    censoring : StepFunction
        Probability of not being censored, from training patients.
    tau_days : float
        Events at or after this time do not count; it should lie within the training follow-up.

    Returns
    -------
    Metric
        To be called with bootstrap counts.

    References
    ----------
    Uno H, Cai T, Pencina MJ, D'Agostino RB, Wei LJ. On the C-statistics for evaluating overall adequacy of risk
    prediction procedures with censored survival data. Stat Med 30 (2011) 1105-1117.
    """
    weight = np.where(time_days < tau_days, inverse_censoring(time_days, event, censoring) ** 2, 0.0)
    pairs = _comparable(time_days, event) * weight[:, None]
    return _pair_ratio(pairs * _order_score(risk, risk), pairs)


def auc_metric(
    time_days: FloatArray, event: IntArray, risk: FloatArray, censoring: StepFunction, *, horizon_days: float
) -> Metric:
    """Prepare the cumulative/dynamic area under the ROC curve at one time.

    How well does the risk tell patients who had the event until then from those who were still free of it?

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    censoring : StepFunction
        Probability of not being censored, from training patients.
    horizon_days : float
        The time.

    Returns
    -------
    Metric
        To be called with bootstrap counts.

    References
    ----------
    Uno H, Cai T, Tian L, Wei LJ. Evaluating prediction rules for t-year survivors with censored regression models.
    J Am Stat Assoc 102 (2007) 527-537.
    """
    case = np.where(time_days <= horizon_days, inverse_censoring(time_days, event, censoring), 0.0)
    control = (time_days > horizon_days).astype(np.float64)
    pairs = case[:, None] * control[None, :]
    return _pair_ratio(pairs * _order_score(risk, risk), pairs)


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
    had_event = (time_days[:, None] <= curve_days[None, :]) & (event[:, None] == 1)
    event_free = time_days[:, None] > curve_days[None, :]
    at_event = _inverse(censoring.at(time_days))[:, None]
    at_curve = _inverse(censoring.at(curve_days))[None, :]
    loss = had_event * survival**2 * at_event + event_free * (1 - survival) ** 2 * at_curve
    per_patient = np.trapezoid(loss, curve_days, axis=1) / (curve_days[-1] - curve_days[0])

    def metric(counts: FloatArray) -> FloatArray:
        return _ratio(counts @ per_patient, counts.sum(axis=1))

    return metric


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
    return np.where(event == 1, _inverse(censoring.at(time_days)), 0.0)


def restricted_days(time_days: FloatArray, event: IntArray, *, share: float = 0.1) -> float:
    """Return the last time at which enough patients are still followed for a metric to mean something.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Training patients' follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    share : float, optional
        Least probability of still being followed without an event and without censoring.

    Returns
    -------
    float
        Days; at most the last training event.
    """
    followed = kaplan_meier(time_days, np.ones_like(event))
    enough = followed.days[followed.values >= share]
    last_event = float(time_days[event == 1].max())
    return min(last_event, float(enough[-1])) if len(enough) else last_event


def _comparable(time_days: FloatArray, event: IntArray) -> FloatArray:
    """Return [i, j] 1 where i had the event and j is known to have been free of it for longer."""
    later = time_days[None, :] > time_days[:, None]
    censored_then = (time_days[None, :] == time_days[:, None]) & (event[None, :] == 0)
    pairs: FloatArray = ((event[:, None] == 1) & (later | censored_then)).astype(np.float64)
    return pairs


def _order_score(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return 1 where the first risk is higher, 0.5 where they are equal, 0 where it is lower."""
    difference = first[:, None] - second[None, :]
    return np.where(np.abs(difference) <= TIED_RISK, 0.5, (difference > 0).astype(np.float64))


def _pair_ratio(numerator: FloatArray, denominator: FloatArray) -> Metric:
    def metric(counts: FloatArray) -> FloatArray:
        above: FloatArray = ((counts @ numerator) * counts).sum(axis=1)
        below: FloatArray = ((counts @ denominator) * counts).sum(axis=1)
        return _ratio(above, below)

    return metric


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    ratio: FloatArray = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def _inverse(probability: FloatArray) -> FloatArray:
    inverse: FloatArray = np.divide(1.0, probability, out=np.zeros_like(probability), where=probability > 0)
    return inverse
