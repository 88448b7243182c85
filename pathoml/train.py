"""Fitting: one local update, one loop with early stopping around it, one cross-validation around that."""

import copy
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pathoml.cohort import BlockCovariate, Cohort, Covariate
from pathoml.covariates import CovariateTransform, fit_covariates
from pathoml.errors import PackageError
from pathoml.files import write_text
from pathoml.infer import predict_logits, predict_member, risk_groups
from pathoml.mil.objective import CoxObjective, Objective, Outcome, fit_objective
from pathoml.mil.packed import Packed, pack
from pathoml.mil.patients import PatientFeatures, Patients, select_patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import TileProjection, fit_projection
from pathoml.mil.settings import ModelSettings
from pathoml.packages import Member, Package, load_package, save_package
from pathoml.predictions import Predictions, join_predictions
from pathoml.progress import Progress, silent
from pathoml.provenance import array_digest, digest_of
from pathoml.settings import result_settings
from pathoml.splits import ROLES, Fold
from pathoml.survival import fit_cox
from pathoml.train_settings import TrainSettings
from pathoml.units import FloatArray, IntArray

MODEL, CLINICAL = "model", "clinical"
"""Names in the predictions table: the model that was asked for, and the Cox model on clinical covariates alone."""


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

    Transforms of tiles and covariates, time bins and the risk cut-off come from training patients only. The test
    patients are not looked at.

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
    time_days, event = _follow_up(data.cohort, fold.train)
    objective = fit_objective(settings.loss, time_days, event)
    torch.manual_seed(settings.seed)
    model = _start_model(projection, transform, objective, model_settings)
    _start_covariates(model, transform.apply(train.covariates), time_days, event, objective, settings)
    batch_of = _BatchMaker(data.cohort, projection, transform, device)
    validation = batch_of(select_patients(data.cohort, data.features, fold.validation))
    history = _fit_until_no_better(model.to(device), batch_of(train), validation, objective, settings)
    draft = Member(
        fold.key, model_settings.aggregator, model.to("cpu").eval(), projection, transform, objective, 0.0, 1.0, 0.0, ()
    )
    return _calibrate(draft, data, fold), history


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
        With one member.
    """
    folder = plan.folder / fold.folder_name
    groups = [fold.key, fold.train, fold.validation]
    digest = digest_of(
        [data.digest, groups, result_settings(plan.model), result_settings(plan.train), plan.template.summary]
    )
    saved = _saved_fold(folder, digest)
    if saved is not None:
        return saved
    member, history = fit_member(data, fold, plan.model, plan.train, device=plan.device)
    # Times at which single patients had their event stay here: curves are given on the package's grid only.
    member = replace(member, objective=member.objective.on_grid(np.asarray(plan.template.curve_days, dtype=np.float64)))
    package = replace(plan.template, members=(member,), summary={**plan.template.summary, "training_digest": digest})
    write_text(
        folder.with_name(f"{folder.name}.jsonl"),
        "".join(json.dumps({"fold": fold.key, **row}) + "\n" for row in history),
    )
    save_package(folder, package)
    return package


def cross_validate(
    data: TrainingData, folds: Sequence[Fold], plan: FitPlan, *, progress: Progress = silent
) -> tuple[dict[str, Package], Predictions]:
    """Fit one model a fold and predict its patients; beside it the Cox model on clinical covariates.

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
        for role in ROLES:
            patients = select_patients(data.cohort, data.features, getattr(fold, role))
            table, survival = predict_member(packages[fold.key].members[0], patients, days)
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
    time_days, event = _follow_up(data.cohort, fitted_on)
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
        time_days, event = _follow_up(self._cohort, patients.patient_id)
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
    return PrognosisModel(settings.aggregator, ModelShape(tile_dim, len(transform.names), objective.out))


def _start_covariates(
    model: PrognosisModel, design: FloatArray, time_days: FloatArray, event: IntArray, objective: Objective, settings: TrainSettings
) -> None:  # fmt: skip
    """Start covariates at the fold's Cox fit, bins at their observed hazard; a random start can leave age with the wrong sign."""
    cox = fit_cox(design, time_days, event, ridge=settings.covariate_ridge)
    with torch.no_grad():
        model.covariate_weight.copy_(torch.from_numpy(cox.coefficients))
        if objective.out > 1:
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
    time_days, event = _follow_up(data.cohort, fitted_on)
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


def _follow_up(cohort: Cohort, patient_ids: Sequence[str]) -> tuple[FloatArray, IntArray]:
    rows = cohort.rows_of(patient_ids)
    return cohort.time_days[rows], cohort.event[rows]


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
