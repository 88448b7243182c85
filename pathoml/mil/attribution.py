"""What each tile adds to a model that is no sum over tiles."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pathoml.mil.packed import BagOutput, Packed

STEPS = 8
"""Of Gauss and Legendre's rule: they share out as exactly as 32 steps of the midpoint rule, for a quarter of the work."""


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
        Places between the two at which gradients are taken; more make the sum more exact.

    Returns
    -------
    shares : Tensor, shape (tiles,)
        They sum to the bag's mean logit less `start`, up to the number of steps.
    start : Tensor, shape ()
        The mean logit of as many average tiles.

    References
    ----------
    Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017, equation 3, by Gauss and Legendre's rule.
    """
    values = tiles.values.detach().float()
    total = torch.zeros_like(values)
    places, weights = np.polynomial.legendre.leggauss(steps)  # from -1 to 1, weights that sum to 2
    with torch.enable_grad():
        for place, weight in zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
            scaled = (values * place).requires_grad_()
            (gradient,) = torch.autograd.grad(model(tiles.filled(scaled)).logits.mean(), scaled)
            total += gradient * weight
    with torch.no_grad():
        start = model(tiles.filled(torch.zeros_like(values))).logits.mean()
    return (total * values).sum(dim=1), start
