"""DeepMIL: gated attention over embedded tiles, then a network instead of a linear layer."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import NonAdditiveAggregator, start_at_zero
from pathoml.mil.as_given import mean_gradient
from pathoml.mil.attention import TileAttention
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import DeepMilSettings


class DeepMil(NonAdditiveAggregator):
    """Linear embedding, gated attention, and a network with sigmoids on the weighted mean.

    Of a tile of a large bag nothing is kept but its embedding.

    Parameters
    ----------
    settings : DeepMilSettings
        Widths and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML 2018; in the form that Owkin uses as
    DeepMIL, Filiot A et al. Scaling self-supervised learning for histopathology with masked image modeling. medRxiv
    2023.07.21.23292757 (2023).
    """

    def __init__(self, settings: DeepMilSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.embed = nn.Linear(tile_dim, width)
        self.attention = TileAttention(width, settings.attention_dim)
        self.judge = nn.Sequential(
            nn.Linear(width, width), nn.Sigmoid(), nn.Dropout(settings.dropout),
            nn.Linear(width, max(1, width // 2)), nn.Sigmoid(), nn.Dropout(settings.dropout),
            start_at_zero(nn.Linear(max(1, width // 2), out, bias=False)),
        )  # fmt: skip

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), attention; no contributions, since the network is not additive.
        """
        _, attention, mean = self._pooled(tiles)
        return BagOutput(tiles.unless_empty(self.judge(mean)), attention, None, {})

    def explained(self, tiles: Packed, weight: Tensor) -> tuple[BagOutput, Tensor]:
        """See `NonAdditiveAggregator.explained`."""
        with torch.no_grad():
            embedded, attention, mean = self._pooled(tiles)
            average = self.embed(torch.zeros_like(tiles.values[:1], dtype=embedded.dtype))[0]
            slope, logits = mean_gradient(self.judge, average, mean[0], weight)
            shares = attention.values[:, 0] * (embedded @ slope - average @ slope)
            return BagOutput(logits[None], attention, None, {}), shares

    def _pooled(self, tiles: Packed) -> tuple[Tensor, Packed, Tensor]:
        """Return embedded tiles, their attention, and their mean weighted by it."""
        (embedded,) = in_pieces(lambda values: (self.embed(values),), tiles.values, self.embed)
        (score,) = in_pieces(lambda own: (self.attention(own),), embedded, self.attention)
        attention = tiles.filled(score).softmax()
        weights = attention.values.to(embedded.dtype)
        return embedded, attention, torch.cat([weights[span].T @ embedded[span] for span in tiles.spans])
