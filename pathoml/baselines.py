"""The models that every other is compared with, fitted on the same patients of every fold."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from pathoml.baseline_settings import CLINICAL, BaselineSettings
from pathoml.blas import one_blas_thread
from pathoml.cohort import Cohort
from pathoml.covariates import ReducedCovariate, fill_mean_scale, fit_covariates, principal_axes
from pathoml.infer import risk_groups
from pathoml.leakage import check_fit
from pathoml.mil.patients import PatientFeatures
from pathoml.predictions import Predictions
from pathoml.provenance import patients_digest
from pathoml.splits import ROLES, Fold
from pathoml.survival import breslow_hazard, cox_survival
from pathoml.survival.baselines import CoxModel, fit_cox
from pathoml.survival.forest import ask_forest, fit_forest
from pathoml.survival.inner_folds import InnerFolds
from pathoml.survival.penalties import fit_elastic_net, fit_ridge
from pathoml.train import TrainingData
from pathoml.train_settings import TrainSettings
from pathoml.units import BoolArray, FloatArray, IntArray

_WEAKEST, _STRONGEST = 0.3, 300.0
"""Ridge penalties of a block whose columns' variances add up to 1."""
_FOREST_COMPONENTS = 32


class BaselineContext(NamedTuple):
    """What baselines are fitted with, the same for every fold.

    Parameters
    ----------
    settings : BaselineSettings
        Penalties and trees.
    train : TrainSettings
        Ridge penalty of clinical columns, and the seed.
    curve_days : ndarray of float64, shape (times,)
        When survival is wanted.
    bag_means : mapping of str to ndarray of float64, each of shape (dim,)
        As `mean_of_bags` gives them; empty without slides.
    """

    settings: BaselineSettings
    train: TrainSettings
    curve_days: FloatArray
    bag_means: Mapping[str, FloatArray]


class _Outcome(NamedTuple):
    """Follow-up of the patients that are fitted on."""

    time_days: FloatArray
    event: IntArray


class _Block(NamedTuple):
    """Standardised columns of one kind, of every patient of a fold, those fitted on first."""

    values: FloatArray
    spread: FloatArray
    """Standard deviation of each before it was standardised."""
    fitted_on: str
    """Digest of the patients that fill and standardise."""


class _Columns(NamedTuple):
    """Columns of every patient of a fold, those fitted on first."""

    values: FloatArray
    free: FloatArray
    """1 for clinical columns, which are hardly penalised; 0 for those of blocks."""
    fitted_on: str = ""


class PenalisedCox(NamedTuple):
    """A penalised Cox model before it is fitted: nothing of it has looked at outcomes, so that any can be given to it.

    Parameters
    ----------
    columns : ndarray of float64, shape (patients, columns)
        Of every patient of a fold, training, validation and test, in this order.
    fit : callable
        Columns, follow-up and events of training and validation patients -> the model, its penalty chosen by them alone.
    """

    columns: FloatArray
    fit: Callable[[FloatArray, FloatArray, IntArray], CoxModel]


def mean_of_bags(features: PatientFeatures | None) -> dict[str, FloatArray]:
    """Return each patient's mean tile.

    Parameters
    ----------
    features : PatientFeatures or None
        All tiles of all patients.

    Returns
    -------
    dict of str to ndarray of float64, each of shape (dim,)
        Empty without slides.
    """
    if features is None:
        return {}
    return {
        name: np.asarray(bag, dtype=np.float32).mean(axis=0, dtype=np.float64)
        for name, bag in features.of_patient.items()
    }


@one_blas_thread()
def fit_baselines(data: TrainingData, fold: Fold, context: BaselineContext) -> list[Predictions]:
    """Fit every baseline that the data allow on a fold's training and validation patients, and predict all of its patients.

    None needs early stopping, so validation patients are fitted on; penalties are chosen in inner folds of these patients.
    With slides: ridge Cox on mean tile features. With blocks (omics): ridge and elastic-net Cox on them. Each of these also
    with the clinical columns, whose penalty is small and fixed. Always: Cox on the clinical columns, and a random survival
    forest on clinical columns and principal components.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains and who is tested.
    context : BaselineContext
        Settings, and what is the same for all folds.

    Returns
    -------
    list of Predictions
        One for each baseline and role; the clinical model first.
    """
    prepared = _prepare(data, fold, context)
    clinical, outcome, where = prepared.clinical, prepared.outcome, (data.cohort, fold, context)
    cox = fit_cox(clinical.values[: prepared.fitted], *outcome, ridge=context.train.covariate_ridge)
    parts = _linear(CLINICAL, cox, clinical.values, outcome, where)
    for name, one in _penalised(prepared, context).items():
        model = one.fit(one.columns[: prepared.fitted], *outcome)
        parts += _linear(name, model, one.columns, outcome, where)
    return parts + _forest(prepared.blocks, clinical, outcome, where)


@one_blas_thread()
def ridge_baselines(data: TrainingData, fold: Fold, context: BaselineContext) -> dict[str, PenalisedCox]:
    """Prepare the ridge Cox models of a fold, to be fitted on other outcomes than its own, such as shuffled ones.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains and who is tested.
    context : BaselineContext
        Settings, and what is the same for all folds.

    Returns
    -------
    dict of str to PenalisedCox
        By name in the predictions table; empty where there are neither blocks nor slides.
    """
    found = _penalised(_prepare(data, fold, context), context)
    return {name: one for name, one in found.items() if name.endswith("_ridge")}


class _Prepared(NamedTuple):
    """Columns of a fold's patients, filled and standardised as those that are fitted on give it."""

    fitted: int
    outcome: _Outcome
    clinical: _Columns
    blocks: Mapping[str, _Block]


def _prepare(data: TrainingData, fold: Fold, context: BaselineContext) -> _Prepared:
    names = (*fold.train, *fold.validation, *fold.test)
    fitted = len(fold.train) + len(fold.validation)
    rows = data.cohort.rows_of(names)
    outcome = _Outcome(data.cohort.time_days[rows[:fitted]], data.cohort.event[rows[:fitted]])
    raw = data.cohort.covariates.iloc[rows].set_axis(list(names))
    clinical = _clinical(data, raw, fitted)
    blocks = {
        "omics": _standardised(_block_values(data, raw), fitted),
        "slides": _standardised(_mean_tiles(context.bag_means, names), fitted),
    }
    transforms = {CLINICAL: clinical.fitted_on, **{name: block.fitted_on for name, block in blocks.items()}}
    check_fit(fold, {f"transform of {name} columns": digest for name, digest in transforms.items()})
    return _Prepared(fitted, outcome, clinical, blocks)


def _penalised(prepared: _Prepared, context: BaselineContext) -> dict[str, PenalisedCox]:
    found: dict[str, PenalisedCox] = {}
    for kind, block in prepared.blocks.items():
        if block.values.shape[1] == 0:
            continue
        for prefix, beside in (("", _none(prepared.clinical)), ("clinical_", prepared.clinical)):
            if prefix and beside.values.shape[1] == 0:
                continue
            found[f"{prefix}{kind}_ridge"] = _ridge(block, beside, prepared.fitted, context)
            if kind == "omics":
                found[f"{prefix}{kind}_elastic_net"] = _elastic_net(block, beside, context)
    return found


def as_predictions(
    table: pd.DataFrame, survival: FloatArray, days: FloatArray, cohort: Cohort, label: tuple[str, Fold, str, int]
) -> Predictions:
    """Put outcome, hospital and labels beside risks.

    Parameters
    ----------
    table : DataFrame
        Columns patient_id, risk and risk_group.
    survival : ndarray of float64, shape (patients, times)
        Probability of no event; kept of test patients only.
    days : ndarray of float64, shape (times,)
        When.
    cohort : Cohort
        All patients.
    label : tuple of str, Fold, str and int
        Model, fold, role and seed.

    Returns
    -------
    Predictions
        In the same order.
    """
    model, fold, role, seed = label
    rows = cohort.rows_of(table["patient_id"])
    table = table.assign(
        model=model, scheme=fold.scheme, fold=fold.name, role=role, site=cohort.site[rows], endpoint=cohort.endpoint,
        repeat=fold.repeat, seed=seed, time_days=cohort.time_days[rows], event=cohort.causes[rows],
    )  # fmt: skip
    return Predictions(table, days, survival if role == "test" else np.full_like(survival, np.nan))


def _clinical(data: TrainingData, raw: pd.DataFrame, fitted: int) -> _Columns:
    covariates = tuple(one for one in data.covariates if not isinstance(one, ReducedCovariate))
    transform = fit_covariates(covariates, raw.iloc[:fitted])
    values = transform.apply(raw)
    return _Columns(values, np.ones(values.shape[1]), transform.fitted_on)


def _none(clinical: _Columns) -> _Columns:
    return _Columns(np.zeros((len(clinical.values), 0)), np.zeros(0))


def _block_values(data: TrainingData, raw: pd.DataFrame) -> pd.DataFrame:
    of_blocks = [one for one in data.covariates if isinstance(one, ReducedCovariate)]
    return raw[list(dict.fromkeys(name for one in of_blocks for name in one.matching(raw.columns)))]


def _mean_tiles(bag_means: Mapping[str, FloatArray], names: tuple[str, ...]) -> pd.DataFrame:
    """Return mean tiles, NaN for patients without."""
    none = np.full(len(next(iter(bag_means.values()), np.zeros(0))), np.nan)
    values = np.stack([bag_means.get(name, none) for name in names]) if bag_means else np.zeros((len(names), 0))
    return pd.DataFrame(values, index=list(names))


def _standardised(table: pd.DataFrame, fitted: int) -> _Block:
    """Fill and standardise columns as the patients that are fitted on give it; columns without spread are left out."""
    training, values = table.iloc[:fitted], table.to_numpy(dtype=np.float64)
    fill, mean, scale = fill_mean_scale(training.to_numpy(dtype=np.float64))
    filled = np.where(np.isnan(values), fill, values)
    spread = filled[:fitted].std(axis=0)
    standard = ((filled - mean) / scale)[:, spread > 0]
    return _Block(standard, spread[spread > 0], patients_digest(training.index))


def _ridge(block: _Block, clinical: _Columns, fitted: int, context: BaselineContext) -> PenalisedCox:
    """Prepare ridge Cox on a block, turned to its principal axes, which changes no distance and so no ridge fit."""
    _, axes = principal_axes(block.values[:fitted])
    scores = block.values @ axes[: context.settings.components].T / np.sqrt(len(block.spread))
    columns = _beside(clinical, scores)
    strengths = np.geomspace(_STRONGEST, _WEAKEST, context.settings.penalties)
    penalties = [np.where(columns.free == 1, context.train.covariate_ridge, strength) for strength in strengths]
    return PenalisedCox(columns.values, partial(fit_ridge, penalties=penalties, folds=_inner(context)))


def _elastic_net(block: _Block, clinical: _Columns, context: BaselineContext) -> PenalisedCox:
    widest = np.argsort(-block.spread, kind="stable")[: context.settings.elastic_columns]
    columns = _beside(clinical, block.values[:, np.sort(widest)])
    fit = partial(
        fit_elastic_net, free=columns.free, lasso_share=context.settings.lasso_share, folds=_inner(context)
    )  # fmt: skip
    return PenalisedCox(columns.values, fit)


def _inner(context: BaselineContext) -> InnerFolds:
    return InnerFolds(context.settings.inner_folds, context.train.seed)


def _beside(clinical: _Columns, block: FloatArray) -> _Columns:
    return _Columns(np.hstack([clinical.values, block]), np.concatenate([clinical.free, np.zeros(block.shape[1])]))


def _linear(
    name: str, model: CoxModel, columns: FloatArray, outcome: _Outcome, where: tuple[Cohort, Fold, BaselineContext]
) -> list[Predictions]:
    risk = model.log_hazard(columns)
    hazard = breslow_hazard(*outcome, risk[: len(outcome.event)])
    return _by_role(name, risk, cox_survival(hazard, risk, where[2].curve_days), len(outcome.event), where)


def _forest(
    blocks: Mapping[str, _Block], clinical: _Columns, outcome: _Outcome, where: tuple[Cohort, Fold, BaselineContext]
) -> list[Predictions]:
    fitted, settings = len(outcome.event), where[2].settings
    parts = [clinical.values]
    for block in blocks.values():
        if block.values.shape[1]:
            _, axes = principal_axes(block.values[:fitted])
            parts.append(block.values @ axes[:_FOREST_COMPONENTS].T)
    design = np.hstack(parts)
    if design.shape[1] == 0:
        return []
    leaf = min(settings.smallest_leaf, max(1, fitted // 4))
    forest = fit_forest(
        design[:fitted], *outcome, trees=settings.trees, smallest_leaf=leaf, seed=where[2].train.seed
    )  # fmt: skip
    found = ask_forest(forest, design, where[2].curve_days)
    return _by_role("forest", found.risk, found.survival, fitted, where)


def _by_role(
    name: str, risk: FloatArray, survival: FloatArray, fitted: int, where: tuple[Cohort, Fold, BaselineContext]
) -> list[Predictions]:
    cohort, fold, context = where
    groups = np.array(risk_groups(risk, float(np.median(risk[:fitted]))))
    role_of = np.repeat(np.arange(len(ROLES)), [len(getattr(fold, role)) for role in ROLES])
    parts = []
    for number, role in enumerate(ROLES):
        own: BoolArray = role_of == number
        table = pd.DataFrame({"patient_id": getattr(fold, role), "risk": risk[own], "risk_group": groups[own]})
        label = (name, fold, role, context.train.seed)
        parts.append(as_predictions(table, survival[own], context.curve_days, cohort, label))
    return parts
