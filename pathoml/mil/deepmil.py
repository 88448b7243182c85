"""DeepMIL: gated attention over embedded tiles, then a network instead of a linear layer."""

import torch
from torch import nn

from pathoml.mil.aggregator import Aggregator, start_at_zero
from pathoml.mil.attention import TileAttention
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import DeepMilSettings


class DeepMil(Aggregator):
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
        (embedded,) = in_pieces(lambda values: (self.embed(values),), tiles.values, self.embed)
        (score,) = in_pieces(lambda own: (self.attention(own),), embedded, self.attention)
        attention = tiles.filled(score).softmax()
        weights = attention.values.to(embedded.dtype)
        mean = torch.cat([weights[span].T @ embedded[span] for span in tiles.spans])
        return BagOutput(tiles.unless_empty(self.judge(mean)), attention, None, {})
