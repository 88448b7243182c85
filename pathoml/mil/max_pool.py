"""The one tile that speaks most for the event."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_with_a_draw
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import MaxPoolSettings


class MaxPool(Aggregator):
    """The highest logit among a bag's tiles, in each column; while they are equal, or nearly so, a small random score decides.

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
        self.draw: Tensor
        self.register_buffer("draw", start_with_a_draw(self.head))

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
        scores, draws = in_pieces(self._score, tiles.values, self, embed=self.embed)
        chosen = torch.zeros_like(scores)
        for span in tiles.spans:
            if span.stop > span.start:
                chosen[
                    span.start + (scores[span].detach() + draws[span]).argmax(dim=0), torch.arange(scores.shape[1])
                ] = 1
        contributions = tiles.filled(scores * chosen)
        return BagOutput(contributions.sums(), None, contributions, {})

    def _score(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(embedded), (embedded @ self.draw.T).detach()
