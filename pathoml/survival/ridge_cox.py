"""Cox's model with a ridge penalty on each column, for many penalties in a row, and how well each foretells patients left out."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pathoml.units import BoolArray, FloatArray, IntArray

_MOST_STEPS = 100
_ENOUGH = 1e-10
"""Newton's decrement, in units of the log likelihood, at which a fit is done."""


class PartialLikelihood:
    """Cox's log partial likelihood of some patients, ties as Breslow, with its derivatives.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        What the log hazard is linear in.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.

    References
    ----------
    Cox DR. Regression models and life-tables. J R Stat Soc B 34 (1972) 187-220. Breslow N. Covariance analysis of censored
    survival data. Biometrics 30 (1974) 89-99.
    """

    def __init__(self, design: FloatArray, time_days: FloatArray, event: IntArray) -> None:
        order = np.argsort(-time_days, kind="stable")  # those at risk at a time are then the first rows
        self._order, self._design, self._event = order, design[order], event[order].astype(np.float64)
        backwards = -time_days[order]
        self._last = np.searchsorted(backwards, backwards, side="right") - 1
        self._first = np.searchsorted(backwards, backwards, side="left")

    @property
    def columns(self) -> int:
        """Columns of the design."""
        return int(self._design.shape[1])

    def value(self, coefficients: FloatArray) -> float:
        """Return the log partial likelihood.

        Parameters
        ----------
        coefficients : ndarray of float64, shape (columns,)
            Log hazard ratios.

        Returns
        -------
        float
            At most 0.
        """
        log_hazard = self._design @ coefficients
        at_risk = np.logaddexp.accumulate(log_hazard)[self._last] if len(log_hazard) else log_hazard
        return float(self._event @ (log_hazard - at_risk))

    def derivatives(self, coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return gradient and information (minus the second derivatives).

        Parameters
        ----------
        coefficients : ndarray of float64, shape (columns,)
            Log hazard ratios.

        Returns
        -------
        tuple of ndarray
            Of shapes (columns,) and (columns, columns).
        """
        log_hazard = self._design @ coefficients
        hazard = np.exp(log_hazard - log_hazard.max())
        at_risk = np.cumsum(hazard)[self._last]
        # Compensator: what each patient was expected to have had by the end of follow-up.
        expected = hazard * np.cumsum((self._event / at_risk)[::-1])[::-1][self._first]
        gradient: FloatArray = self._design.T @ (self._event - expected)
        is_event = self._event > 0
        sums = np.cumsum(hazard[:, None] * self._design, axis=0)[self._last[is_event]]
        means = sums / at_risk[is_event, None]
        information: FloatArray = (self._design * expected[:, None]).T @ self._design - means.T @ means
        return gradient, information


def fit_ridge(
    likelihood: PartialLikelihood, penalties: FloatArray, start: FloatArray | None = None
) -> FloatArray:  # fmt: skip
    """Maximise the log partial likelihood less half the sum of penalty times squared coefficient, by Newton's method.

    Parameters
    ----------
    likelihood : PartialLikelihood
        Of the patients.
    penalties : ndarray of float64, shape (columns,)
        Above 0.
    start : ndarray of float64, shape (columns,), optional
        Where to begin; default: 0.

    Returns
    -------
    ndarray of float64, shape (columns,)
        Coefficients.

    Raises
    ------
    RuntimeError
        If the maximum was not found, which with penalties above 0 is a mistake of this function.

    References
    ----------
    Verweij PJM, van Houwelingen HC. Penalized likelihood in Cox regression. Stat Med 13 (1994) 2427-2436.
    """
    coefficients = np.zeros(likelihood.columns) if start is None else start

    def penalised(at: FloatArray) -> float:
        return likelihood.value(at) - 0.5 * float(penalties @ at**2)

    value = penalised(coefficients)
    for _ in range(_MOST_STEPS):
        gradient, information = likelihood.derivatives(coefficients)
        gradient -= penalties * coefficients
        step = np.linalg.solve(information + np.diag(penalties), gradient)
        decrement = float(step @ gradient)
        if decrement < _ENOUGH:
            return coefficients + step
        length = 1.0
        while penalised(coefficients + length * step) < value + 1e-4 * length * decrement and length > 1e-8:
            length /= 2
        if length <= 1e-8:  # as near as rounding allows
            return coefficients
        coefficients = coefficients + length * step
        value = penalised(coefficients)
    raise RuntimeError(f"no maximum of Cox's penalised likelihood after {_MOST_STEPS} steps")


def ridge_path(likelihood: PartialLikelihood, penalties: Sequence[FloatArray]) -> list[FloatArray]:
    """Fit several penalties, each from where the one before ended.

    Parameters
    ----------
    likelihood : PartialLikelihood
        Of the patients.
    penalties : sequence of ndarray of float64, each of shape (columns,)
        Best from strong to weak.

    Returns
    -------
    list of ndarray of float64, each of shape (columns,)
        Coefficients, in the order of penalties.
    """
    fitted: list[FloatArray] = []
    for one in penalties:
        fitted.append(fit_ridge(likelihood, one, fitted[-1] if fitted else None))
    return fitted


class InnerSplit(NamedTuple):
    """Some patients in, the others out.

    Parameters
    ----------
    kept : ndarray of int64
        Rows that transforms and model are fitted on.
    design : ndarray of float64, shape (patients, columns)
        What those transforms make of everyone.
    is_searched : ndarray of bool, shape (columns,)
        Columns that the searched penalty is put on.
    """

    kept: IntArray
    design: FloatArray
    is_searched: BoolArray


def cross_validated_likelihoods(
    splits: Iterable[InnerSplit], outcome: tuple[FloatArray, IntArray], searched: FloatArray, others: float
) -> FloatArray:
    """Score penalties by how well models fitted with them foretell the patients that are out.

    For each split the model is fitted without its patients, and scored by how much these add to the log partial likelihood
    of all: a likelihood of theirs alone would rest on few events.

    Parameters
    ----------
    splits : iterable of InnerSplit
        Together each patient is out once.
    outcome : tuple of ndarray
        Days, and 1 event or 0 censored, of all rows.
    searched : ndarray of float64
        Penalties, from strong to weak.
    others : float
        Penalty of columns that are not searched.

    Returns
    -------
    ndarray of float64, of the shape of searched
        Sums over the splits; the highest is best.

    References
    ----------
    Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Stat Med 12 (1993) 2305-2314, equation 2.
    """
    time_days, event = outcome
    scores = np.zeros(len(searched))
    for kept, design, is_searched in splits:
        own = PartialLikelihood(design[kept], time_days[kept], event[kept])
        everyone = PartialLikelihood(design, time_days, event)
        fitted = ridge_path(own, [np.where(is_searched, one, others) for one in searched])
        scores += [everyone.value(one) - own.value(one) for one in fitted]
    return scores
