"""The gradient of a step, whole or part by part: the same number in the memory of one part."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from pathoml.errors import TrainingError
from pathoml.mil.batches import Batch
from pathoml.mil.objective import Objective, Outcome
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.prognosis import PrognosisModel
from pathoml.train_settings import TrainSettings


def step_gradient(
    model: PrognosisModel, parts: Sequence[Batch], objective: Objective, settings: TrainSettings
) -> Tensor:  # fmt: skip
    """Add the gradient of one step's loss to a model's.

    Losses of survival compare patients with each other, so that a step cannot be cut into smaller ones. With several parts
    each goes through the model twice: first without a graph, for the logits; then, with the gradient of the loss with
    respect to them, with a graph of its own and the same dropout. The gradient is that of all parts at once.

    Parameters
    ----------
    model : PrognosisModel
        In training mode.
    parts : sequence of Batch
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
    outcome = join_outcomes([part.outcome for part in parts])
    if len(parts) == 1:
        output = forward(model, parts[0], settings)
        loss = _finite(total_loss(output, outcome, objective), output.logits, parts)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    states, outputs = [], []
    for part in parts:
        states.append(_random_state(part))
        with torch.no_grad():
            outputs.append(forward(model, part, settings))
    after = _random_state(parts[-1])
    joined, leaves = _joined(outputs, parts)
    loss = _finite(total_loss(joined, outcome, objective), joined.logits, parts)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: leaf.grad for name, leaf in leaves.items()}
    start = 0
    for part, state in zip(parts, states, strict=True):
        _set_random_state(state)
        rows, share = slice(start, start + len(part)), len(part) / len(outcome.event)
        _backward_part(forward(model, part, settings), gradients, rows, share)
        start += len(part)
    _set_random_state(after)
    return loss.detach()


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
    with mixed:
        output: BagOutput = model(tiles, batch.covariates)
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
        further = [objective.loss(view, outcome) for view in value] if value.ndim else [value]
        loss = loss + torch.stack(further).mean()
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


def _joined(outputs: Sequence[BagOutput], parts: Sequence[Batch]) -> tuple[BagOutput, dict[str, Tensor]]:
    """Put the outputs of parts together, as leaves of a new graph."""
    logits = torch.cat([one.logits for one in outputs]).requires_grad_()
    leaves, auxiliary = {"logits": logits}, {}
    count = sum(map(len, parts))
    for name, first in outputs[0].auxiliary.items():
        values = [one.auxiliary[name] for one in outputs]
        if first.ndim == 0:  # a mean over bags, by how many each part has
            weights = [len(part) / count for part in parts]
            auxiliary[name] = torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum()
        else:
            auxiliary[name] = leaves[f"auxiliary.{name}"] = torch.cat(values, dim=1).requires_grad_()
    return BagOutput(logits, None, None, auxiliary), leaves


def _backward_part(output: BagOutput, gradients: dict[str, Tensor | None], rows: slice, share: float) -> None:
    tensors, given = [output.logits], [_given(gradients, "logits", output.logits)[rows]]
    for name, value in output.auxiliary.items():
        tensors.append(value)
        if value.ndim == 0:
            given.append(torch.full_like(value, share))
        else:
            given.append(_given(gradients, f"auxiliary.{name}", value)[:, rows])
    torch.autograd.backward(tensors, given)


def _given(gradients: dict[str, Tensor | None], name: str, like: Tensor) -> Tensor:
    gradient = gradients[name]
    return torch.zeros_like(like) if gradient is None else gradient


def _finite(loss: Tensor, logits: Tensor, parts: Sequence[Batch]) -> Tensor:
    if bool(torch.isfinite(loss)):
        return loss
    names = [name for part in parts for name in part.patient_id]
    bad = [name for name, row in zip(names, torch.isfinite(logits).all(dim=1).tolist(), strict=True) if not row]
    who = f"patient(s) {', '.join(bad[:5])}" if bad else "all patients together"
    raise TrainingError(
        f"the loss is not a finite number; it comes from {who}; look at their bags and covariates, or set "
        "train.learning_rate lower, or train.clip_norm"
    )


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


def _random_state(batch: Batch) -> tuple[Tensor, Tensor | None]:
    device = batch.covariates.device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
