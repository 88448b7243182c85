"""Metrics of prognosis that a bootstrap can recompute a thousand times.

Each metric is a ratio of two sums over pairs of patients, or over patients. The matrix of pairs is laid out once;
a bootstrap sample is a vector of how often each patient was drawn, and all samples are computed in one matrix product.
"""

from collections.abc import Callable

import numpy as np

from pathoml.survival.curves import StepFunction, kaplan_meier
from pathoml.survival.quick_concordance import concordant_pairs
from pathoml.survival.weights import inverse_censoring, weighted_ratio
from pathoml.units import AnyArray, FloatArray, IntArray

Metric = Callable[[FloatArray], FloatArray]
"""Counts of how often each patient is drawn, shape (samples, patients) -> one value a sample, NaN where undefined."""

TIED_RISK = 1e-8
"""Risks that differ by no more count as equal, as in scikit-survival."""


def harrell_metric(
    time_days: FloatArray, event: IntArray, risk: FloatArray, *, stratum: AnyArray | None = None
) -> Metric:  # fmt: skip
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
    stratum : ndarray, shape (patients,), optional
        Only patients of one stratum, such as a hospital, are compared.

    Returns
    -------
    Metric
        To be called with bootstrap counts; all ones give the index itself.

    References
    ----------
    Harrell FE, Lee KL, Mark DB. Multivariable prognostic models. Stat Med 15 (1996) 361-387.
    """
    comparable = _within(stratum, _comparable(time_days, event))
    return _pair_ratio(comparable * _order_score(risk, risk), comparable)


def concordance_sums(
    time_days: FloatArray, event: IntArray, risk: FloatArray, counts: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return what Harrell's concordance is the ratio of, so that it can be taken over several groups of patients together.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    risk : ndarray of float64, shape (patients,)
        Higher is worse.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.

    Returns
    -------
    tuple of ndarray of float64, shape (draws,)
        Pairs in the right order, ties as one half; and all comparable pairs.
    """
    comparable = _comparable(time_days, event)
    won = comparable * _order_score(risk, risk)
    return _pair_sum(counts, won), _pair_sum(counts, comparable)


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
    time_days: FloatArray, event: IntArray, risk: FloatArray, censoring: StepFunction, *, tau_days: float,
    stratum: AnyArray | None = None,
) -> Metric:  # fmt: skip
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
    stratum : ndarray, shape (patients,), optional
        Only patients of one stratum, such as a hospital, are compared.

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
    pairs = _within(stratum, _comparable(time_days, event)) * weight[:, None]
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


def _within(stratum: AnyArray | None, pairs: FloatArray) -> FloatArray:
    """Keep only pairs of one stratum."""
    return pairs if stratum is None else pairs * (stratum[:, None] == stratum[None, :])


def _order_score(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return 1 where the first risk is higher, 0.5 where they are equal, 0 where it is lower."""
    difference = first[:, None] - second[None, :]
    return np.where(np.abs(difference) <= TIED_RISK, 0.5, (difference > 0).astype(np.float64))


def _pair_ratio(numerator: FloatArray, denominator: FloatArray) -> Metric:
    def metric(counts: FloatArray) -> FloatArray:
        return weighted_ratio(_pair_sum(counts, numerator), _pair_sum(counts, denominator))

    return metric


def _pair_sum(counts: FloatArray, pairs: FloatArray) -> FloatArray:
    total: FloatArray = ((counts @ pairs) * counts).sum(axis=1)
    return total
