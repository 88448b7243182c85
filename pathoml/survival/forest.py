"""A random survival forest, fitted by scikit-survival."""

from dataclasses import dataclass

import numpy as np
from sksurv.ensemble import RandomSurvivalForest
from sksurv.util import Surv

from pathoml.units import FloatArray, IntArray


@dataclass(frozen=True)
class ForestPrediction:
    """What a forest says of patients.

    Parameters
    ----------
    risk : ndarray of float64, shape (patients,)
        Expected number of events had all training patients been like this one; higher is worse.
    survival : ndarray of float64, shape (patients, times)
        Probability of no event until then.
    """

    risk: FloatArray
    survival: FloatArray


def fit_forest(
    design: FloatArray, time_days: FloatArray, event: IntArray, *, trees: int, smallest_leaf: int, seed: int
) -> RandomSurvivalForest:
    """Fit a random survival forest.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Training patients; one column or more.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    trees : int
        How many.
    smallest_leaf : int
        Fewest patients in a leaf.
    seed : int
        Of the draws of patients and columns.

    Returns
    -------
    RandomSurvivalForest
        Fitted.

    References
    ----------
    Ishwaran H, Kogalur UB, Blackstone EH, Lauer MS. Random survival forests. Ann Appl Stat 2 (2008) 841-860.
    """
    forest = RandomSurvivalForest(
        n_estimators=trees, min_samples_leaf=smallest_leaf, min_samples_split=2 * smallest_leaf, max_features="sqrt",
        random_state=seed, n_jobs=1,
    )  # fmt: skip
    forest.fit(design, Surv.from_arrays(event.astype(bool), time_days))
    return forest


def ask_forest(forest: RandomSurvivalForest, design: FloatArray, curve_days: FloatArray) -> ForestPrediction:
    """Predict risk and survival.

    Parameters
    ----------
    forest : RandomSurvivalForest
        Fitted.
    design : ndarray of float64, shape (patients, columns)
        The same columns as in fitting.
    curve_days : ndarray of float64, shape (times,)
        When survival is wanted; after the last follow-up of training the last value holds.

    Returns
    -------
    ForestPrediction
        Of these patients.
    """
    curves = np.asarray(forest.predict_survival_function(design, return_array=True), dtype=np.float64)
    steps = np.searchsorted(forest.unique_times_, curve_days, side="right")
    survival = np.concatenate([np.ones((len(design), 1)), curves], axis=1)[:, steps]
    return ForestPrediction(
        np.asarray(forest.predict(design), dtype=np.float64), np.minimum.accumulate(survival, axis=1)
    )
