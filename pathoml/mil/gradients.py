"""The gradient of a step, whole or part by part: the same number in the memory of one part."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from pathoml.errors import TrainingError
from pathoml.mil.batches import Batch, Parts
from pathoml.mil.objective import Objective, Outcome
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.prognosis import PrognosisModel
from pathoml.mil.randomness import random_state, set_random_state
from pathoml.mil.room import Room
from pathoml.train_settings import TrainSettings

_MB = 2**20


def step_gradient(
    model: PrognosisModel, parts: Parts | Sequence[Batch], objective: Objective, settings: TrainSettings
) -> Tensor:  # fmt: skip
    """Add the gradient of one step's loss to a model's.

    Losses of survival compare patients with each other, so that a step cannot be cut into smaller ones. With several parts
    each goes through the model for its logits; then, with the gradient of the loss with respect to them, back. Graphs that fit
    into `settings.kept_mb` are kept for that, the others made again with the same dropout. The gradient is that of all
    parts at once, and how much is kept changes no bit of it.

    Parameters
    ----------
    model : PrognosisModel
        In training mode.
    parts : Parts, or sequence of Batch
        Together the patients of the step.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        Precision, and how tiles are disturbed.

    Returns
    -------
    Tensor, shape ()
        The loss.

    Raises
    ------
    TrainingError
        If it is not finite; the patients with such logits are named.
    """
    if len(parts) > 1:
        return _in_two_passes(model, parts, objective, settings)
    seen = _Seen()
    outputs = [seen.note(part, forward(model, part, settings)) for part in parts]
    loss = _finite(total_loss(outputs[0], seen.outcome, objective), outputs, seen)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def loss_of(
    model: PrognosisModel, parts: Parts, objective: Objective, settings: TrainSettings
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what a model says of patients, and their loss, without a gradient.

    Parameters
    ----------
    model : PrognosisModel
        In evaluation mode.
    parts : Parts
        The patients.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        Precision.

    Returns
    -------
    tuple of Tensor
        Logits of shape (patients, out), and the loss of shape ().

    Raises
    ------
    TrainingError
        If the loss is not finite; the patients with such logits are named.
    """
    seen = _Seen()
    with torch.no_grad():
        outputs = [_without_graph(seen.note(part, forward(model, part, settings))) for part in parts]
        logits = _joined(outputs).logits
        return logits, _finite(objective.loss(logits, seen.outcome), outputs, seen)


def _in_two_passes(
    model: PrognosisModel, parts: Parts | Sequence[Batch], objective: Objective, settings: TrainSettings
) -> Tensor:  # fmt: skip
    seen, states, outputs = _Seen(), [], []
    graphs: list[BagOutput] = []
    device = model.bias.device
    room = Room(settings.kept_mb * _MB, _in_memory_anyway(model, parts))
    for part in parts:
        states.append(random_state(device))
        with torch.set_grad_enabled(not room.is_full), room:
            output = seen.note(part, forward(model, part, settings))
        outputs.append(_without_graph(output))
        if not room.is_full or not graphs:  # there has to be room for one
            graphs.append(output)
        del output
    after = random_state(device)
    joined = _joined(outputs)
    leaves = {"logits": joined.logits.requires_grad_()}
    leaves |= {name: value.requires_grad_() for name, value in joined.auxiliary.items()}
    loss = _finite(total_loss(joined, seen.outcome, objective), outputs, seen)
    loss.backward()  # type: ignore[no-untyped-call]
    # From the last part to the first, as one backward pass through all graphs would add them up.
    known, back = len(graphs), slice(None, len(graphs) - 1, -1)
    for part, state, own in zip(parts[back], states[back], seen.rows[back], strict=True):
        set_random_state(device, state)
        with Room(math.inf):
            output = forward(model, part, settings)
        _backward_part(output, leaves, own)
        del output
    for own in reversed(seen.rows[:known]):
        _backward_part(graphs.pop(), leaves, own)
    set_random_state(device, after)
    return loss.detach()


def _in_memory_anyway(model: PrognosisModel, parts: Parts | Sequence[Batch]) -> list[Tensor]:
    """Return what graphs save without taking memory: parameters, and tiles that are not read for the step."""
    tiles = [] if isinstance(parts, Parts) else [part.tiles.values for part in parts]
    return [*model.parameters(), *tiles]


def forward(model: PrognosisModel, batch: Batch, settings: TrainSettings) -> BagOutput:
    """Run a model on a batch; in training its tiles are disturbed as the settings say.

    Parameters
    ----------
    model : PrognosisModel
        In training or evaluation mode.
    batch : Batch
        Patients.
    settings : TrainSettings
        Precision, left-out tiles and noise.

    Returns
    -------
    BagOutput
        Logits in float32.
    """
    tiles = _disturbed(batch.tiles, settings) if model.training else batch.tiles
    device_type = batch.covariates.device.type
    mixed = torch.autocast(device_type, dtype=torch.bfloat16) if settings.precision == "bfloat16" else nullcontext()
    present = batch.present
    if model.training and present is not None and settings.modality_dropout:
        present = _without_some_parts(present, settings.modality_dropout)
    with mixed:
        output: BagOutput = model(tiles, batch.covariates, present)
    further = {name: value.float() for name, value in output.auxiliary.items()}
    return output._replace(logits=output.logits.float(), auxiliary=further)


def total_loss(output: BagOutput, outcome: Outcome, objective: Objective) -> Tensor:
    """Return the objective's loss with the head's own terms.

    Parameters
    ----------
    output : BagOutput
        Of all patients of a step.
    outcome : Outcome
        Their follow-up.
    objective : Objective
        What is minimised.

    Returns
    -------
    Tensor, shape ()
        Connected to the graph.
    """
    loss = objective.loss(output.logits, outcome)
    for value in output.auxiliary.values():
        if value.ndim == 1:
            loss = loss + value[0] / value[1].clamp(min=1)
        else:
            loss = loss + torch.stack([objective.loss(view, outcome) for view in value]).mean()
    return loss


def join_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Put the follow-up of several parts together.

    Parameters
    ----------
    outcomes : sequence of Outcome
        One a part.

    Returns
    -------
    Outcome
        Of all, in order.
    """
    if len(outcomes) == 1:
        return outcomes[0]
    strata = [one.stratum for one in outcomes if one.stratum is not None]
    return Outcome(
        torch.cat([one.event for one in outcomes]), torch.cat([one.time_days for one in outcomes]),
        torch.cat(strata) if len(strata) == len(outcomes) else None,
    )  # fmt: skip


class _Seen:
    """Who went through the model, part by part."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.counts: list[int] = []
        self._outcomes: list[Outcome] = []

    def note(self, part: Batch, output: BagOutput) -> BagOutput:
        """Remember a part's patients; return its output."""
        self.names += part.patient_id
        self.counts.append(len(part))
        self._outcomes.append(part.outcome)
        return output

    @property
    def rows(self) -> list[slice]:
        """Rows of each part."""
        return [slice(*span) for span in pairwise(accumulate(self.counts, initial=0))]

    @property
    def outcome(self) -> Outcome:
        """Follow-up of all."""
        return join_outcomes(self._outcomes)


def _joined(outputs: Sequence[BagOutput]) -> BagOutput:
    """Put the outputs of parts together."""
    auxiliary = {}
    for name, first in outputs[0].auxiliary.items():
        values = [one.auxiliary[name] for one in outputs]
        auxiliary[name] = torch.stack(values).sum(dim=0) if first.ndim == 1 else torch.cat(values, dim=1)
    return BagOutput(torch.cat([one.logits for one in outputs]), None, None, auxiliary)


def _without_graph(output: BagOutput) -> BagOutput:
    return BagOutput(
        output.logits.detach(),
        None,
        None,
        {name: value.detach() for name, value in output.auxiliary.items()},
    )


def _backward_part(output: BagOutput, leaves: dict[str, Tensor], rows: slice) -> None:
    tensors, given = [output.logits], [_gradient(leaves["logits"])[rows]]
    for name, value in output.auxiliary.items():
        tensors.append(value)
        gradient = _gradient(leaves[name])
        given.append(gradient if value.ndim == 1 else gradient[:, rows])
    torch.autograd.backward(tensors, given)


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _finite(loss: Tensor, outputs: Sequence[BagOutput], seen: _Seen) -> Tensor:
    if bool(torch.isfinite(loss)):
        return loss
    fine = torch.cat([torch.isfinite(one.logits).all(dim=1) for one in outputs]).tolist()
    bad = [name for name, one in zip(seen.names, fine, strict=True) if not one]
    who = f"patient(s) {', '.join(bad[:5])}" if bad else "all patients together"
    raise TrainingError(
        f"the loss is not a finite number; it comes from {who}; look at their bags and covariates, or set "
        "train.learning_rate lower, or train.clip_norm"
    )


def _without_some_parts(present: Tensor, share: float) -> Tensor:
    """Hide parts that patients have, one of each patient at least being left."""
    draw = torch.where(present, torch.rand(present.shape, device=present.device), -1.0)
    lasting = draw == draw.amax(dim=1, keepdim=True)
    return present & ((draw >= share) | lasting)


def _disturbed(tiles: Packed, settings: TrainSettings) -> Packed:
    """Leave some tiles out, one of each bag at least being left, and add noise to the others."""
    if settings.tile_dropout and len(tiles.values):
        draw = torch.rand(len(tiles.values), device=tiles.values.device)
        lowest = torch.zeros(len(tiles.lengths), device=draw.device).scatter_reduce(
            0, tiles.bag_of_row, 1 - draw, "amax", include_self=False
        )
        kept = (draw >= settings.tile_dropout) | (1 - draw == lowest[tiles.bag_of_row])
        lengths = torch.zeros_like(tiles.lengths).index_add(0, tiles.bag_of_row, kept.long())
        offsets = torch.cat([tiles.offsets[:1], lengths.cumsum(0)])
        places = None if tiles.places is None else tiles.places[kept]
        tiles = Packed(tiles.values[kept], offsets, places)
    if settings.feature_noise:
        tiles = tiles.filled(tiles.values + settings.feature_noise * torch.randn_like(tiles.values))
    return tiles
