"""Fitting: one local update, and one loop with early stopping around it."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from pathoml.cohort import Cohort, Covariate, patients_digest
from pathoml.covariates import CovariateTransform, fit_covariates
from pathoml.errors import TrainingError
from pathoml.infer import predict_logits
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.gradients import forward, step_gradient
from pathoml.mil.objective import Objective, Outcome, fit_objective
from pathoml.mil.patients import PatientFeatures, select_patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import TileProjection, as_they_are, fit_projection
from pathoml.mil.published import start_from
from pathoml.mil.settings import ModelSettings
from pathoml.mil.tile_rows import TileRows
from pathoml.packages import Member
from pathoml.provenance import array_digest, digest_of
from pathoml.settings import result_settings
from pathoml.splits import Fold
from pathoml.survival import concordance
from pathoml.survival.baselines import fit_cox
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
    covariates : tuple of NumericCovariate, CategoricalCovariate or BlockCovariate
        Which columns enter.
    """

    cohort: Cohort
    features: PatientFeatures | None
    covariates: tuple[Covariate, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        table = self.cohort.covariates.to_csv()
        outcome = [array_digest(self.cohort.time_days), array_digest(self.cohort.event), list(self.cohort.patient_id)]
        tiles = None if self.features is None else self.features.digest
        return digest_of([table, outcome, tiles, [result_settings(one) for one in self.covariates]])


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
        Mean loss over the steps.

    Raises
    ------
    TrainingError
        If a loss is not finite.
    """
    outside = torch.get_rng_state()
    torch.set_rng_state(state.random)
    try:
        state.model.train()
        for group in state.optimizer.param_groups:
            group["lr"] = step_size(state.epoch, settings)
        losses = []
        for parts in patients.steps(state.dealer):
            state.optimizer.zero_grad()
            losses.append(step_gradient(state.model, parts, objective, settings))
            if correct is not None:
                correct(state.model)
            if settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
            state.optimizer.step()
        state.epoch += 1
        state.random = torch.get_rng_state()
    finally:
        torch.set_rng_state(outside)
    return float(torch.stack(losses).mean())


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

    Transforms of tiles and covariates and time bins come from training patients, centre, scale and cut-off of the risk
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
    train = select_patients(data.cohort, data.features, fold.train)
    projection = context.projection or fit_tile_projection(data, fold, model_settings)
    transform = fit_covariates(data.covariates, train.covariates)
    time_days, event = follow_up(data.cohort, fold.train)
    objective = fit_objective(settings.loss, time_days, event)
    torch.manual_seed(settings.seed)
    model = _start_model(projection, transform, objective, model_settings)
    _start_covariates(model, transform.apply(train.covariates), time_days, event, objective, settings)

    def patients_of(names: Sequence[str]) -> TrainingPatients:
        chosen = select_patients(data.cohort, data.features, names)
        return TrainingPatients(chosen, data.cohort, projection, transform, settings, context.device)

    state = start_state(model.to(context.device), settings)
    history = _fit_until_no_better(
        state, patients_of(fold.train), patients_of(fold.validation), objective, settings, context
    )
    fitted = model.to("cpu").eval()
    name = digest_of(fold.key if settings.seed == 0 else [fold.key, settings.seed])[:8]
    draft = Member(name, model_settings.aggregator, fitted, projection, transform, objective, 0.0, 1.0, 0.0, ())
    return _calibrate(draft, data, fold), history


def _fit_until_no_better(
    state: TrainState, train: TrainingPatients, validation: TrainingPatients, objective: Objective, settings: TrainSettings,
    context: FitContext,
) -> list[dict[str, float]]:  # fmt: skip
    """Train until the validation patients have not been better for `patience` epochs, and go back to the best epoch."""
    resume = context.resume
    progress = resume.read(state) if resume is not None else None
    if progress is None:
        loss, order = validate(state.model, validation, objective, settings)
        history = [{"epoch": 0.0, "validation_loss": loss, "validation_concordance": order}]
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
        Loss, and Harrell's concordance; 0.5 where no pair can be compared.
    """
    model.eval()
    with torch.no_grad():
        logits = torch.cat([forward(model, part, settings).logits for part in patients.parts()])
        loss = float(objective.loss(logits, patients.outcome))
    risk = objective.risk(logits.cpu().numpy().astype(np.float64))
    time_days, event = patients.outcome.time_days.cpu().numpy(), patients.outcome.event.cpu().numpy().astype(np.int64)
    value = concordance(time_days, event, risk)
    return loss, value if math.isfinite(value) else 0.5


def _start_model(
    projection: TileProjection | None, transform: CovariateTransform, objective: Objective, settings: ModelSettings
) -> PrognosisModel:
    tile_dim = 0 if projection is None else projection.out
    model = PrognosisModel(settings.aggregator, ModelShape(tile_dim, len(transform.names), objective.out))
    model.bias.requires_grad_(objective.has_level)
    if settings.start is not None and model.slides is not None:
        start_from(model.slides, settings.start)
    return model


def _start_covariates(
    model: PrognosisModel, design: FloatArray, time_days: FloatArray, event: IntArray, objective: Objective, settings: TrainSettings
) -> None:  # fmt: skip
    """Start covariates at the fold's Cox fit, bins at their observed hazard; a random start can leave age with the wrong sign."""
    cox = fit_cox(design, time_days, event, ridge=settings.covariate_ridge)
    with torch.no_grad():
        model.covariate_weight.copy_(torch.from_numpy(cox.coefficients))
        if objective.has_level:
            outcome = Outcome(torch.from_numpy(event == 1), torch.from_numpy(time_days))
            model.bias.copy_(_marginal_logits(objective, outcome))


def _marginal_logits(objective: Objective, outcome: Outcome) -> Tensor:
    """Fit the same hazard logits for all patients: the loss is convex, so a few Newton-like steps do."""
    logits = torch.zeros(objective.out, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss(logits.expand(len(outcome.event), -1), outcome) + 1e-4 * logits.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return logits.detach()


def _calibrate(draft: Member, data: TrainingData, fold: Fold) -> Member:
    """Fit what turns logits into risks, groups and curves, on the patients that fitted the model."""
    fitted_on = (*fold.train, *fold.validation)
    patients = select_patients(data.cohort, data.features, fitted_on)
    logits = predict_logits(draft, patients)
    time_days, event = follow_up(data.cohort, fitted_on)
    objective = draft.objective.calibrated(logits, time_days, event)
    risk = objective.risk(logits)
    shift = draft.covariates.apply(patients.covariates) @ draft.model.covariate_weight.detach().numpy().astype(
        np.float64
    )
    slide_part = logits - shift[:, None] - draft.model.bias.detach().numpy().astype(np.float64)
    return replace(
        draft,
        objective=objective,
        risk_centre=float(risk.mean()),
        risk_scale=float(risk.std()) or 1.0,
        risk_cutoff=float(np.median(risk)),
        slide_centre=tuple(slide_part.mean(axis=0).tolist()),
    )


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
