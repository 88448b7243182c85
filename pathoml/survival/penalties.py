"""Penalised Cox models whose penalty is chosen by cross-validated partial likelihood on the patients they are fitted on."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from pathoml.survival.baselines import CoxModel, fit_cox
from pathoml.survival.inner_folds import InnerFolds, RidgePath, inner_training, left_out_likelihood, ridge_scores
from pathoml.units import FloatArray, IntArray

_STRENGTHS_OF_PATH = 30
_WEAKEST_OF_PATH = 0.05
_BARELY_PENALISED = 0.01


def fit_ridge(
    design: FloatArray,
    time_days: FloatArray,
    event: IntArray,
    *,
    penalties: Sequence[FloatArray],
    folds: InnerFolds,
) -> CoxModel:
    """Fit ridge Cox with the penalty of the highest cross-validated partial likelihood.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Training patients.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    penalties : sequence of ndarray of float64, each of shape (columns,)
        To choose from, the strongest first.
    folds : InnerFolds
        In which the penalty is chosen.

    Returns
    -------
    CoxModel
        Fitted on all patients.

    References
    ----------
    Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Stat Med 12 (1993) 2305-2314.
    """
    path = RidgePath(design, penalties)
    scores = ridge_scores(lambda _: path, time_days, event, folds)
    best = int(scores.argmax()) if len(scores) else 0
    model = CoxModel(np.zeros(design.shape[1]))
    for penalty in penalties[: best + 1]:
        model = fit_cox(design, time_days, event, ridge=penalty, start=model.coefficients)
    return model


def fit_elastic_net(
    design: FloatArray, time_days: FloatArray, event: IntArray, *, free: FloatArray, lasso_share: float, folds: InnerFolds
) -> CoxModel:  # fmt: skip
    """Fit an elastic-net Cox model with the penalty of the highest cross-validated partial likelihood.

    Parameters
    ----------
    design : ndarray of float64, shape (patients, columns)
        Training patients, standardised columns.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    free : ndarray of float64, shape (columns,)
        1 for columns that are hardly penalised, such as clinical ones; else 0.
    lasso_share : float
        Share of the lasso in the penalty; the ridge has the rest.
    folds : InnerFolds
        In which the penalty is chosen.

    Returns
    -------
    CoxModel
        All coefficients 0 where no penalty that leaves one does better.

    References
    ----------
    Simon N, Friedman J, Hastie T, Tibshirani R. Regularization paths for Cox's proportional hazards model via coordinate
    descent. J Stat Softw 39 (2011) 1-13.
    """
    factor = np.where(free == 1, _BARELY_PENALISED, 1.0)
    tried = _strengths(design[:, free != 1], time_days, event, lasso_share)
    strengths, path = _elastic_path(design, time_days, event, lasso_share, factor, tried)
    scores = np.zeros(len(strengths))
    for rest in inner_training(event, folds):
        _, inner = _elastic_path(design[rest], time_days[rest], event[rest], lasso_share, factor, strengths)
        for index in range(len(strengths)):
            coefficients = inner[:, min(index, inner.shape[1] - 1)]
            scores[index] += left_out_likelihood(design @ coefficients, time_days, event, rest)
    return CoxModel(np.asarray(path[:, int(scores.argmax())], dtype=np.float64))


def _elastic_path(
    design: FloatArray, time_days: FloatArray, event: IntArray, lasso_share: float, factor: FloatArray,
    strengths: FloatArray,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Return the penalties, falling, and the coefficients at each, shape (columns, penalties)."""
    model = CoxnetSurvivalAnalysis(l1_ratio=lasso_share, alphas=strengths, penalty_factor=factor, normalize=False)
    _fit_path(model, design, time_days, event)
    return np.asarray(model.alphas_, dtype=np.float64), np.asarray(model.coef_, dtype=np.float64)


def _strengths(design: FloatArray, time_days: FloatArray, event: IntArray, lasso_share: float) -> FloatArray:
    """Return penalties from the least that leaves no penalised column, down.

    Columns that are hardly penalised are left out of this: the strength that drops them too is so high that a path which begins
    there ends before any other column has entered.
    """
    model = CoxnetSurvivalAnalysis(l1_ratio=lasso_share, n_alphas=2, alpha_min_ratio=0.99, normalize=False)
    _fit_path(model, design, time_days, event)
    return np.geomspace(1.0, _WEAKEST_OF_PATH, _STRENGTHS_OF_PATH) * float(model.alphas_[0])


def _fit_path(model: CoxnetSurvivalAnalysis, design: FloatArray, time_days: FloatArray, event: IntArray) -> None:
    with warnings.catch_warnings():
        # A path that begins with coefficients of 0, or ends early, is what the search is about.
        warnings.filterwarnings("ignore", message="all coefficients are zero")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(design, Surv.from_arrays(event.astype(bool), time_days))
