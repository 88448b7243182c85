"""Cross-validation: one fitted model a fold, saved and recognised, and the clinical model beside it."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.cohort import BlockCovariate, Cohort
from pathoml.covariates import CovariateTransform, FittedCategorical, fit_covariates
from pathoml.errors import PackageError
from pathoml.files import make_folder, write_text
from pathoml.infer import predict_members, risk_groups
from pathoml.mil.objective import CoxObjective
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import ModelSettings
from pathoml.packages import Package, load_package, save_package
from pathoml.predictions import Predictions, join_predictions
from pathoml.progress import Progress, silent
from pathoml.provenance import digest_of, pathoml_version
from pathoml.settings import result_settings
from pathoml.splits import ROLES, Fold
from pathoml.survival.baselines import fit_cox
from pathoml.train import TrainingData, fit_member, follow_up
from pathoml.train_settings import TrainSettings
from pathoml.train_state import ResumeFile
from pathoml.units import FloatArray

logger = logging.getLogger(__name__)

MODEL, CLINICAL = "model", "clinical"
"""Names in the predictions table: the model that was asked for, and the Cox model on clinical covariates alone."""


@dataclass(frozen=True)
class FitPlan:
    """How every fold is fitted and where its model goes.

    Parameters
    ----------
    model : ModelSettings
        What the model is made of.
    train : TrainSettings
        How it is fitted.
    template : Package
        What each fold's package says besides its member.
    folder : Path
        Where the folds' packages go.
    device : str
        ``cpu`` or ``cuda``.
    """

    model: ModelSettings
    train: TrainSettings
    template: Package
    folder: Path
    device: str = "cpu"


def fit_fold(data: TrainingData, fold: Fold, plan: FitPlan) -> Package:
    """Fit a fold's model and save it, or take the saved one if it was fitted on the same data with the same settings.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains and who decides when to stop.
    plan : FitPlan
        How, and where to.

    Returns
    -------
    Package
        With a member for each seed.
    """
    folder = plan.folder / fold.folder_name
    groups = [fold.key, fold.train, fold.validation]
    settings = [result_settings(plan.model), result_settings(plan.train)]
    digest = digest_of(
        [data.digest, groups, settings, plan.template.recipe, list(plan.template.curve_days), pathoml_version()]
    )
    saved = _saved_fold(folder, digest)
    if saved is not None:
        return saved
    members, rows = [], []
    days = np.asarray(plan.template.curve_days, dtype=np.float64)
    make_folder(plan.folder)
    for number in range(plan.train.members):
        seeded = plan.train.model_copy(update={"seed": plan.train.seed + number})
        record = ResumeFile(
            folder.with_name(f"{folder.name}-{number}.resume"), digest_of([digest, number]), seeded.checkpoint_s
        )
        member, history = fit_member(data, fold, plan.model, seeded, device=plan.device, resume=record)
        # Times at which single patients had their event stay here: curves are given on the package's grid only.
        members.append(replace(member, objective=member.objective.on_grid(days)))
        rows += [{"fold": fold.key, "seed": seeded.seed, **row} for row in history]
    package = replace(
        plan.template, members=tuple(members), summary={**plan.template.summary, "training_digest": digest}
    )
    write_text(folder.with_name(f"{folder.name}.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
    save_package(folder, package)
    for number in range(plan.train.members):
        folder.with_name(f"{folder.name}-{number}.resume").unlink(missing_ok=True)
    return package


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
    for done, fold in enumerate(folds, start=1):
        packages[fold.key] = fit_fold(data, fold, plan)
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
    clinical = tuple(one for one in data.covariates if not isinstance(one, BlockCovariate))
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


def _saved_fold(folder: Path, digest: str) -> Package | None:
    if not folder.is_dir():
        return None
    try:
        package = load_package(folder)
    except PackageError:
        return None
    return package if package.summary.get("training_digest") == digest else None
