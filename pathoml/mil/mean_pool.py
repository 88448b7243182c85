"""The mean of a bag's tiles, then a linear layer: what every other head has to beat."""

from torch import nn

from pathoml.mil.aggregator import Aggregator, start_at_zero
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import MeanPoolSettings


class MeanPool(Aggregator):
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
        self.head = start_at_zero(nn.Linear(tile_dim, out, bias=False))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), no attention, contributions (tiles, out).
        """
        (scores,) = in_pieces(lambda values: (self.head(values),), tiles.values, self)
        share = 1.0 / tiles.lengths.clamp(min=1)[tiles.bag_of_row].to(scores.dtype)
        contributions = tiles.filled(scores * share[:, None])
        return BagOutput(contributions.sums(), None, contributions, {})
