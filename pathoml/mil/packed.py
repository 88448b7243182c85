"""Bags of different lengths in one tensor: values one after another, offsets where each begins."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Packed(NamedTuple):
    """Rows of several bags, one bag after another.

    Parameters
    ----------
    values : Tensor, shape (tiles, columns)
        The rows.
    offsets : Tensor of int64, shape (bags + 1,)
        Bag b holds rows offsets[b] to offsets[b + 1].
    places : Tensor of int64, shape (tiles, 3), or None
        Slide, row and column of each tile, for models that look at where tiles lie; slides are counted within a bag.
    """

    values: Float[Tensor, "tiles columns"]
    offsets: Int[Tensor, " bags_plus_one"]
    places: Int[Tensor, "tiles 3"] | None = None

    @property
    def lengths(self) -> Int[Tensor, " bags"]:
        """Tiles of each bag."""
        return self.offsets.diff()

    @property
    def spans(self) -> list[slice]:
        """Rows of each bag."""
        return [slice(start, stop) for start, stop in pairwise(self.offsets.tolist())]

    def to(self, device: str | torch.device) -> "Packed":
        """Return the same on a device.

        Parameters
        ----------
        device : str or torch.device
            Where to.

        Returns
        -------
        Packed
            With all its tensors there.
        """
        places = None if self.places is None else self.places.to(device)
        return Packed(self.values.to(device), self.offsets.to(device), places)

    def filled(self, values: Float[Tensor, "tiles columns"]) -> "Packed":
        """Return other values of the same tiles.

        Parameters
        ----------
        values : Tensor, shape (tiles, columns)
            One row a tile.

        Returns
        -------
        Packed
            With the same offsets and places.
        """
        return self._replace(values=values)

    def unless_empty(self, logits: Float[Tensor, "bags out"]) -> Float[Tensor, "bags out"]:
        """Return logits that are 0 for bags without tiles, of which slides say nothing.

        Parameters
        ----------
        logits : Tensor, shape (bags, out)
            One row a bag.

        Returns
        -------
        Tensor, shape (bags, out)
            The same for bags with tiles.
        """
        return torch.where((self.lengths > 0)[:, None], logits, 0.0)

    @property
    def bag_of_row(self) -> Int[Tensor, " tiles"]:
        """Which bag each row belongs to."""
        lengths = self.offsets.diff()
        return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)

    def sums(self) -> Float[Tensor, "bags columns"]:
        """Return the sum over each bag's rows; zero for an empty bag.

        Returns
        -------
        Tensor, shape (bags, columns)
            On the same device.
        """
        total = self.values.new_zeros(len(self.offsets) - 1, self.values.shape[1])
        return total.index_add(0, self.bag_of_row, self.values)

    def softmax(self) -> "Packed":
        """Return values that are positive and sum to 1 over each bag, column by column.

        Returns
        -------
        Packed
            With the same offsets.
        """
        bag = self.bag_of_row
        values = self.values.to(torch.promote_types(self.values.dtype, torch.float32))
        columns = values.shape[1]
        start = values.new_full((len(self.offsets) - 1, columns), -torch.inf)
        highest = start.scatter_reduce(0, bag[:, None].expand(-1, columns), values.detach(), "amax")
        weights = Packed(torch.exp(values - highest[bag]), self.offsets)
        return Packed(weights.values / weights.sums()[bag], self.offsets)


class BagOutput(NamedTuple):
    """What every model returns.

    Parameters
    ----------
    logits : Tensor, shape (bags, out)
        Log hazard (out = 1) or hazard logits of time bins.
    attention : Packed or None
        One column a head, sums to 1 over each bag; None where a head has none.
    contributions : Packed or None
        One column an output, what each tile adds: sums over a bag to the slides' share of its logits.
    auxiliary : dict of str to Tensor
        For heads that train with more than their logits, in training only: a tensor of shape (2,) is a term of the loss, summed
        over the bags that have one, and their number; one of shape (views, bags, out) are further logits of the same bags,
        to which the objective is applied view by view and averaged.
    """

    logits: Float[Tensor, "bags out"]
    attention: Packed | None
    contributions: Packed | None
    auxiliary: dict[str, Tensor]


def pack(bags: list[Float[Tensor, "_ columns"]], places: list[Int[Tensor, "_ 3"]] | None = None) -> Packed:
    """Put bags one after another.

    Parameters
    ----------
    bags : list of Tensor, each of shape (tiles, columns)
        At least one; lengths may differ and be 0.
    places : list of Tensor, each of shape (tiles, 3), optional
        Slide, row and column of their tiles.

    Returns
    -------
    Packed
        Their rows and offsets.
    """
    lengths = torch.tensor([0, *(len(bag) for bag in bags)], device=bags[0].device)
    return Packed(torch.cat(bags), lengths.cumsum(0), None if places is None else torch.cat(places))
