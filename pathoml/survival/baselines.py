"""Cox's model with a ridge penalty, which every other model has to be compared with."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

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


class _Sorted(NamedTuple):
    """Patients by falling time; of each event the last row that is still at risk then."""

    order: IntArray
    events: IntArray
    last: IntArray


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
    rows = _sort(time_days, event)
    penalty = np.broadcast_to(np.asarray(ridge, dtype=np.float64), (columns,))
    sorted_design = design[rows.order]
    beta = np.zeros(columns) if start is None else start
    value = _penalised(sorted_design, rows, beta, penalty)
    for _ in range(_ITERATIONS):
        step = _newton_step(sorted_design, rows, beta, penalty)
        for _ in range(_HALVINGS):
            there = _penalised(sorted_design, rows, beta + step, penalty)
            if there >= value - 1e-12 * abs(value):
                break
            step = step / 2
        beta, value = beta + step, there
        if np.abs(step).max() < _TOLERANCE:
            break
    return CoxModel(beta)


def partial_likelihood(log_hazard: FloatArray, time_days: FloatArray, event: IntArray) -> float:
    """Return the log partial likelihood of log hazards, ties as Breslow.

    Parameters
    ----------
    log_hazard : ndarray of float64, shape (patients,)
        Higher is worse.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    Returns
    -------
    float
        0 without events; higher is better.
    """
    rows = _sort(time_days, event)
    return _log_likelihood(log_hazard[rows.order], rows)


def _sort(time_days: FloatArray, event: IntArray) -> _Sorted:
    order = np.argsort(-time_days, kind="stable")
    falling = -time_days[order]
    events = np.flatnonzero(event[order] == 1)
    return _Sorted(order, events, np.searchsorted(falling, falling[events], side="right") - 1)


def _log_likelihood(linear: FloatArray, rows: _Sorted) -> float:
    at_risk = np.logaddexp.accumulate(linear)[rows.last]
    return float((linear[rows.events] - at_risk).sum())


def _penalised(design: FloatArray, rows: _Sorted, beta: FloatArray, penalty: FloatArray) -> float:
    return _log_likelihood(design @ beta, rows) - float(penalty @ beta**2) / 2


def _newton_step(design: FloatArray, rows: _Sorted, beta: FloatArray, penalty: FloatArray) -> FloatArray:
    """Return slope over curvature of the penalised log partial likelihood.

    With p_ij the share of patient j in the hazard of those at risk at event i: the slope is the sum over events of
    x_i - sum_j p_ij x_j, the curvature sum_i (sum_j p_ij x_j x_j' - m_i m_i') with m_i = sum_j p_ij x_j; sum_i p_ij is the
    patient's cumulative hazard, so that the first part is one weighted product.
    """
    linear = design @ beta
    at_risk = np.logaddexp.accumulate(linear)[rows.last]
    hazard_steps = np.full(len(linear), -np.inf)
    np.logaddexp.at(hazard_steps, rows.last, -at_risk)
    cumulative = np.exp(linear + np.logaddexp.accumulate(hazard_steps[::-1])[::-1])
    observed = np.zeros(len(linear))
    observed[rows.events] = 1
    slope = design.T @ (observed - cumulative) - penalty * beta
    shifted = np.exp(linear - linear.max())
    sums = np.cumsum(shifted[:, None] * design, axis=0)[rows.last]
    means = sums / np.cumsum(shifted)[rows.last][:, None]
    curvature = (design * cumulative[:, None]).T @ design - means.T @ means + np.diag(penalty)
    try:
        step: FloatArray = cho_solve(cho_factor(curvature), slope)
    except LinAlgError:  # without penalty, columns may say the same
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
    return step
