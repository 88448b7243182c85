"""Survival curves of a frozen model brought into agreement with other patients: their level, or level and spread."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pathoml.survival.calibration import complementary_log_log
from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.survival.curves import breslow_hazard
from pathoml.units import FloatArray, IntArray

Method = Literal["level", "slope"]


@dataclass(frozen=True)
class Recalibration:
    """What is done to survival curves.

    Parameters
    ----------
    method : str
        ``level``: the cumulative hazard is multiplied by one number. ``slope``: the log cumulative hazard at a reference day is
        multiplied by the slope, and the baseline hazard is estimated anew.
    level : float
        Logarithm of observed over expected events.
    slope : float
        1 for the method ``level``.
    reference_day : float
        Where predictions are told apart; 0 for the method ``level``.
    hazard : tuple of float
        Baseline cumulative hazard on the days of the curves; empty for the method ``level``.
    """

    method: Method
    level: float
    slope: float
    reference_day: float
    hazard: tuple[float, ...]

    def apply(self, survival: FloatArray, curve_days: FloatArray) -> FloatArray:
        """Return recalibrated survival curves.

        Parameters
        ----------
        survival : ndarray of float64, shape (patients, times)
            As the model predicts them.
        curve_days : ndarray of float64, shape (times,)
            When.

        Returns
        -------
        ndarray of float64, shape (patients, times)
            Same days.
        """
        if self.method == "level":
            curves: FloatArray = survival ** math.exp(self.level)
            return curves
        index = _index(survival, curve_days, self.reference_day)
        return np.exp(-np.exp(np.log(np.maximum(self.hazard, 1e-300))[None, :] + self.slope * index[:, None]))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values.

        Returns
        -------
        dict
            One key a field.
        """
        return {**vars(self), "hazard": list(self.hazard)}


def fit_level(event: IntArray, survival_at_end: FloatArray) -> Recalibration:
    """Recalibrate in the large: as many events are expected as were observed.

    Parameters
    ----------
    event : ndarray of int64, shape (patients,)
        1 event, 0 censored.
    survival_at_end : ndarray of float64, shape (patients,)
        Predicted probability of no event until the end of each patient's follow-up.

    Returns
    -------
    Recalibration
        Of the method ``level``; unchanged where nobody has an event.

    References
    ----------
    Crowson CS, Atkinson EJ, Therneau TM. Assessing calibration of prognostic risk scores. Stat Methods Med Res 25 (2016)
    1692-1706.
    """
    expected = float(-np.log(np.maximum(survival_at_end, 1e-300)).sum())
    observed = float(event.sum())
    level = math.log(observed / expected) if observed > 0 and expected > 0 else 0.0
    return Recalibration("level", level, 1.0, 0.0, ())


def fit_slope(
    time_days: FloatArray, event: IntArray, survival: FloatArray, curve_days: FloatArray, *, reference_day: float
) -> Recalibration:
    """Recalibrate level and spread: a Cox regression on what was predicted, with a new baseline hazard.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int64, shape (patients,)
        1 event, 0 censored.
    survival : ndarray of float64, shape (patients, times)
        Predicted curves.
    curve_days : ndarray of float64, shape (times,)
        When.
    reference_day : float
        Where predictions are told apart.

    Returns
    -------
    Recalibration
        Of the method ``slope``.
    """
    index = _index(survival, curve_days, reference_day)
    slope = float(fit_cox_draws(index[:, None], time_days, event).coefficients[0, 0])
    slope = slope if math.isfinite(slope) else 1.0
    steps = breslow_hazard(time_days, event, slope * index)
    hazard = tuple(steps.at(curve_days).tolist())
    return Recalibration("slope", 0.0, slope, reference_day, hazard)


def _index(survival: FloatArray, curve_days: FloatArray, day: float) -> FloatArray:
    """Return the log cumulative hazard at a day of the grid."""
    return complementary_log_log(1 - survival[:, int(np.argmin(np.abs(curve_days - day)))])
