"""Fitting: one local update, and one loop with early stopping around it."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pathoml.cohort import Cohort, Covariate
from pathoml.covariates import CovariateTransform, fit_covariates
from pathoml.infer import predict_logits
from pathoml.mil.objective import Objective, Outcome, fit_objective
from pathoml.mil.packed import Packed, pack
from pathoml.mil.patients import PatientFeatures, Patients, select_patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import TileProjection, fit_projection
from pathoml.mil.settings import ModelSettings
from pathoml.packages import Member
from pathoml.provenance import array_digest, digest_of
from pathoml.settings import result_settings
from pathoml.splits import Fold
from pathoml.survival.baselines import fit_cox
from pathoml.train_settings import TrainSettings
from pathoml.units import FloatArray, IntArray


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


@dataclass(frozen=True)
class Batch:
    """Patients on a device, ready for the model.

    Parameters
    ----------
    tiles : Packed
        Projected tiles.
    covariates : Tensor, shape (patients, columns)
        Transformed covariates.
    outcome : Outcome
        Follow-up.
    """

    tiles: Packed
    covariates: Tensor
    outcome: Outcome


def local_update(
    model: PrognosisModel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    objective: Objective,
    settings: TrainSettings,
) -> float:
    """Take one pass over the batches: all that training, alone or in a federation, does to a model.

    Parameters
    ----------
    model : PrognosisModel
        Changed in place.
    optimizer : torch.optim.Optimizer
        Of the model's parameters.
    batches : sequence of Batch
        Training patients.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        Precision.

    Returns
    -------
    float
        Mean loss over the batches.
    """
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch_loss(model, batch, objective, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def batch_loss(model: PrognosisModel, batch: Batch, objective: Objective, settings: TrainSettings) -> Tensor:
    """Return the loss of one batch, with the head's own terms added.

    Parameters
    ----------
    model : PrognosisModel
        In training or evaluation mode.
    batch : Batch
        Patients.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        Precision.

    Returns
    -------
    Tensor, shape ()
        Connected to the graph.
    """
    device_type = batch.covariates.device.type
    mixed = torch.autocast(device_type, dtype=torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
    with mixed:
        output = model(batch.tiles, batch.covariates)
    loss = objective.loss(output.logits.float(), batch.outcome)
    return loss + sum(output.auxiliary.values(), start=torch.zeros((), device=loss.device))


def fit_member(
    data: TrainingData, fold: Fold, model_settings: ModelSettings, settings: TrainSettings, *, device: str = "cpu"
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
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    tuple of Member and list of dict
        The fitted model on the CPU, and the losses of each epoch.
    """
    train = select_patients(data.cohort, data.features, fold.train)
    projection = None if train.features is None else fit_projection(train.features, model_settings.tile_components)
    transform = fit_covariates(data.covariates, train.covariates)
    time_days, event = follow_up(data.cohort, fold.train)
    objective = fit_objective(settings.loss, time_days, event)
    torch.manual_seed(settings.seed)
    model = _start_model(projection, transform, objective, model_settings)
    _start_covariates(model, transform.apply(train.covariates), time_days, event, objective, settings)
    batch_of = _BatchMaker(data.cohort, projection, transform, device)
    validation = batch_of(select_patients(data.cohort, data.features, fold.validation))
    history = _fit_until_no_better(model.to(device), batch_of(train), validation, objective, settings)
    fitted = model.to("cpu").eval()
    name = digest_of(fold.key)[:8]
    draft = Member(name, model_settings.aggregator, fitted, projection, transform, objective, 0.0, 1.0, 0.0, ())
    return _calibrate(draft, data, fold), history


class _BatchMaker:
    """Turns patients into tensors with a fold's transforms."""

    def __init__(
        self, cohort: Cohort, projection: TileProjection | None, transform: CovariateTransform, device: str
    ) -> None:
        self._cohort, self._projection, self._transform, self._device = cohort, projection, transform, device

    def __call__(self, patients: Patients) -> Batch:
        bags = [torch.zeros((0, 0))] * len(patients.patient_id)
        if patients.features is not None and self._projection is not None:
            bags = [torch.from_numpy(self._projection.apply(features)) for features in patients.features]
        time_days, event = follow_up(self._cohort, patients.patient_id)
        tiles = pack(bags)
        return Batch(
            Packed(tiles.values.to(self._device), tiles.offsets.to(self._device)),
            torch.from_numpy(self._transform.apply(patients.covariates).astype(np.float32)).to(self._device),
            Outcome(torch.from_numpy(event == 1).to(self._device), torch.from_numpy(time_days).to(self._device)),
        )


def _fit_until_no_better(
    model: PrognosisModel, train: Batch, validation: Batch, objective: Objective, settings: TrainSettings
) -> list[dict[str, float]]:
    """Train until the validation loss has not improved for `patience` epochs, and go back to the best epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    best_loss, best_epoch, best_state = (
        _validation_loss(model, validation, objective, settings),
        0,
        copy.deepcopy(model.state_dict()),
    )
    history = [{"epoch": 0, "validation_loss": best_loss}]
    for epoch in range(1, settings.max_epochs + 1):
        train_loss = local_update(
            model, optimizer, _split_batch(train, settings.batch_patients, generator), objective, settings
        )
        loss = _validation_loss(model, validation, objective, settings)
        history.append({"epoch": epoch, "train_loss": train_loss, "validation_loss": loss})
        if loss < best_loss:
            best_loss, best_epoch, best_state = loss, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(best_state)
    return history


def _validation_loss(model: PrognosisModel, validation: Batch, objective: Objective, settings: TrainSettings) -> float:
    model.eval()
    with torch.no_grad():
        return float(batch_loss(model, validation, objective, settings))


def _split_batch(batch: Batch, patients: int | None, generator: torch.Generator) -> list[Batch]:
    """Deal the patients at random into batches of a size; None leaves them together."""
    count = len(batch.covariates)
    if patients is None or patients >= count:
        return [batch]
    order = torch.randperm(count, generator=generator).split(patients)  # type: ignore[no-untyped-call]
    return [_take(batch, rows) for rows in order]


def _take(batch: Batch, rows: Tensor) -> Batch:
    bounds = batch.tiles.offsets.tolist()
    bags = [batch.tiles.values[bounds[row] : bounds[row + 1]] for row in rows.tolist()]
    rows = rows.to(batch.covariates.device)
    return Batch(pack(bags), batch.covariates[rows], Outcome(batch.outcome.event[rows], batch.outcome.time_days[rows]))


def _start_model(
    projection: TileProjection | None, transform: CovariateTransform, objective: Objective, settings: ModelSettings
) -> PrognosisModel:
    tile_dim = 0 if projection is None else len(projection.components)
    model = PrognosisModel(settings.aggregator, ModelShape(tile_dim, len(transform.names), objective.out))
    model.bias.requires_grad_(objective.has_level)
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
