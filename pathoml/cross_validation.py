"""Cross-validation: one fitted model a fold, saved and recognised, and the clinical model beside it."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort
from pathoml.covariates import CovariateTransform, FittedCategorical, ReducedCovariate, fit_covariates
from pathoml.fold_fitting import FitPlan, fit_folds
from pathoml.infer import predict_members, risk_groups
from pathoml.mil.objective import CoxObjective
from pathoml.mil.patients import select_patients
from pathoml.packages import Package
from pathoml.predictions import Predictions, join_predictions
from pathoml.progress import Progress, silent
from pathoml.splits import ROLES, Fold
from pathoml.survival.baselines import fit_cox
from pathoml.train import TrainingData, follow_up
from pathoml.train_settings import TrainSettings
from pathoml.units import FloatArray

logger = logging.getLogger(__name__)

MODEL, CLINICAL = "model", "clinical"
"""Names in the predictions table: the model that was asked for, and the Cox model on clinical covariates alone."""


def cross_validate(
    data: TrainingData, folds: Sequence[Fold], plan: FitPlan, *, progress: Progress = silent
) -> tuple[dict[str, Package], Predictions]:
    """Fit one model a fold and predict its patients; beside it the Cox model on clinical covariates.

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
    packages: dict[str, Package] = {}
    parts: list[Predictions] = []
    progress("train", 0, len(folds))
    for done, (fold, package) in enumerate(zip(folds, fit_folds(data, folds, plan), strict=True), start=1):
        packages[fold.key] = package
        _warn_of_unseen_words(data.cohort, fold, packages[fold.key].members[0].covariates)
        for role in ROLES:
            patients = select_patients(data.cohort, data.features, getattr(fold, role))
            table, survival = predict_members(packages[fold.key].members, patients, days)
            parts.append(_with_outcome(table, survival, days, data.cohort, (MODEL, fold, role, plan.train.seed)))
        parts += fit_clinical(data, fold, plan.train, days)
        progress("train", done, len(folds))
    return packages, join_predictions(parts)


def fit_clinical(data: TrainingData, fold: Fold, settings: TrainSettings, curve_days: FloatArray) -> list[Predictions]:
    """Fit the model that every other is compared with: ridge Cox on clinical covariates, blocks left out.

    It is fitted on training and validation patients, since it needs no early stopping.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains and who is tested.
    settings : TrainSettings
        The ridge penalty.
    curve_days : ndarray of float64, shape (times,)
        When survival is wanted.

    Returns
    -------
    list of Predictions
        One for each role.
    """
    fitted_on = (*fold.train, *fold.validation)
    rows = data.cohort.covariates.iloc[data.cohort.rows_of(fitted_on)]
    clinical = tuple(one for one in data.covariates if not isinstance(one, ReducedCovariate))
    transform = fit_covariates(clinical, rows)
    time_days, event = follow_up(data.cohort, fitted_on)
    cox = fit_cox(transform.apply(rows), time_days, event, ridge=settings.covariate_ridge)
    log_hazard = cox.log_hazard(transform.apply(rows))
    objective = CoxObjective().calibrated(log_hazard[:, None], time_days, event)
    parts = []
    for role in ROLES:
        names = getattr(fold, role)
        risk = cox.log_hazard(transform.apply(data.cohort.covariates.iloc[data.cohort.rows_of(names)]))
        groups = risk_groups(risk, float(np.median(log_hazard)))
        table = pd.DataFrame({"patient_id": names, "risk": risk, "risk_group": groups})
        survival = objective.survival(risk[:, None], curve_days)
        parts.append(_with_outcome(table, survival, curve_days, data.cohort, (CLINICAL, fold, role, settings.seed)))
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


def _with_outcome(
    table: pd.DataFrame, survival: FloatArray, days: FloatArray, cohort: Cohort, label: tuple[str, Fold, str, int]
) -> Predictions:
    model, fold, role, seed = label
    rows = cohort.rows_of(table["patient_id"])
    table = table.assign(
        model=model, scheme=fold.scheme, fold=fold.name, role=role, site=cohort.site[rows], endpoint=cohort.endpoint,
        repeat=0, seed=seed, time_days=cohort.time_days[rows], event=cohort.event[rows],
    )  # fmt: skip
    return Predictions(table, days, survival)
