"""Where a model begins: covariates at the fold's own Cox fit, with a penalty that may be sought inside its patients."""

import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pathoml.blas import one_blas_thread
from pathoml.covariates import CLINICAL_PART, Covariate, CovariateTransform, FittedBlock, fit_covariates
from pathoml.errors import InputError, TrainingError
from pathoml.mil.objective import Objective, Outcome
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.published import start_from
from pathoml.mil.settings import ModelSettings
from pathoml.survival.baselines import fit_cox
from pathoml.survival.inner_folds import InnerFolds, RidgePath, ridge_scores
from pathoml.train_settings import SearchedRidgeSettings, TrainSettings
from pathoml.units import BoolArray, FloatArray, IntArray

logger = logging.getLogger(__name__)


class CoxPatients(NamedTuple):
    """Patients on whom covariates are fitted.

    Parameters
    ----------
    raw : DataFrame
        Covariates as the cohort holds them.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int, shape (patients,)
        1 event, 0 censored.
    """

    raw: pd.DataFrame
    time_days: FloatArray
    event: IntArray


class CoxStart(NamedTuple):
    """A Cox model on covariates.

    Parameters
    ----------
    coefficients : ndarray of float64, shape (columns,)
        Log hazard ratios.
    block_ridge : float or None
        Penalty that was chosen for the columns of blocks; None where none was sought.
    """

    coefficients: FloatArray
    block_ridge: float | None


def start_model(
    tile_dim: int, transform: CovariateTransform, objective: Objective, settings: ModelSettings
) -> PrognosisModel:  # fmt: skip
    """Build a model with fresh weights.

    Parameters
    ----------
    tile_dim : int
        Columns of a projected tile; 0 without slides.
    transform : CovariateTransform
        Of its covariates.
    objective : Objective
        What its logits mean.
    settings : ModelSettings
        What it is made of.

    Returns
    -------
    PrognosisModel
        Silent but for published weights.

    Raises
    ------
    InputError
        If parts that the fusion needs are not there.
    """
    shape = ModelShape(tile_dim, len(transform.names), objective.out, transform.groups)
    if settings.fusion.kind == "co_attention" and (not tile_dim or set(transform.part_names) <= {CLINICAL_PART}):
        raise InputError("model.fusion: co_attention needs slides, and a covariate of kind block or gene_groups")
    model = PrognosisModel(settings.aggregator, shape, settings.fusion)
    model.bias.requires_grad_(objective.has_level)
    if settings.start is not None and model.slides is not None:
        start_from(model.slides, settings.start)
    return model


def start_covariates(
    model: PrognosisModel, covariates: tuple[tuple[Covariate, ...], CovariateTransform], patients: CoxPatients,
    objective: Objective, settings: TrainSettings,
) -> CoxStart:  # fmt: skip
    """Start covariates at the fold's Cox fit, bins at their observed hazard; a random start can leave age with the wrong sign.

    Parameters
    ----------
    model : PrognosisModel
        Changed in place.
    covariates : tuple of (tuple of settings of a covariate, CovariateTransform)
        What was asked for, and the transform fitted on these patients.
    patients : CoxPatients
        Who.
    objective : Objective
        Whether there is a level.
    settings : TrainSettings
        Penalties.

    Returns
    -------
    CoxStart
        The fit.
    """
    asked, transform = covariates
    start = fit_cox_start(asked, transform, patients, settings)
    given = transform.given(patients.raw)
    effects = transform.apply(patients.raw) * start.coefficients
    with torch.no_grad():
        model.covariate_weight.copy_(torch.from_numpy(start.coefficients))
        for part in range(given.shape[1]):  # who lacks a part begins as the average of those who have it
            share = effects[given[:, part]][:, model.layout.columns_of(part)].sum(axis=1)
            model.absent[part] = float(share.mean()) if len(share) else 0.0
        if objective.has_level:
            model.bias.copy_(marginal_logits(objective, patients))
    return start


@one_blas_thread()
def fit_cox_start(
    covariates: tuple[Covariate, ...], transform: CovariateTransform, patients: CoxPatients, settings: TrainSettings
) -> CoxStart:
    """Fit Cox's model on covariates, single columns and blocks each with their own ridge penalty.

    Parameters
    ----------
    covariates : tuple of settings of a covariate
        What the transform was made by; inner folds fit transforms of their own.
    transform : CovariateTransform
        Fitted on these patients.
    patients : CoxPatients
        Who.
    settings : TrainSettings
        Penalties.

    Returns
    -------
    CoxStart
        Coefficients, and the penalty of blocks if it was sought.

    Raises
    ------
    TrainingError
        If there are too few events for the inner folds.
    """
    design = transform.apply(patients.raw)
    if design.shape[1] == 0:
        return CoxStart(np.zeros(0), None)
    sought, searched = None, is_of_block(transform)
    of_blocks = settings.covariate_ridge
    if isinstance(settings.block_ridge, SearchedRidgeSettings):
        if searched.any():
            of_blocks = sought = choose_block_ridge(
                covariates, patients, settings.block_ridge, settings.covariate_ridge
            )
    elif settings.block_ridge is not None:
        of_blocks = settings.block_ridge.penalty
    penalties = np.where(searched, of_blocks, settings.covariate_ridge)
    return CoxStart(fit_cox(design, patients.time_days, patients.event, ridge=penalties).coefficients, sought)


def choose_block_ridge(
    covariates: tuple[Covariate, ...], patients: CoxPatients, search: SearchedRidgeSettings, covariate_ridge: float
) -> float:
    """Choose the penalty of blocks by the cross-validated partial likelihood; inner folds fit their own transforms.

    Parameters
    ----------
    covariates : tuple of settings of a covariate
        What transforms are fitted by.
    patients : CoxPatients
        Who is dealt into inner folds.
    search : SearchedRidgeSettings
        Penalties, inner folds and their seed.
    covariate_ridge : float
        Penalty of single columns.

    Returns
    -------
    float
        The best penalty.

    Raises
    ------
    TrainingError
        If there are too few events for the inner folds.
    """
    events = int(patients.event.sum())
    if min(events, len(patients.event) - events) < search.folds:
        raise TrainingError(
            f"train.block_ridge: {search.folds} inner folds need as many events and as many censored patients; there are"
            f" {events} events in {len(patients.event)} patients; use fewer inner folds"
        )
    tried = np.geomspace(search.highest, search.lowest, search.steps)

    def prepare(kept: IntArray) -> RidgePath:
        inner = fit_covariates(covariates, patients.raw.iloc[kept])
        of_block = is_of_block(inner)
        return RidgePath(inner.apply(patients.raw), [np.where(of_block, penalty, covariate_ridge) for penalty in tried])

    scores = ridge_scores(prepare, patients.time_days, patients.event, InnerFolds(search.folds, search.seed))
    best = float(tried[scores.argmax()])
    logger.info("ridge penalty of blocks: %.3g of %.3g to %.3g", best, search.lowest, search.highest)
    return best


def is_of_block(transform: CovariateTransform) -> BoolArray:
    """Tell which columns come from blocks and groups of genes.

    Parameters
    ----------
    transform : CovariateTransform
        Fitted.

    Returns
    -------
    ndarray of bool, shape (columns,)
        False for single columns.
    """
    return np.array([isinstance(part, FittedBlock) for part in transform.parts for _ in part.names], dtype=bool)


def marginal_logits(objective: Objective, patients: CoxPatients) -> Tensor:
    """Fit the same logits for all patients.

    Parameters
    ----------
    objective : Objective
        One that has a level.
    patients : CoxPatients
        Whose observed hazard it is.

    Returns
    -------
    Tensor of float64, shape (out,)
        Where the bias begins.
    """
    outcome = Outcome(torch.from_numpy(patients.event == 1), torch.from_numpy(patients.time_days))
    alike = torch.zeros(len(outcome.event), objective.out, dtype=torch.float64)
    return level_beside(alike, objective, outcome)


def level_beside(logits: Tensor, objective: Objective, outcome: Outcome) -> Tensor:
    """Fit what is added to all patients' logits alike: the loss is convex, or nearly so, and a few Newton-like steps do.

    Each step is as long as a line search finds it: full steps run away where a bin holds few of the events.

    Parameters
    ----------
    logits : Tensor of float64, shape (patients, out)
        Of a model.
    objective : Objective
        One that has a level.
    outcome : Outcome
        The patients' follow-up.

    Returns
    -------
    Tensor of float64, shape (out,)
        Where the loss is least.
    """
    level = torch.zeros(objective.out, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([level], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss(logits + level, outcome) + 1e-4 * level.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return level.detach()
