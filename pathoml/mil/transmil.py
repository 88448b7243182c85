"""TransMIL: self-attention among tiles, with convolutions over them laid out as a square."""

import math

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import NonAdditiveAggregator, start_at_zero
from pathoml.mil.as_given import normalised
from pathoml.mil.attribution import linear_shares
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.self_attention import SelfAttention
from pathoml.mil.settings import TransMilSettings


class TransMil(NonAdditiveAggregator):
    """Two attention layers around a pyramid of convolutions; the class token is the result.

    Attention is exact where the paper approximates it (Nystrom), since today's kernels need no square of memory. Tiles are
    laid out as a square in the order given, the first ones repeated to fill it, as in the paper. Its authors' code also adds a
    convolution of the values, along the tiles, to what attention gives; the paper does not name it, and it is left out here.

    Parameters
    ----------
    settings : TransMilSettings
        Width, heads and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Shao Z et al. TransMIL: transformer based correlated multiple instance learning for whole slide image classification.
    NeurIPS 2021.
    """

    order_matters = True

    def __init__(self, settings: TransMilSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.embed = nn.Sequential(nn.Linear(tile_dim, width), nn.ReLU())
        self.class_token = nn.Parameter(torch.randn(1, width))
        self.before_first, self.before_second, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.first, self.second = SelfAttention(width, settings.heads), SelfAttention(width, settings.heads)
        self.drop = nn.Dropout(settings.dropout)
        self.around = nn.ModuleList(
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in (7, 5, 3)
        )
        self.head = start_at_zero(nn.Linear(width, out, bias=False))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), attention of the class token in the last layer; no contributions.
        """
        (embedded,) = in_pieces(lambda values: (self.embed(values),), tiles.values, self.embed)
        return self._joined(embedded, tiles)

    def explained(self, tiles: Packed, weight: Tensor) -> tuple[BagOutput, Tensor]:
        """See `NonAdditiveAggregator.explained`."""
        return linear_shares(self.embed, self._joined, tiles, weight)

    def _joined(self, embedded: Tensor, tiles: Packed) -> BagOutput:
        classes, attention = [], []
        for span in tiles.spans:
            if span.stop == span.start:
                classes.append(torch.zeros_like(self.class_token))
                continue
            token, weights = self._one(embedded[span])
            classes.append(token)
            attention.append(weights)
        logits = self.head(torch.cat(classes))
        weights = torch.cat(attention)[:, None] if attention else embedded.new_zeros(0, 1)
        return BagOutput(tiles.unless_empty(logits), tiles.filled(weights), None, {})

    def _one(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        count, side = len(bag), math.isqrt(len(bag) - 1) + 1
        repeated = torch.cat([bag, bag[torch.arange(side * side - count, device=bag.device) % count]])
        tokens = torch.cat([self.class_token.to(bag.dtype), repeated])
        tokens = tokens + self.drop(self.first(tokens, self.before_first))
        square = tokens[1:].T.reshape(1, -1, side, side)
        square = square + sum(layer(square) for layer in self.around)
        tokens = torch.cat([tokens[:1], square.flatten(2)[0].T])
        taken, weights = self.second.of_first(tokens, self.before_second)  # nobody asks what the others would become
        # A repeated tile has the weight of all its places.
        own = torch.zeros(count, dtype=weights.dtype, device=weights.device)
        own = own.index_add(0, torch.arange(side * side, device=weights.device) % count, weights)
        return normalised(self.norm, tokens[:1] + self.drop(taken)), own
