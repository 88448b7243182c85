"""What every aggregator is: tiles of bags in, logits of bags out."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from pathoml.mil.packed import BagOutput, Packed


class Aggregator(nn.Module, ABC):
    """Joins the tiles of each bag.

    Subclasses are built from their settings, the columns of a tile, and those of the logits.

    A bag's result depends on no other bag of a batch. A bag without tiles has logits 0. The last layer starts at zero:
    before training the slides say nothing, the model is that of the covariates, and maps are blank.

    Attributes
    ----------
    order_matters : bool
        Whether the result depends on the order in which tiles are given.
    needs_places : bool
        Whether it looks at where tiles lie.
    """

    order_matters: ClassVar[bool] = False
    needs_places: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            With as many rows of logits as bags.
        """


class NonAdditiveAggregator(Aggregator):
    """An aggregator that is no sum over tiles: what each of them adds is found by integrated gradients.

    They run from average tiles to what the tiles are, with attention, gates and scales as given, as those of additive heads
    are: what is left is linear, up to a small network behind the pooling, so that they cost less than another pass.
    """

    @abstractmethod
    def explained(self, tiles: Packed, weight: Tensor) -> tuple[BagOutput, Tensor]:
        """Score one bag, and share its logits out among the tiles.

        Parameters
        ----------
        tiles : Packed
            One bag; 0 is the average training tile.
        weight : Tensor, shape (out,)
            Of the logits: what is shared out is their weighted sum.

        Returns
        -------
        BagOutput
            As of `forward`.
        Tensor, shape (tiles,)
            What each tile adds: they sum to that weighted sum less what as many average tiles would give with attention,
            gates and scales of these ones; where a head has any, that is no number it would give a bag of average tiles.
        """


def start_at_zero(layer: nn.Linear) -> nn.Linear:
    """Return a linear layer that gives 0 until it is trained.

    Parameters
    ----------
    layer : nn.Linear
        Changed in place.

    Returns
    -------
    nn.Linear
        The same.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


_DRAW = 0.1
"""Weights of a draw, as a part of what a linear layer begins with: learnt scores soon count for more."""


def start_with_a_draw(layer: nn.Linear) -> Tensor:
    """Let a layer, the tile with whose highest score is taken, start at zero, and return what decides among equals.

    Were it the order of tiles, a model would begin by learning from the first tile of every bag.

    Parameters
    ----------
    layer : nn.Linear
        Gives scores; changed in place.

    Returns
    -------
    Tensor, shape (out, columns)
        Weights of a small random score, which is added where a tile is chosen and nowhere else.
    """
    draw = _DRAW * layer.weight.detach().clone()
    start_at_zero(layer)
    return draw


def weighed(attention: Tensor, scores: Tensor) -> Tensor:
    """Return what each tile adds to the logits: its scores, weighted by its attention in each head and summed over heads.

    Parameters
    ----------
    attention : Tensor, shape (tiles, heads)
        Sums to 1 over each bag.
    scores : Tensor, shape (tiles, heads x out)
        Of a linear layer without bias, on the tile alone.

    Returns
    -------
    Tensor, shape (tiles, out)
        Contributions.
    """
    tiles, heads = attention.shape
    return (attention[:, :, None] * scores.reshape(tiles, heads, scores.shape[1] // heads)).sum(dim=1)
