"""Fitting: one local update, and one loop with early stopping around it."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from pathoml.cohort import Cohort
from pathoml.covariates import (
    Covariate,
    GeneGroupsCovariate,
    fit_covariates,
    read_gene_groups,
)
from pathoml.cox_start import CoxPatients, level_beside, start_covariates, start_model
from pathoml.errors import TrainingError
from pathoml.finishing import finish_member, lacking_parts, restore_prevalence
from pathoml.infer import require_grid
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.gradients import loss_of, step_gradient
from pathoml.mil.objective import Objective
from pathoml.mil.objectives import fit_objective
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.prognosis import PrognosisModel
from pathoml.mil.projection import TileProjection, as_they_are, fit_projection
from pathoml.mil.randomness import random_state, seed_gpu, set_random_state
from pathoml.mil.settings import ModelSettings
from pathoml.mil.tile_rows import TileRows
from pathoml.packages import Member
from pathoml.provenance import array_digest, digest_of, patients_digest
from pathoml.settings import result_settings
from pathoml.splits import Fold
from pathoml.survival import concordance
from pathoml.train_settings import TrainSettings
from pathoml.train_state import ResumeFile, TrainProgress, TrainState, start_state
from pathoml.units import AnyArray, FloatArray, IntArray


@dataclass(frozen=True)
class TrainingData:
    """A cohort with everything that fitting reads.

    Parameters
    ----------
    cohort : Cohort
        Patients with outcome and covariates.
    features : PatientFeatures or None
        Their tiles; None for a model on the table alone.
    covariates : tuple of settings of a covariate
        Which columns enter.
    """

    cohort: Cohort
    features: PatientFeatures | None
    covariates: tuple[Covariate, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        raw = self.cohort.covariates
        numbers = raw.select_dtypes("number")
        words = raw.drop(columns=numbers.columns)
        table = [list(raw.columns), array_digest(numbers.to_numpy(dtype=np.float64)), words.to_csv()]
        files = [read_gene_groups(one.file) for one in self.covariates if isinstance(one, GeneGroupsCovariate)]
        outcome = [array_digest(self.cohort.time_days), array_digest(self.cohort.event), list(self.cohort.patient_id)]
        tiles = None if self.features is None else self.features.digest
        return digest_of([table, files, outcome, tiles, [result_settings(one) for one in self.covariates]])


EpochListener = Callable[[Mapping[str, float]], None]
"""Is told the numbers of each epoch, `epoch` among them."""


def _nobody(row: Mapping[str, float]) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class FitContext:
    """What a fit is given besides data and settings; none of it changes what comes out, but for rounding.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.
    resume : ResumeFile or None
        From which a killed training goes on.
    projection : TileProjection or None
        As `fit_tile_projection` gives it for the same fold and model, where somebody has fitted it already.
    on_epoch : callable
        Told every epoch.
    """

    device: str = "cpu"
    resume: ResumeFile | None = None
    projection: TileProjection | None = None
    on_epoch: EpochListener = field(default_factory=lambda: _nobody)


def fit_tile_projection(data: TrainingData, fold: Fold, settings: ModelSettings) -> TileProjection | None:
    """Fit what brings tile features to the columns a model takes, on a fold's training patients.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains.
    settings : ModelSettings
        How many components.

    Returns
    -------
    TileProjection or None
        None for a model on the table alone.

    Raises
    ------
    TrainingError
        If a bag holds a number that is not finite; its patient is named.
    """
    patients = select_patients(data.cohort, data.features, fold.train)
    tiles = patients.features
    if tiles is None:
        return None
    if settings.start is not None:
        return as_they_are(int(tiles[0].shape[1]))
    projection = fit_projection(_finite(patients.patient_id, tiles), settings.tile_components)
    return replace(projection, fitted_on=patients_digest(patients.patient_id))


def _finite(patients: Sequence[str], bags: Sequence[AnyArray | TileRows]) -> Iterator[AnyArray]:
    """Yield each bag's tiles; one value that is not finite would spoil the columns of everybody."""
    for name, bag in zip(patients, bags, strict=True):
        tiles = np.asarray(bag)
        if not np.isfinite(tiles).all():
            raise TrainingError(
                f"patient {name}: tile features are not all finite numbers; 'pathoml bags verify' names the bag, which "
                "has to be extracted again"
            )
        yield tiles


Correction = Callable[[PrognosisModel], None]
"""Adds to a model's gradients what a federation holds its sites together by."""


def local_update(
    state: TrainState, patients: TrainingPatients, objective: Objective, settings: TrainSettings,
    *, correct: Correction | None = None,
) -> float:  # fmt: skip
    """Take one pass over the patients: all that training, alone or in a federation, does to a model.

    A step whose patients cannot be compared, so that the loss is the same whatever the model says, leaves it as it is.

    Parameters
    ----------
    state : TrainState
        Changed in place. The same state, patients and settings give the same result, bit for bit on one CPU.
    patients : TrainingPatients
        Who.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        How.
    correct : callable, optional
        Changes the gradients of every step, before they are clipped.

    Returns
    -------
    float
        Mean loss over all that it is a mean over in each step: events for Cox, patients for time bins; 0 without any.

    Raises
    ------
    TrainingError
        If a loss is not finite.
    """
    device = state.model.bias.device
    outside = random_state(device)
    torch.set_rng_state(state.random)
    seed_gpu(device)
    try:
        state.model.train()
        for group in state.optimizer.param_groups:
            group["lr"] = step_size(state.epoch, settings)
        losses, weights = [], []
        for parts in patients.steps(state.dealer):
            outcome = parts.outcome
            if not objective.tells(outcome):  # momentum and decay alone would move the model
                continue
            state.optimizer.zero_grad()
            losses.append(step_gradient(state.model, parts, objective, settings))
            weights.append(objective.denominator(outcome))
            if correct is not None:
                correct(state.model)
            if settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
            state.optimizer.step()
        state.epoch += 1
        state.random = torch.get_rng_state()
    finally:
        set_random_state(device, outside)
    return float(np.average(torch.stack(losses).cpu(), weights=weights)) if losses else 0.0


def step_size(epoch: int, settings: TrainSettings) -> float:
    """Return the step size of an epoch.

    Parameters
    ----------
    epoch : int
        Epochs done before it.
    settings : TrainSettings
        Full size, warm-up and schedule.

    Returns
    -------
    float
        For all steps of the epoch.
    """
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * (epoch + 1) / (settings.warmup_epochs + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    left = max(settings.max_epochs - settings.warmup_epochs, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - settings.warmup_epochs) / left))


def fit_member(
    data: TrainingData,
    fold: Fold,
    model_settings: ModelSettings,
    settings: TrainSettings,
    context: FitContext = FitContext(),
) -> tuple[Member, list[dict[str, float]]]:
    """Fit one model on a fold's training patients, stopping early on its validation patients.

    Without epochs (`max_epochs` 0) the model is the Cox fit of training and validation patients. Else
    transforms of tiles and covariates and time bins come from training patients, centre, scale and cut-off of the risk
    and the baseline hazard from training and validation patients. The test patients are not looked at.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    fold : Fold
        Who trains and who decides when to stop.
    model_settings : ModelSettings
        What the model is made of.
    settings : TrainSettings
        How it is fitted.
    context : FitContext, optional
        Device, listener, what is there already.

    Returns
    -------
    tuple of Member and list of dict
        The fitted model on the CPU, and the losses of each epoch.
    """
    # Without epochs nobody is needed to say when to stop.
    fitted_on = fold.train if settings.max_epochs else (*fold.train, *fold.validation)
    raw = data.cohort.covariates.iloc[data.cohort.rows_of(fitted_on)]
    patients = CoxPatients(raw, *follow_up(data.cohort, fitted_on))
    projection = context.projection or fit_tile_projection(data, fold, model_settings)
    transform = fit_covariates(data.covariates, raw)
    objective = fit_objective(settings.loss, patients.time_days, patients.event)
    torch.manual_seed(settings.seed)
    model = start_model(0 if projection is None else projection.out, transform, objective, model_settings)
    require_grid(model, () if data.features is None else data.features.without_grid)
    start = start_covariates(model, (data.covariates, transform), patients, objective, settings)

    def patients_of(names: Sequence[str], settings: TrainSettings) -> TrainingPatients:
        chosen = select_patients(data.cohort, data.features, names)
        return TrainingPatients(chosen, data.cohort, projection, transform, settings, context.device)

    lacking = lacking_parts(model, select_patients(data.cohort, data.features, fitted_on), transform, settings)
    model.absent.requires_grad_(bool(lacking) and settings.max_epochs > 0)
    first = {"epoch": 0.0} if start.block_ridge is None else {"epoch": 0.0, "block_ridge": start.block_ridge}
    if settings.max_epochs:
        state = start_state(model.to(context.device), settings)
        train = patients_of(fold.train, settings)
        groups = _told_apart(fold, (train, patients_of(fold.validation, train.left_by())), objective)
        history = _fit_until_no_better(state, *groups, (objective, first), settings, context)
    else:
        history = [first]
        context.on_epoch(first)
    fitted = model.to("cpu").eval()
    name = digest_of(fold.key if settings.seed == 0 else [fold.key, settings.seed])[:8]
    draft = Member(
        name, model_settings.aggregator, fitted, projection, transform, objective, 0.0, 1.0, 0.0, (), model_settings.fusion,
        may_lack=lacking,
    )  # fmt: skip
    everyone = (*fold.train, *fold.validation)
    chosen = select_patients(data.cohort, data.features, everyone)
    if settings.event_balanced:
        restore_prevalence(draft, chosen, *follow_up(data.cohort, everyone))
    return finish_member(draft, chosen, *follow_up(data.cohort, everyone)), history


def _told_apart(
    fold: Fold, groups: tuple[TrainingPatients, TrainingPatients], objective: Objective
) -> tuple[TrainingPatients, TrainingPatients]:
    """Refuse patients whose loss is the same whatever a model says of them: it would never learn, or never be told better."""
    for role, group in zip(("training", "validation"), groups, strict=True):
        if not objective.tells(group.outcome):
            raise TrainingError(
                f"fold {fold.key}: no two of its {len(group)} {role} patients can be compared: at each event nobody else is at "
                "risk, in the same hospital if train.loss.stratified is set; take fewer folds, a larger "
                "splits.validation_share, or a loss that is not stratified"
            )
    return groups


def _fit_until_no_better(
    state: TrainState, train: TrainingPatients, validation: TrainingPatients, begun: tuple[Objective, dict[str, float]],
    settings: TrainSettings, context: FitContext,
) -> list[dict[str, float]]:  # fmt: skip
    """Train until the validation patients have not been better for `patience` epochs, and go back to the best epoch."""
    (objective, first), resume = begun, context.resume
    progress = resume.read(state) if resume is not None else None
    if progress is None:
        loss, order = validate(state.model, validation, objective, settings)
        history = [{**first, "validation_loss": loss, "validation_concordance": order}]
        progress = TrainProgress(history, _badness(loss, order, settings), 0, copy.deepcopy(state.model.state_dict()))
        context.on_epoch(history[0])
    while state.epoch < settings.max_epochs and state.epoch - progress.best_epoch < settings.patience:
        train_loss = local_update(state, train, objective, settings)
        loss, order = validate(state.model, validation, objective, settings)
        progress.history.append(
            {
                "epoch": float(state.epoch), "train_loss": train_loss, "validation_loss": loss,
                "validation_concordance": order,
            }
        )  # fmt: skip
        context.on_epoch(progress.history[-1])
        badness = _badness(loss, order, settings)
        if badness < progress.best:
            progress.best, progress.best_epoch = badness, state.epoch
            progress.best_state = copy.deepcopy(state.model.state_dict())
        if resume is not None:
            resume.write_in_time(state, progress)
    state.model.load_state_dict(progress.best_state)
    return progress.history


def _badness(loss: float, order: float, settings: TrainSettings) -> float:
    return loss if settings.stop_on == "loss" else -order


def validate(
    model: PrognosisModel, patients: TrainingPatients, objective: Objective, settings: TrainSettings
) -> tuple[float, float]:  # fmt: skip
    """Judge a model on patients as they are.

    Parameters
    ----------
    model : PrognosisModel
        Left in evaluation mode.
    patients : TrainingPatients
        Who.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        Precision.

    Returns
    -------
    tuple of float
        Loss, and Harrell's concordance; 0.5 where no pair can be compared. After balanced steps the loss is that at the level,
        common to all patients, which fits them best.

    Raises
    ------
    TrainingError
        If the loss is not finite; the patients with such logits are named.
    """
    model.eval()
    logits, loss = loss_of(model, patients.parts(), objective, settings)
    if settings.event_balanced and objective.has_level:
        # The level is that of balanced steps until prevalence is restored at the end; judged as it is, it would decide.
        logits = logits.double()
        loss = objective.loss(logits + level_beside(logits, objective, patients.outcome), patients.outcome)
    risk = objective.risk(logits.cpu().numpy().astype(np.float64))
    time_days, event = patients.outcome.time_days.cpu().numpy(), patients.outcome.event.cpu().numpy().astype(np.int64)
    value = concordance(time_days, event, risk)
    return float(loss), value if math.isfinite(value) else 0.5


def follow_up(cohort: Cohort, patient_ids: Sequence[str]) -> tuple[FloatArray, IntArray]:
    """Return time and event of some patients.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    patient_ids : sequence of str
        Who.

    Returns
    -------
    tuple of ndarray
        Days, and 1 event or 0 censored, in the order given.
    """
    rows = cohort.rows_of(patient_ids)
    return cohort.time_days[rows], cohort.event[rows]
