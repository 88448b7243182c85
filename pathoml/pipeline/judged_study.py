"""What the evaluation of a study needs besides its predictions: covariates, mean features, and models fitted on shuffles."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.bags import read_bag
from pathoml.covariates import ReducedCovariate, fit_covariates
from pathoml.cross_validation import cross_validate
from pathoml.evaluate import Background
from pathoml.evaluate.fold_metrics import fold_concordance
from pathoml.evaluate.permutation import Control, LinearFold, permute_linear, shuffles
from pathoml.evaluate.risk_groups import log_rank_of_groups
from pathoml.evaluate.scheme import build_scheme
from pathoml.fold_fitting import FitPlan
from pathoml.pipeline.study import Study
from pathoml.splits import Fold
from pathoml.train import TrainingData
from pathoml.units import FloatArray


def background_of(study: Study) -> Background:
    """Return covariates and mean features of the patients of a study.

    Parameters
    ----------
    study : Study
        With the patients that could be used.

    Returns
    -------
    Background
        With features if the study has slides.
    """
    cohort = study.cohort
    features = None
    if study.config.slides is not None:
        folder = study.config.slides.bags
        features = np.stack(
            [
                _mean_features([folder / f"{entry.slide_id}.h5" for entry in cohort.slides[patient]])
                for patient in cohort.patient_id.tolist()
            ]
        )
    return Background(cohort.patient_id, cohort.covariates, study.config.cohort.covariates, features)


def _mean_features(bags: Sequence[Path]) -> FloatArray:
    """Return the mean over the tiles of all of a patient's slides that have a bag."""
    total, tiles = 0.0, 0
    for path in bags:
        if path.is_file():
            features = read_bag(path).features
            total = total + features.sum(axis=0, dtype=np.float64)
            tiles += len(features)
    return np.asarray(total / max(tiles, 1), dtype=np.float64)


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


def permute_models(
    data: TrainingData, folds: Sequence[Fold], plan: FitPlan, *, permutations: int, seed: int
) -> dict[str, Any]:
    """Train and test every model of a study on shuffled outcomes; each shuffle is a whole cross-validation.

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
        cohort = replace(data.cohort, time_days=data.cohort.time_days[given], event=data.cohort.event[given])
        with tempfile.TemporaryDirectory(prefix="pathoml-permutation-") as folder:
            shuffled = replace(plan, folder=Path(folder), tracking=None)
            _, predictions = cross_validate(replace(data, cohort=cohort), folds, shuffled)
        scheme = build_scheme(predictions, bootstraps=0, seed=0)
        for model in scheme.models:
            tested = scheme.tested(model)
            high = (tested.group == "high").astype(np.float64)[None]
            statistic = float(log_rank_of_groups(tested.time_days, tested.event, high)[0])
            reached.setdefault(model, []).append((fold_concordance(scheme, model), statistic))
    return {model: Control(*np.array(values).T).to_json() for model, values in reached.items()}
