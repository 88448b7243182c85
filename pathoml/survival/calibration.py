"""Whether predicted probabilities are those that are observed: in the large, by groups, along a curve, and as a whole."""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc

from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.survival.draws import survival_of_draws
from pathoml.survival.pseudo_observations import survival_pseudo_observations
from pathoml.survival.weights import weighted_ratio
from pathoml.units import AnyArray, FloatArray, IntArray

_SMALLEST = 1e-12
_NEIGHBOURS = 0.75
"""Share of the patients that each point of a smooth calibration curve looks at."""


class CalibrationGroups(NamedTuple):
    """Predicted and observed probability of the event until a time, in groups of rising prediction.

    Parameters
    ----------
    of_patient : ndarray of int64, shape (patients,)
        Which group.
    predicted : ndarray of float64, shape (draws, groups)
        Mean prediction.
    observed : ndarray of float64, shape (draws, groups)
        One minus Kaplan-Meier.
    """

    of_patient: IntArray
    predicted: FloatArray
    observed: FloatArray


def calibration_groups(
    time_days: FloatArray, event: IntArray, predicted: FloatArray, counts: FloatArray, *, horizon_days: float,
    groups: int,
) -> CalibrationGroups:  # fmt: skip
    """Compare predictions with what was observed in groups of about equal size.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    predicted : ndarray of float64, shape (patients,)
        Probability of the event until the time.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn; the groups stay those of all patients.
    horizon_days : float
        The time.
    groups : int
        How many are asked for; fewer where predictions are tied.

    Returns
    -------
    CalibrationGroups
        NaN in groups nobody of whom was drawn.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, groups + 1)[1:-1]))
    of_patient = np.unique(np.searchsorted(edges, predicted, side="left"), return_inverse=True)[1]
    means, seen = [], []
    for one in range(int(of_patient.max()) + 1):
        rows = of_patient == one
        drawn = counts[:, rows]
        means.append(weighted_ratio(drawn @ predicted[rows], drawn.sum(axis=1)))
        at = survival_of_draws(time_days[rows], event[rows], drawn, np.array([horizon_days]))
        seen.append(1 - at[:, 0])
    return CalibrationGroups(of_patient, np.stack(means, axis=1), np.stack(seen, axis=1))


def observed_to_expected(
    time_days: FloatArray, event: IntArray, predicted: FloatArray, counts: FloatArray, *, horizon_days: float
) -> FloatArray:
    """Return calibration in the large: observed over predicted probability of the event until a time.

    1 is right; above 1 the model predicts too few events, below 1 too many.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    predicted : ndarray of float64, shape (patients,)
        Probability of the event until the time.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    horizon_days : float
        The time.

    Returns
    -------
    ndarray of float64, shape (draws,)
        One minus Kaplan-Meier, over the mean prediction.
    """
    observed = 1 - survival_of_draws(time_days, event, counts, np.array([horizon_days]))[:, 0]
    return weighted_ratio(observed * counts.sum(axis=1), counts @ predicted)


def calibration_slope(
    time_days: FloatArray, event: IntArray, predicted: FloatArray, counts: FloatArray, *, horizon_days: float,
    stratum: AnyArray | None = None,
) -> FloatArray:  # fmt: skip
    """Return the slope of what happened until a time on the complementary log-log of what was predicted.

    1 is right; below 1 predictions are too far apart, as those of an overfitted model are.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    predicted : ndarray of float64, shape (patients,)
        Probability of the event until the time.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    horizon_days : float
        The time; follow-up ends there.
    stratum : ndarray, shape (patients,), optional
        Strata with baseline hazards of their own, such as the folds.

    Returns
    -------
    ndarray of float64, shape (draws,)
        NaN where all predictions are equal.

    References
    ----------
    van Houwelingen HC. Validation, calibration, revision and combination of prognostic survival models. Stat Med 19 (2000)
    3401-3415.
    """
    index = complementary_log_log(predicted)
    if np.ptp(index) <= 0:
        return np.full(len(counts), np.nan)
    within = ((event == 1) & (time_days <= horizon_days)).astype(np.int64)
    fits = fit_cox_draws(
        index[:, None], np.minimum(time_days, horizon_days), within, counts=counts, stratum=stratum
    )  # fmt: skip
    return fits.coefficients[:, 0]


def complementary_log_log(probability: FloatArray) -> FloatArray:
    """Return log(-log(1 - p)): the log cumulative hazard of a probability of the event.

    Parameters
    ----------
    probability : ndarray of float64
        From 0 to 1; both ends are moved in a little.

    Returns
    -------
    ndarray of float64
        Same shape, finite.
    """
    inside = np.clip(probability, _SMALLEST, 1 - _SMALLEST)
    values: FloatArray = np.log(-np.log1p(-inside))
    return values


class CalibrationCurve(NamedTuple):
    """A smooth curve of observed against predicted probability.

    Parameters
    ----------
    predicted : ndarray of float64, shape (points,)
        Where.
    observed : ndarray of float64, shape (draws, points)
        Local linear regression of pseudo-observations.
    mean_error : float
        Mean over patients of the distance between curve and prediction (integrated calibration index).
    chance_error : ndarray of float64, shape (draws,)
        The same distance between each draw's curve and that of all patients: as much error is seen where there is none. A
        percentile interval of the error itself would be too high, since every draw adds to it.
    """

    predicted: FloatArray
    observed: FloatArray
    mean_error: float
    chance_error: FloatArray


def calibration_curve(
    time_days: FloatArray, event: IntArray, predicted: FloatArray, counts: FloatArray, *, horizon_days: float,
    points: int = 41,
) -> CalibrationCurve:  # fmt: skip
    """Draw observed against predicted probability of the event until a time as a smooth curve.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    predicted : ndarray of float64, shape (patients,)
        Probability of the event until the time.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn; pseudo-observations are those of each draw.
    horizon_days : float
        The time.
    points : int, optional
        Points of the curve, from the least to the largest prediction.

    Returns
    -------
    CalibrationCurve
        Each point looks at the nearest three quarters of the patients with tricube weights.

    References
    ----------
    Austin PC, Harrell FE, van Klaveren D. Graphical calibration curves and the integrated calibration index (ICI) for
    survival models. Stat Med 39 (2020) 2714-2742.
    """
    grid = np.unique(np.quantile(predicted, np.linspace(0, 1, points)))
    happened = 1 - survival_pseudo_observations(time_days, event, counts, at_days=horizon_days)
    distance = np.abs(predicted[None, :] - grid[:, None])
    reach = np.quantile(distance, _NEIGHBOURS, axis=1, keepdims=True)
    reach = np.maximum(reach, 1e-9) * 1.0001
    kernel = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    offset = predicted[None, :] - grid[:, None]
    target = counts * happened
    zeroth, first, second = (counts @ (kernel * offset**power).T for power in (0, 1, 2))
    level, tilt = target @ kernel.T, target @ (kernel * offset).T
    determinant = zeroth * second - first**2
    local_mean = weighted_ratio(level, zeroth)
    has_slope = determinant > 1e-9 * np.maximum(zeroth, 1e-300) ** 2 * reach.T**2
    line = np.divide(second * level - first * tilt, determinant, out=local_mean.copy(), where=has_slope)
    observed = np.clip(line, 0, 1)
    spread = np.stack([np.interp(predicted, grid, row) for row in np.eye(len(grid))], axis=1)
    curves = observed @ spread.T
    mean_error = float(np.average(np.abs(curves[0] - predicted), weights=counts[0]))
    return CalibrationCurve(grid, observed, mean_error, np.abs(curves - curves[0]).mean(axis=1))


class DCalibration(NamedTuple):
    """Whether predicted survival probabilities at the time of the event are spread evenly from 0 to 1.

    Parameters
    ----------
    share : ndarray of float64, shape (draws, bins)
        Of the patients, in bins of equal width from 0; a tenth each is right.
    statistic : float
        Chi-squared of all patients.
    p_value : float
        Small: the predicted distributions are wrong somewhere.
    """

    share: FloatArray
    statistic: float
    p_value: float


def d_calibration(
    survival_at_end: FloatArray, event: IntArray, counts: FloatArray, *, bins: int = 10
) -> DCalibration:  # fmt: skip
    """Test the distribution of predicted survival probabilities at the end of each patient's follow-up.

    Parameters
    ----------
    survival_at_end : ndarray of float64, shape (patients,)
        Predicted probability of no event until the patient's own follow-up ended.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored; the event of a censored patient is spread over all that is still to come.
    counts : ndarray of float64, shape (draws, patients)
        How often each patient was drawn; the first draw is everybody once.
    bins : int, optional
        Number of bins.

    Returns
    -------
    DCalibration
        Shares and test.

    References
    ----------
    Haider H, Hoehn B, Davis S, Greiner R. Effective ways to build and evaluate individual survival distributions. J Mach
    Learn Res 21 (2020) 85, section 3.5.
    """
    lower = np.arange(bins) / bins
    probability = np.clip(survival_at_end, 0, 1)[:, None]
    own = np.minimum((probability * bins).astype(np.int64), bins - 1) == np.arange(bins)
    below = np.clip(probability - lower, 0, 1 / bins)
    spread = np.divide(below, probability, out=np.zeros_like(below), where=probability > 0)
    spread[(probability <= 0)[:, 0], 0] = 1.0
    parts = np.where((event == 1)[:, None], own.astype(np.float64), spread)
    found = counts @ parts
    total = found.sum(axis=1, keepdims=True)
    expected = float(total[0, 0]) / bins
    statistic = float(((found[0] - expected) ** 2).sum() / expected)
    return DCalibration(found / total, statistic, float(chdtrc(bins - 1, statistic)))
