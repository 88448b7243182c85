"""The one tile that speaks most for the event."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import MaxPoolSettings


class MaxPool(Aggregator):
    """The tile with the highest score of a bag, in each column; its score times a factor is the logit.

    Scores start at random and the factor at nought: slides say nothing at first, and yet which tile is taken is the tile's own
    doing and not its place in the bag. The factor may become negative, where the highest score speaks against the event.

    Parameters
    ----------
    settings : MaxPoolSettings
        Width and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Campanella G et al. Clinical-grade computational pathology using weakly supervised deep learning on whole slide images. Nat
    Med 25 (2019) 1301-1309, the aggregation by the top tile.
    """

    def __init__(self, settings: MaxPoolSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self.embed = Embedding(tile_dim, settings.hidden_dim, settings.dropout)
        self.head = nn.Linear(settings.hidden_dim, out, bias=False)
        self.factor = nn.Parameter(torch.zeros(out))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), no attention, contributions (tiles, out): all of a logit comes from its tile.
        """
        (scores,) = in_pieces(self._score, tiles.values, self, embed=self.embed)
        chosen = torch.zeros_like(scores)
        for span in tiles.spans:
            if span.stop > span.start:
                chosen[span.start + scores[span].detach().argmax(dim=0), torch.arange(scores.shape[1])] = 1
        contributions = tiles.filled(scores * chosen * self.factor)
        return BagOutput(contributions.sums(), None, contributions, {})

    def _score(self, embedded: Tensor) -> tuple[Tensor]:
        return (self.head(embedded),)
