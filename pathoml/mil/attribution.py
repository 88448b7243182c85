"""What each tile adds to a model whose head is no sum over tiles."""

from collections.abc import Callable

import torch
from torch import Tensor

from pathoml.mil.as_given import weights_as_given
from pathoml.mil.packed import BagOutput, Packed


def linear_shares(
    embed: Callable[[Tensor], Tensor] | None,
    join: Callable[[Tensor, Packed], BagOutput],
    tiles: Packed,
    weight: Tensor,
) -> tuple[BagOutput, Tensor]:
    """Share a bag's logits out among its embedded tiles, with attention, gates and scales as given.

    Parameters
    ----------
    embed : callable or None
        What a head does to single tiles first; None for nothing.
    join : callable
        Embedded tiles, and the bag -> what the head says; linear in the former inside `weights_as_given`.
    tiles : Packed
        One bag; 0 is the average training tile.
    weight : Tensor, shape (out,)
        Of the logits.

    Returns
    -------
    BagOutput
        Of the bag.
    Tensor, shape (tiles,)
        Gradient of the weighted sum times the way from the embedded average tile: integrated gradients of what is linear.

    References
    ----------
    Ali A, Schnake T, Eberle O, Montavon G, Muller KR, Wolf L. XAI for transformers: better explanations through conservative
    propagation. ICML 2022, section 4: attention weights and layer norms as constants.
    """
    values = tiles.values.detach().float()
    with torch.no_grad():
        embedded = values if embed is None else embed(values)
        average = torch.zeros_like(values[:1]) if embed is None else embed(torch.zeros_like(values[:1]))
    embedded = embedded.detach().requires_grad_()
    with torch.enable_grad(), weights_as_given():
        output = join(embedded, tiles)
        (gradient,) = torch.autograd.grad((output.logits[0] * weight).sum(), embedded)
    attention = None if output.attention is None else output.attention.filled(output.attention.values.detach())
    shares = (gradient * (embedded.detach() - average)).sum(dim=1)
    return BagOutput(output.logits.detach(), attention, None, {}), shares
