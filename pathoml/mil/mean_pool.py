"""The mean of a bag's tiles, then a linear layer: what every other head has to beat."""

from torch import nn

from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.settings import MeanPoolSettings


class MeanPool(nn.Module):
    """Linear layer on the mean tile.

    Parameters
    ----------
    settings : MeanPoolSettings
        It has no options.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.
    """

    def __init__(self, settings: MeanPoolSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self.settings = settings
        self.head = nn.Linear(tile_dim, out, bias=False)
        nn.init.zeros_(self.head.weight)  # as in GatedAbmil: before training the slides say nothing

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), no attention, contributions (tiles, out).
        """
        share = 1.0 / tiles.offsets.diff().clamp(min=1)[tiles.bag_of_row].to(tiles.values.dtype)
        contributions = Packed(self.head(tiles.values) * share[:, None], tiles.offsets)
        return BagOutput(contributions.sums(), None, contributions, {})
