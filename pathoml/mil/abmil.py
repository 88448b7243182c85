"""Attention-based multiple-instance learning with an additive head."""

from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_at_zero, weighed
from pathoml.mil.attention import TileAttention
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import AbmilSettings


class Abmil(Aggregator):
    """Attention-weighted sum of tile embeddings, gated or plain, of one head or several, then a linear layer without bias.

    Because the layer is linear, each tile's share of the result is exact: attention times the tile's own logit. Nothing of
    a tile is kept but those, so that the largest bag takes little memory.

    Parameters
    ----------
    settings : AbmilSettings
        Widths, heads and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML 2018, equations 7 to 9. Additive: Javed SA
    et al. Additive MIL: intrinsically interpretable multiple instance learning for pathology. NeurIPS 2022.
    """

    def __init__(self, settings: AbmilSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self.embed = Embedding(tile_dim, settings.hidden_dim, settings.dropout)
        self.attention = TileAttention(
            settings.hidden_dim, settings.attention_dim, heads=settings.heads, gated=settings.gated
        )
        self.head = start_at_zero(nn.Linear(settings.hidden_dim, settings.heads * out, bias=False))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), attention with one column a head, contributions (tiles, out).
        """
        score, parts = in_pieces(self._score, tiles.values, self, embed=self.embed)
        attention = tiles.filled(score).softmax()
        contributions = tiles.filled(weighed(attention.values, parts))
        return BagOutput(contributions.sums(), attention, contributions, {})

    def _score(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(embedded), self.head(embedded)
