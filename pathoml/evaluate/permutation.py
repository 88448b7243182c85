"""The label-permutation control: what models reach that were fitted on shuffled outcomes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathoml.blas import one_blas_thread
from pathoml.evaluate.estimates import REFITTED, mean_over_folds
from pathoml.evaluate.risk_groups import log_rank_of_groups
from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.survival.metrics import concordance
from pathoml.units import FloatArray, IntArray


@dataclass(frozen=True)
class LinearFold:
    """One fold of a linear Cox model, whose covariates were prepared without looking at outcomes.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Of all patients of the study, as fitted on those of `fitted_on`.
    fitted_on : ndarray of int64
        Places of the patients that the model is fitted on.
    tested : ndarray of int64
        Places of those it is tested on.
    """

    design: FloatArray
    fitted_on: IntArray
    tested: IntArray


@dataclass(frozen=True)
class Control:
    """What a refitted model reaches on the true outcomes and on shuffled ones.

    Parameters
    ----------
    concordance : ndarray of float64, shape (1 + permutations,)
        Mean over folds; first of the true outcomes.
    log_rank : ndarray of float64, shape (1 + permutations,)
        Of the two risk groups; first of the true outcomes.
    """

    concordance: FloatArray
    log_rank: FloatArray

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values.

        Returns
        -------
        dict
            The observed values, the middle 95 % of shuffled ones, and p-values.
        """
        defined = self.concordance[1:][np.isfinite(self.concordance[1:])]
        low, middle, high = np.quantile(defined, [0.025, 0.5, 0.975]) if len(defined) else (np.nan,) * 3
        plain = {"observed": self.concordance[0], "null_low": low, "null_median": middle, "null_high": high}
        return {
            "permutations": len(self.concordance) - 1,
            "condition": REFITTED,
            "concordance": {name: float(value) if np.isfinite(value) else None for name, value in plain.items()},
            "p_value": permutation_p_value(self.concordance),
            "log_rank_p_value": permutation_p_value(self.log_rank),
        }


def permutation_p_value(values: FloatArray) -> float | None:
    """Return how often shuffled outcomes give as much as the true ones.

    Parameters
    ----------
    values : ndarray of float64, shape (1 + permutations,)
        First of the true outcomes; NaN where a shuffle defines none, which counts against the model.

    Returns
    -------
    float or None
        (1 + how many) / (1 + permutations): no less than what so many shuffles can show. None if the first is not defined.

    References
    ----------
    Phipson B, Smyth GK. Permutation p-values should never be zero. Stat Appl Genet Mol Biol 9 (2010) 39.
    """
    if not np.isfinite(values[0]) or len(values) < 2:
        return None
    as_much = ~(values[1:] < values[0] - 1e-12)
    return float((1 + as_much.sum()) / len(values))


def shuffles(patients: int, permutations: int, *, seed: int) -> IntArray:
    """Return whose outcome each patient is given in each shuffle.

    Parameters
    ----------
    patients : int
        How many.
    permutations : int
        How many shuffles.
    seed : int
        Of chance.

    Returns
    -------
    ndarray of int64, shape (1 + permutations, patients)
        The first row is everybody's own.
    """
    rng = np.random.default_rng(seed)
    order = np.tile(np.arange(patients), (1 + permutations, 1))
    order[1:] = rng.permuted(order[1:], axis=1)
    return order


@one_blas_thread()
def permute_linear(
    folds: Sequence[LinearFold], time_days: FloatArray, event: IntArray, *, order: IntArray, ridge: float
) -> Control:
    """Fit a linear Cox model in every fold on the true outcomes and on each shuffle of them.

    Parameters
    ----------
    folds : sequence of LinearFold
        Each patient is tested once at most.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int64, shape (patients,)
        1 event, 0 censored.
    order : ndarray of int64, shape (1 + permutations, patients)
        As `shuffles` gives it.
    ridge : float
        Penalty, as in `pathoml.survival.baselines.fit_cox`.

    Returns
    -------
    Control
        Concordance within folds, averaged, and log-rank of the groups below and above each fold's median.
    """
    # Seen from the outcomes, which stay where they are, each shuffle puts other patients in their places.
    holder = np.argsort(order, axis=1)
    values = np.full((len(folds), len(order)), np.nan)
    is_tested, is_high = np.zeros(order.shape), np.zeros(order.shape)
    for place, fold in enumerate(folds):
        member = np.zeros(len(time_days))
        member[fold.fitted_on] = 1.0
        fits = fit_cox_draws(fold.design[holder], time_days, event, counts=member[holder], ridge=ridge)
        risk = np.nan_to_num(fits.coefficients) @ fold.design.T
        cutoff = np.median(risk[:, fold.fitted_on], axis=1, keepdims=True)
        is_high[:, fold.tested] = risk[:, fold.tested] > cutoff
        is_tested[:, fold.tested] = 1.0
        for draw, given in enumerate(order[:, fold.tested]):
            values[place, draw] = concordance(time_days[given], event[given], risk[draw, fold.tested])
    statistics = _log_rank_of_tested(time_days, event, is_high, is_tested, holder)
    return Control(mean_over_folds(values), statistics)


Fit = Callable[[FloatArray, FloatArray, IntArray], FloatArray]
"""Columns, follow-up and events of the patients that are fitted on -> log hazard ratios."""


@one_blas_thread()
def permute_fits(
    fits: Sequence[tuple[LinearFold, Fit]], time_days: FloatArray, event: IntArray, *, order: IntArray
) -> Control:
    """Do the same with fits that are made one shuffle after another, such as those that choose their penalty by themselves.

    Parameters
    ----------
    fits : sequence of (LinearFold, callable)
        Of each fold; each patient is tested once at most.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int64, shape (patients,)
        1 event, 0 censored.
    order : ndarray of int64, shape (1 + permutations, patients)
        As `shuffles` gives it.

    Returns
    -------
    Control
        As of `permute_linear`.
    """
    values = np.full((len(fits), len(order)), np.nan)
    is_tested, is_high = np.zeros(order.shape), np.zeros(order.shape)
    for place, (fold, fit) in enumerate(fits):
        is_tested[:, fold.tested] = 1.0
        for draw, given in enumerate(order):
            own, tested = given[fold.fitted_on], given[fold.tested]
            risk = fold.design @ fit(fold.design[fold.fitted_on], time_days[own], event[own])
            is_high[draw, fold.tested] = risk[fold.tested] > np.median(risk[fold.fitted_on])
            values[place, draw] = concordance(time_days[tested], event[tested], risk[fold.tested])
    statistics = _log_rank_of_tested(time_days, event, is_high, is_tested, np.argsort(order, axis=1))
    return Control(mean_over_folds(values), statistics)


def _log_rank_of_tested(
    time_days: FloatArray, event: IntArray, is_high: FloatArray, is_tested: FloatArray, holder: IntArray
) -> FloatArray:
    """Compare the groups of tested patients, each with the outcome that a shuffle gives them."""
    draws = np.arange(len(holder))[:, None]
    high, tested = is_high[draws, holder], is_tested[draws, holder] == 1
    if tested.all():
        return log_rank_of_groups(time_days, event, high)
    statistics = [
        log_rank_of_groups(time_days[rows], event[rows], high[[draw]][:, rows])[0]
        for draw, rows in enumerate(tested)
    ]  # fmt: skip
    return np.array(statistics)
