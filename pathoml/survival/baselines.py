"""Models that every deep one has to be compared with."""

from dataclasses import dataclass

import numpy as np
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pathoml.units import FloatArray, IntArray


@dataclass(frozen=True)
class CoxModel:
    """A fitted linear Cox model.

    Parameters
    ----------
    coefficients : ndarray of float64, shape (columns,)
        Log hazard ratio of one unit of each column.
    """

    coefficients: FloatArray

    def log_hazard(self, design: FloatArray) -> FloatArray:
        """Return the log hazard of patients.

        Parameters
        ----------
        design : ndarray of float64, shape (patients, columns)
            The same columns as in fitting.

        Returns
        -------
        ndarray of float64, shape (patients,)
            Higher is worse; 0 is a patient whose columns are all 0.
        """
        log_hazard: FloatArray = design @ self.coefficients
        return log_hazard


def fit_cox(design: FloatArray, time_days: FloatArray, event: IntArray, *, ridge: float = 1.0) -> CoxModel:
    """Fit Cox's proportional hazards by scikit-survival, ties as Breslow.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Standardised columns; no column gives a model without effect.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    ridge : float, optional
        Half of this times the sum of squared coefficients is taken from the log partial likelihood.

    Returns
    -------
    CoxModel
        Its coefficients.

    References
    ----------
    Cox DR. Regression models and life-tables. J R Stat Soc B 34 (1972) 187-220.
    """
    if design.shape[1] == 0:
        return CoxModel(np.zeros(0))
    model = CoxPHSurvivalAnalysis(alpha=ridge, ties="breslow")
    model.fit(design, Surv.from_arrays(event.astype(bool), time_days))
    return CoxModel(np.asarray(model.coef_, dtype=np.float64))
