"""A penalty chosen on the patients that a model is fitted on: cross-validated partial likelihood in folds of them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from pathoml.survival.baselines import fit_cox
from pathoml.survival.partial_likelihood import partial_likelihood
from pathoml.units import FloatArray, IntArray

logger = logging.getLogger(__name__)


class InnerFolds(NamedTuple):
    """Folds of the training patients in which a penalty is chosen.

    Parameters
    ----------
    number : int
        How many, stratified by event; fewer if there are fewer events.
    seed : int
        Of the dealing.
    """

    number: int
    seed: int


class RidgePath(NamedTuple):
    """Columns of all training patients, as an inner fold's own patients fill, scale and turn them, and penalties to try.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Of all of them, those left out too.
    penalties : sequence of ndarray of float64, each of shape (columns,)
        Candidates, the strongest first; as many in every inner fold.
    """

    design: FloatArray
    penalties: Sequence[FloatArray]


def ridge_scores(
    prepare: Callable[[IntArray], RidgePath], time_days: FloatArray, event: IntArray, folds: InnerFolds
) -> FloatArray:
    """Score ridge penalties by the cross-validated partial likelihood.

    For each inner fold the model is fitted without its patients, and scored by how much these add to the log partial likelihood
    of all: a likelihood of theirs alone would rest on few events.

    Parameters
    ----------
    prepare : callable
        Rows that an inner fold fits on -> columns and penalties.
    time_days : ndarray of float64, shape (patients,)
        Follow-up of the training patients.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    folds : InnerFolds
        In which candidates are judged.

    Returns
    -------
    ndarray of float64, shape (penalties,)
        Higher is better; empty where there are too few events for two folds.

    References
    ----------
    Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Stat Med 12 (1993) 2305-2314, equation 2.
    """
    found: list[list[float]] = []
    for rest in inner_training(event, folds):
        path = prepare(rest)
        beta = np.zeros(path.design.shape[1])
        scores = []
        for penalty in path.penalties:
            beta = fit_cox(path.design[rest], time_days[rest], event[rest], ridge=penalty, start=beta).coefficients
            scores.append(left_out_likelihood(path.design @ beta, time_days, event, rest))
        found.append(scores)
    return np.array(found).sum(axis=0) if found else np.zeros(0)


def left_out_likelihood(log_hazard: FloatArray, time_days: FloatArray, event: IntArray, rest: IntArray) -> float:
    """Return what the patients left out add to the log partial likelihood of those who were fitted on.

    Parameters
    ----------
    log_hazard : ndarray of float64, shape (patients,)
        Of everybody, by a model fitted on the rest.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    rest : ndarray of int64
        Rows that were fitted on.

    Returns
    -------
    float
        Higher is better.
    """
    whole = partial_likelihood(log_hazard, time_days, event)
    return whole - partial_likelihood(log_hazard[rest], time_days[rest], event[rest])


def inner_training(event: IntArray, folds: InnerFolds) -> Iterator[IntArray]:
    """Yield the training rows of each inner fold; none where there are too few events to choose anything by.

    Parameters
    ----------
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    folds : InnerFolds
        How many, and how they are dealt.

    Yields
    ------
    ndarray of int64
        Rows.
    """
    smaller = min(int(event.sum()), int(len(event) - event.sum())) or int(event.sum())
    count = min(folds.number, smaller)
    if count < 2:
        logger.warning("%d event(s) are too few to choose a penalty by: the strongest is taken", int(event.sum()))
        return
    for rest, _ in StratifiedKFold(count, shuffle=True, random_state=folds.seed).split(event, event):
        yield rest
