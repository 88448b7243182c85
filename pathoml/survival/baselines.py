"""Cox's model with a ridge penalty, which every other model has to be compared with."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from pathoml.survival.partial_likelihood import derivatives, log_likelihood, risk_sets
from pathoml.units import FloatArray, IntArray

_ITERATIONS = 60
_HALVINGS = 20
_TOLERANCE = 1e-9


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


def fit_cox(
    design: FloatArray,
    time_days: FloatArray,
    event: IntArray,
    *,
    ridge: float | FloatArray = 1.0,
    start: FloatArray | None = None,
) -> CoxModel:
    """Fit Cox's proportional hazards by Newton's method, ties as Breslow.

    Sums over risk sets are matrix products, so that hundreds of columns and a path of penalties take seconds.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Standardised columns; no column gives a model without effect.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    ridge : float or ndarray of float64, shape (columns,), optional
        Half of this times the sum of squared coefficients is taken from the log partial likelihood.
    start : ndarray of float64, shape (columns,), optional
        Coefficients to start from, such as those of the next higher penalty.

    Returns
    -------
    CoxModel
        Its coefficients.

    References
    ----------
    Cox DR. Regression models and life-tables. J R Stat Soc B 34 (1972) 187-220.
    """
    columns = design.shape[1]
    if columns == 0:
        return CoxModel(np.zeros(0))
    rows = risk_sets(time_days, event)
    penalty = np.broadcast_to(np.asarray(ridge, dtype=np.float64), (columns,))
    sorted_design, once = design[rows.order], np.ones((1, len(design)))

    def penalised(beta: FloatArray) -> float:
        return float(log_likelihood((sorted_design @ beta)[None], once, rows)[0] - penalty @ beta**2 / 2)

    beta = np.zeros(columns) if start is None else start
    value = penalised(beta)
    for _ in range(_ITERATIONS):
        slope, curvature = derivatives(sorted_design[None], (sorted_design @ beta)[None], once, rows)
        step = _newton_step(slope[0] - penalty * beta, curvature[0] + np.diag(penalty))
        for _ in range(_HALVINGS):
            there = penalised(beta + step)
            if there >= value - 1e-12 * abs(value):
                break
            step = step / 2
        beta, value = beta + step, there
        if np.abs(step).max() < _TOLERANCE:
            break
    return CoxModel(beta)


def _newton_step(slope: FloatArray, curvature: FloatArray) -> FloatArray:
    try:
        step = cho_solve(cho_factor(curvature), slope)
    except LinAlgError:  # without penalty, columns may say the same
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
    return np.asarray(step, dtype=np.float64)
