"""One pass over a site's patients of which no single one shows: patients drawn by chance, gradients clipped, noise added."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pathoml.errors import FederationError, TrainingError
from pathoml.federated.accountant import Release, joint_noise
from pathoml.federated.privacy_settings import reasons_against, steps_per_pass
from pathoml.federated.private_noise import Draw, gaussian, seeds, system_draw
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.gradients import step_gradient
from pathoml.mil.objective import Objective
from pathoml.mil.objectives import CoxObjective, DiscreteObjective
from pathoml.mil.prognosis import PrognosisModel
from pathoml.train import Correction, step_size
from pathoml.train_settings import TrainSettings
from pathoml.train_state import TrainState

Sample = Sequence[tuple[int, int]]
"""Patients of a step, each with the seed of everything that is random about it but its being there."""


@dataclass(frozen=True)
class PrivateTraining:
    """How much of a patient may show.

    Parameters
    ----------
    clip_norm : float
        Longest gradient of one patient.
    noise_multiplier : float
        Standard deviation of the gradients' noise in units of `clip_norm`.
    sample_rate : float
        Chance of each patient to take part in a step.
    loss_bound : float
        Highest loss of one patient that counts.
    loss_noise_multiplier : float
        Standard deviation of the losses' noise in units of `loss_bound`.
    spend : callable
        Told what is about to be let out, before a step is taken; raises if that is too much.
    draw : callable, optional
        Source of chance; anything but the default is for tests.
    """

    clip_norm: float
    noise_multiplier: float
    sample_rate: float
    loss_bound: float
    loss_noise_multiplier: float
    spend: Callable[[Release], None]
    draw: Draw = field(default=system_draw)


@dataclass(frozen=True)
class ClippedSum:
    """What the patients of a step add up to, before noise.

    Parameters
    ----------
    gradient : Tensor of float64, shape (parameters,)
        Sum of the patients' gradients, each no longer than the limit.
    loss : float
        Sum of their losses, each between 0 and the bound.
    """

    gradient: Tensor
    loss: float


def private_update(
    state: TrainState, patients: TrainingPatients, objective: Objective, settings: TrainSettings, privacy: PrivateTraining,
    *, correct: Correction | None = None,
) -> float:  # fmt: skip
    """Take one pass over the patients as `pathoml.train.local_update` does, but with patients' privacy.

    In each step every patient takes part with the same chance; the gradient of each, all its slides together, is
    shortened to a limit; they are summed, noise is added, and the sum is divided by the number of patients to be
    expected. How many patients the site has is taken as known. Everything random comes from `privacy.draw`, nothing from the
    plan's seed or the state's generators, which stay where they are: who knows the seed must not be able to subtract the
    noise. Each patient's dropout and drawn tiles have a seed of their own, so that they say nothing of who else takes part.

    Parameters
    ----------
    state : TrainState
        Changed in place.
    patients : TrainingPatients
        Who.
    objective : Objective
        What is minimised; has to separate by patient.
    settings : TrainSettings
        How.
    privacy : PrivateTraining
        Limits, noise, and who counts what is spent.
    correct : callable, optional
        Changes the noised gradients of every step, by nothing but what has left already: shared models and older updates.

    Returns
    -------
    float
        Mean loss over the steps, of clipped losses and with noise: as safe to let out as the gradients.

    Raises
    ------
    FederationError
        If privacy cannot be had for this loss.
    RefusedError
        If it would spend more than is allowed; nothing has been done then.
    TrainingError
        If a patient's loss or gradient is not finite.
    """
    _refuse_inseparable(objective, settings)
    steps = steps_per_pass(privacy.sample_rate)
    noise = joint_noise(privacy.noise_multiplier, privacy.loss_noise_multiplier)
    privacy.spend(Release(privacy.sample_rate, noise, steps))
    expected = privacy.sample_rate * len(patients)
    state.model.train()
    for group in state.optimizer.param_groups:
        group["lr"] = step_size(state.epoch, settings)
    losses = []
    for _ in range(steps):
        total = clipped_sum(state.model, patients, draw_patients(len(patients), privacy), objective, settings, privacy)
        noised = total.gradient.cpu().numpy()
        if privacy.noise_multiplier:
            noised = noised + privacy.noise_multiplier * privacy.clip_norm * gaussian(len(noised), privacy.draw)
        _set_gradient(state.model, torch.from_numpy(noised / expected))
        if correct is not None:
            correct(state.model)
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
        state.optimizer.step()
        loss = total.loss
        if privacy.loss_noise_multiplier:
            loss += privacy.loss_noise_multiplier * privacy.loss_bound * float(gaussian(1, privacy.draw)[0])
        losses.append(loss / expected)
    state.epoch += 1
    return float(np.mean(losses))


def draw_patients(count: int, privacy: PrivateTraining) -> Sample:
    """Draw who takes part in a step: each patient by a chance of its own, so that their number varies and may be 0.

    Parameters
    ----------
    count : int
        Patients there are.
    privacy : PrivateTraining
        The chance, and its source.

    Returns
    -------
    sequence of tuple
        Row and seed of each.
    """
    taken, own = privacy.draw(count) < privacy.sample_rate, seeds(count, privacy.draw)
    return [(row, own[row]) for row in range(count) if taken[row]]


def clipped_sum(
    model: PrognosisModel, patients: TrainingPatients, sample: Sample, objective: Objective, settings: TrainSettings,
    privacy: PrivateTraining,
) -> ClippedSum:  # fmt: skip
    """Add up the clipped gradients and losses of some patients, one backward pass each.

    One patient more or less changes the gradient by at most the limit, and the loss by at most the bound.

    Parameters
    ----------
    model : PrognosisModel
        In training mode; its own gradients are overwritten.
    patients : TrainingPatients
        All.
    sample : sequence of tuple
        Row and seed of those who take part.
    objective : Objective
        What is minimised.
    settings : TrainSettings
        Precision, and how tiles are disturbed.
    privacy : PrivateTraining
        Limit and bound.

    Returns
    -------
    ClippedSum
        Before noise.

    Raises
    ------
    TrainingError
        If a patient's loss or gradient is not finite.
    """
    parameters = _trained(model)
    device = model.bias.device
    gradient = torch.zeros(sum(one.numel() for one in parameters), dtype=torch.float64, device=device)
    total = 0.0
    if not sample:
        return ClippedSum(gradient, total)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        for part, (_, seed) in zip(patients.one_by_one(sample), sample, strict=True):
            _seed(device, seed)
            model.zero_grad()
            loss = float(step_gradient(model, [part], objective, settings))
            own = torch.cat([_flat(one) for one in parameters])
            norm = float(own.norm())
            if not math.isfinite(norm):
                raise TrainingError(
                    f"patient {part.patient_id[0]}: the gradient is not finite; set train.learning_rate lower"
                )
            gradient += own * min(1.0, privacy.clip_norm / norm) if norm else own
            total += min(max(loss, 0.0), privacy.loss_bound)
    return ClippedSum(gradient, total)


def _refuse_inseparable(objective: Objective, settings: TrainSettings) -> None:
    loss = objective.settings if isinstance(objective, CoxObjective | DiscreteObjective) else settings.loss
    reasons = reasons_against(settings.model_copy(update={"loss": loss}))
    if reasons:
        raise FederationError("\n  ".join(["privacy of patients cannot be had for this training:", *reasons]))


def _seed(device: torch.device, seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also take down a seed for every GPU to come
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _trained(model: PrognosisModel) -> list[nn.Parameter]:
    return [one for one in model.parameters() if one.requires_grad]


def _flat(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's gradient in a row; zeros if the loss does not depend on it."""
    grown = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return grown.detach().reshape(-1).double()


def _set_gradient(model: PrognosisModel, gradient: Tensor) -> None:
    start = 0
    for one in _trained(model):
        one.grad = gradient[start : start + one.numel()].reshape(one.shape).to(one.device, one.dtype)
        start += one.numel()
