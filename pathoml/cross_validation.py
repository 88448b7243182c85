"""Cross-validation: one fitted model a fold, saved and recognised, and the baselines beside it."""

import logging
from collections.abc import Sequence

import numpy as np

from pathoml.baselines import BaselineContext, as_predictions, fit_baselines, mean_of_bags
from pathoml.cohort import Cohort
from pathoml.covariates import CovariateTransform, FittedCategorical
from pathoml.fold_fitting import FitPlan, fit_folds, require_unseen_test
from pathoml.infer import predict_members
from pathoml.mil.patients import select_patients
from pathoml.packages import Package
from pathoml.predictions import Predictions, join_predictions
from pathoml.progress import Progress, silent
from pathoml.splits import ROLES, Fold
from pathoml.train import TrainingData

logger = logging.getLogger(__name__)

MODEL = "model"
"""Name in the predictions table of the model that was asked for; the others are those of `pathoml.baselines`."""


def cross_validate(
    data: TrainingData, folds: Sequence[Fold], plan: FitPlan, *, progress: Progress = silent
) -> tuple[dict[str, Package], Predictions]:
    """Fit one model a fold and predict its patients; beside it every baseline that the data allow.

    A word that no training patient of a fold has counts as missing in that fold, and a warning says how often.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    folds : sequence of Fold
        Of one scheme or several.
    plan : FitPlan
        How, and where the folds' packages go; those already there are not fitted again.
    progress : Progress, optional
        Told after every fold.

    Returns
    -------
    tuple of dict and Predictions
        Fold key to its package; predictions of train, validation and test patients of every fold.
    """
    days = np.asarray(plan.template.curve_days, dtype=np.float64)
    baselines = BaselineContext(plan.baselines, plan.train, days, mean_of_bags(data.features))
    packages: dict[str, Package] = {}
    parts: list[Predictions] = []
    progress("train", 0, len(folds))
    for done, (fold, package) in enumerate(zip(folds, fit_folds(data, folds, plan), strict=True), start=1):
        packages[fold.key] = package
        require_unseen_test(fold, plan.folder)
        _warn_of_unseen_words(data.cohort, fold, packages[fold.key].members[0].covariates)
        parts += predict_fold(data, fold, package, plan)
        parts += fit_baselines(data, fold, baselines)
        progress("train", done, len(folds))
    return packages, join_predictions(parts)


def predict_fold(data: TrainingData, fold: Fold, package: Package, plan: FitPlan) -> list[Predictions]:
    """Predict the patients of a fold by its own model.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Whose patients.
    package : Package
        Its model.
    plan : FitPlan
        How it was fitted.

    Returns
    -------
    list of Predictions
        Of train, validation and test patients.
    """
    days = np.asarray(plan.template.curve_days, dtype=np.float64)
    parts = []
    for role in ROLES:
        patients = select_patients(data.cohort, data.features, getattr(fold, role))
        table, survival = predict_members(package.members, patients, days)
        parts.append(as_predictions(table, survival, days, data.cohort, (MODEL, fold, role, plan.train.seed)))
    return parts


def _warn_of_unseen_words(cohort: Cohort, fold: Fold, transform: CovariateTransform) -> None:
    """Say which words of validation and test patients the fold's model cannot know, and what they are scored as."""
    raw = cohort.covariates.iloc[cohort.rows_of((*fold.validation, *fold.test))]
    for part in (one for one in transform.parts if isinstance(one, FittedCategorical)):
        words = raw[part.column][part.is_unseen(raw)].tolist()
        if words:
            logger.warning(
                "fold %s: covariate %s: %d validation or test patient(s) have %s, which no training patient has; they are"
                " scored as %s. Join rare words in the table, or use fewer folds",
                fold.key, part.column, len(words), ", ".join(map(repr, sorted(set(words)))), part.fill or "missing",
            )  # fmt: skip
