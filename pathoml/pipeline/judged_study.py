"""What the evaluation of a study needs besides its predictions: covariates, mean features, and models fitted on shuffles."""

import tempfile
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.baselines import BaselineContext, PenalisedCox, mean_of_bags, ridge_baselines
from pathoml.covariates import ReducedCovariate, fit_covariates
from pathoml.cross_validation import predict_fold
from pathoml.evaluate import Background
from pathoml.evaluate.fold_metrics import fold_concordance
from pathoml.evaluate.permutation import Control, Fit, LinearFold, permute_fits, permute_linear, shuffles
from pathoml.evaluate.risk_groups import log_rank_of_groups
from pathoml.evaluate.scheme import build_scheme
from pathoml.fold_fitting import FitPlan, fit_folds
from pathoml.mil.patients import load_features
from pathoml.part_shares import read_part_shares
from pathoml.pipeline.study import Study
from pathoml.predictions import join_predictions
from pathoml.splits import Fold
from pathoml.train import TrainingData
from pathoml.units import FloatArray


def background_of(study: Study, slide_ids: Set[str]) -> Background:
    """Return covariates and mean features of the patients of a study, and what parts of its model say of them.

    Parameters
    ----------
    study : Study
        With the patients that could be used.
    slide_ids : set of str
        The slides that the run has used.

    Returns
    -------
    Background
        With features if the study has slides and their bags are still there, and with the shares of the model's parts.
    """
    cohort = study.cohort
    means = bag_means_of(study, slide_ids)
    features = None
    if means:
        none = np.full(len(next(iter(means.values()))), np.nan)
        features = np.stack([means.get(patient, none) for patient in cohort.patient_id.tolist()])
    shares = read_part_shares(study.folder.part_shares)
    return Background(cohort.patient_id, cohort.covariates, study.config.cohort.covariates, features, shares)


def bag_means_of(study: Study, slide_ids: Set[str]) -> dict[str, FloatArray]:
    """Return the mean tile of each patient, over all slides that the run has used and whose bags are still there.

    Parameters
    ----------
    study : Study
        With the patients that could be used.
    slide_ids : set of str
        The slides that the run has used.

    Returns
    -------
    dict of str to ndarray of float64, each of shape (dim,)
        Empty without slides, or without bags: what needs them is then left out.
    """
    slides = study.config.slides
    there = [] if slides is None else sorted(one for one in slide_ids if (slides.bags / f"{one}.h5").is_file())
    if slides is None or not there:
        return {}
    return mean_of_bags(load_features(study.cohort, slides.bags, there))


def permute_clinical(study: Study, folds: Sequence[Fold]) -> dict[str, Any]:
    """Fit the clinical Cox model of one scheme's folds on shuffled outcomes.

    Parameters
    ----------
    study : Study
        With the patients that the folds name.
    folds : sequence of Fold
        Of one scheme.

    Returns
    -------
    dict
        As `pathoml.evaluate.permutation.Control.to_json`.
    """
    cohort, settings = study.cohort, study.config.evaluate
    clinical = tuple(one for one in study.config.cohort.covariates if not isinstance(one, ReducedCovariate))
    linear = []
    for fold in folds:
        fitted_on = cohort.rows_of((*fold.train, *fold.validation))
        transform = fit_covariates(clinical, cohort.covariates.iloc[fitted_on])
        linear.append(LinearFold(transform.apply(cohort.covariates), fitted_on, cohort.rows_of(fold.test)))
    order = shuffles(len(cohort), settings.permutations, seed=settings.seed)
    event = (cohort.event == 1).astype(np.int64)
    return permute_linear(
        linear, cohort.time_days, event, order=order, ridge=study.config.train.covariate_ridge
    ).to_json()


def permute_ridge(study: Study, folds: Sequence[Fold], slide_ids: Set[str]) -> dict[str, Any]:
    """Fit every ridge baseline of one scheme's folds on shuffled outcomes, penalties chosen anew each time.

    Parameters
    ----------
    study : Study
        With the patients that the folds name.
    folds : sequence of Fold
        Of one scheme.
    slide_ids : set of str
        The slides that the run has used.

    Returns
    -------
    dict
        Model to what `Control.to_json` gives; empty where the study has neither blocks nor slides.
    """
    cohort, config = study.cohort, study.config
    data = TrainingData(cohort, None, config.cohort.covariates)
    context = BaselineContext(config.baselines, config.train, np.zeros(0), bag_means_of(study, slide_ids))
    fits: dict[str, list[tuple[LinearFold, Fit]]] = {}
    for fold in folds:
        rows = cohort.rows_of((*fold.train, *fold.validation, *fold.test))
        fitted = len(fold.train) + len(fold.validation)
        for name, one in ridge_baselines(data, fold, context).items():
            design = np.zeros((len(cohort), one.columns.shape[1]))  # of whom the fold does not name, no row is read
            design[rows] = one.columns
            fits.setdefault(name, []).append((LinearFold(design, rows[:fitted], rows[fitted:]), _coefficients(one)))
    order = shuffles(len(cohort), config.evaluate.permute_baselines, seed=config.evaluate.seed)
    event = (cohort.event == 1).astype(np.int64)
    return {
        name: permute_fits(of_folds, cohort.time_days, event, order=order).to_json() for name, of_folds in fits.items()
    }


def _coefficients(model: PenalisedCox) -> Fit:
    return lambda design, time_days, event: model.fit(design, time_days, event).coefficients


def permute_models(
    data: TrainingData, folds: Sequence[Fold], plan: FitPlan, *, permutations: int, seed: int
) -> dict[str, Any]:
    """Train and test the model of a study on shuffled outcomes; each shuffle is a whole cross-validation.

    Parameters
    ----------
    data : TrainingData
        The study.
    folds : sequence of Fold
        Of one scheme.
    plan : FitPlan
        How models are fitted.
    permutations : int
        How many shuffles.
    seed : int
        Of the shuffles.

    Returns
    -------
    dict
        Model to what `Control.to_json` gives.
    """
    order = shuffles(len(data.cohort), permutations, seed=seed)
    reached: dict[str, list[tuple[float, float]]] = {}
    for given in order:
        cause = None if data.cohort.cause is None else data.cohort.cause[given]
        outcome = {"time_days": data.cohort.time_days[given], "event": data.cohort.event[given], "cause": cause}
        cohort = replace(data.cohort, **outcome)
        with tempfile.TemporaryDirectory(prefix="pathoml-permutation-") as folder:
            shuffled = replace(plan, folder=Path(folder), tracking=None)
            own = replace(data, cohort=cohort)
            fitted = zip(folds, fit_folds(own, folds, shuffled), strict=True)
            parts = [one for fold, package in fitted for one in predict_fold(own, fold, package, shuffled)]
        scheme = build_scheme(join_predictions(parts), bootstraps=0, seed=0)
        for model in scheme.models:
            tested = scheme.tested(model)
            high = (tested.group == "high").astype(np.float64)[None]
            statistic = float(log_rank_of_groups(tested.time_days, tested.event, high)[0])
            reached.setdefault(model, []).append((fold_concordance(scheme, model), statistic))
    return {model: Control(*np.array(values).T).to_json() for model, values in reached.items()}
