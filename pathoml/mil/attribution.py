"""What each tile adds to a model that is no sum over tiles."""

from collections.abc import Callable

import torch
from torch import Tensor

from pathoml.mil.packed import BagOutput, Packed

STEPS = 32


def integrated_gradients(
    model: Callable[[Packed], BagOutput], tiles: Packed, *, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Share the mean logit of one bag out among its tiles, from the average tile to what they are.

    Parameters
    ----------
    model : callable
        An aggregator, or a model's slides alone, in evaluation mode.
    tiles : Packed
        One bag, projected, so that 0 is the average training tile.
    steps : int, optional
        Between the two; more make the sum more exact.

    Returns
    -------
    shares : Tensor, shape (tiles,)
        They sum to the bag's mean logit less `start`, up to the number of steps.
    start : Tensor, shape ()
        The mean logit of as many average tiles.

    References
    ----------
    Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017, equation 3, by the midpoint rule.
    """
    values = tiles.values.detach().float()
    total = torch.zeros_like(values)
    with torch.enable_grad():
        for step in range(steps):
            scaled = (values * ((step + 0.5) / steps)).requires_grad_()
            (gradient,) = torch.autograd.grad(model(tiles.filled(scaled)).logits.mean(), scaled)
            total += gradient
    with torch.no_grad():
        start = model(tiles.filled(torch.zeros_like(values))).logits.mean()
    return (total / steps * values).sum(dim=1), start
