"""The layer with which most heads begin."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class EmbeddingGradients(NamedTuple):
    """What a loss changes with.

    Parameters
    ----------
    weight, bias : Tensor
        Gradients of the linear layer.
    values : Tensor or None
        Gradient of the tiles, if it was asked for.
    """

    weight: Tensor
    bias: Tensor
    values: Tensor | None


class Embedding(nn.Sequential):
    """Linear, rectified, with dropout, on single tiles.

    Parameters
    ----------
    dim : int
        Columns of a tile.
    width : int
        Columns of what it becomes.
    dropout : float
        Share of units dropped in training.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, width), nn.ReLU(inplace=True), nn.Dropout(dropout))

    def gradients(self, values: Tensor, embedded: Tensor, gradient: Tensor, *, of_values: bool) -> EmbeddingGradients:
        """Return gradients from the result alone: a unit that is above 0 was neither cut off nor dropped.

        Parameters
        ----------
        values : Tensor, shape (tiles, dim)
            What went in.
        embedded : Tensor, shape (tiles, width)
            What came out.
        gradient : Tensor, shape (tiles, width)
            Of the loss with respect to that; changed in place.
        of_values : bool
            Whether the gradient of what went in is wanted.

        Returns
        -------
        EmbeddingGradients
            For the linear layer, and what went in.
        """
        linear, _, dropout = self
        assert isinstance(linear, nn.Linear)  # as made
        assert isinstance(dropout, nn.Dropout)
        if dropout.training and dropout.p:
            gradient.mul_(1 / (1 - dropout.p))
        through: Tensor = torch.ops.aten.threshold_backward(gradient, embedded, 0)
        bias = through.sum(dim=0, dtype=torch.promote_types(through.dtype, torch.float32))
        return EmbeddingGradients(through.T @ values, bias, through @ linear.weight if of_values else None)
