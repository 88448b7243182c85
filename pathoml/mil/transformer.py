"""A transformer that knows how far apart tiles lie."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import NonAdditiveAggregator, start_at_zero
from pathoml.mil.as_given import GatedLinear, normalised
from pathoml.mil.attribution import linear_shares
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.self_attention import Bias, SelfAttention
from pathoml.mil.settings import TransformerSettings

_NEAREST, _FARTHEST = 2.0, 64.0
_APART = 100.0
"""What a head with a range takes from the scores of tiles of another slide: it sees none of them."""


class PlacedTransformer(NonAdditiveAggregator):
    """Pre-norm transformer layers; each head but the last has a range, beyond which attention falls off like a Gaussian.

    The fall-off, minus the squared distance over twice the squared range, is a product of a few columns appended to queries
    and keys, so that it is exact and takes no square of memory. The class token has no place.

    Parameters
    ----------
    settings : TransformerSettings
        Width, heads, layers and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Attention with a linear bias by distance: Press O, Smith N, Lewis M. Train short, test long. ICLR 2022; over tiles of slides,
    Mieling and others with STAMP: El Nahhas OSM et al. From whole-slide image to biomarker prediction. Nat Protoc 20 (2025)
    293-316. The Gaussian form and its factorisation are pathoml's own.
    """

    needs_places = True
    slopes: Tensor

    def __init__(self, settings: TransformerSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.embed = nn.Linear(tile_dim, width)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, width))
        self.layers = nn.ModuleList(_Layer(width, settings) for _ in range(settings.layers - 1))
        self.last = _Layer(width, settings)
        self.norm = nn.LayerNorm(width)
        self.head = start_at_zero(nn.Linear(width, out, bias=False))
        ranges = _NEAREST * (_FARTHEST / _NEAREST) ** torch.linspace(0, 1, max(1, settings.heads - 1))
        slopes = torch.cat([1 / (2 * ranges**2), torch.zeros(1)])[-settings.heads :]
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim), with places.

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
        if tiles.places is None:
            raise ValueError("this model looks at where tiles lie; give their places")
        classes, attention = [], []
        for span in tiles.spans:
            if span.stop == span.start:
                classes.append(torch.zeros_like(self.class_token))
                continue
            bias = self._bias(tiles.places[span])
            tokens = torch.cat([self.class_token.to(embedded.dtype), embedded[span]])
            for layer in self.layers:
                tokens = layer(tokens, bias)
            token, weights = self.last.of_class(tokens)  # nobody asks what the others would become
            attention.append(weights)
            classes.append(normalised(self.norm, token))
        logits = self.head(torch.cat(classes))
        weights = torch.cat(attention)[:, None] if attention else embedded.new_zeros(0, 1)
        return BagOutput(tiles.unless_empty(logits), tiles.filled(weights), None, {})

    def _bias(self, places: Tensor) -> Bias:
        """Return columns whose product is minus slope times squared distance, and far less for tiles of other slides."""
        slide = torch.unique(places[:, 0], return_inverse=True)[1]
        own = torch.nn.functional.one_hot(slide).float()
        place = places[:, 1:].float()
        place = place - (own @ (own.T @ place / own.sum(dim=0)[:, None]))  # smaller numbers, less rounding
        slopes = self.slopes[:, None, None]
        apart = _APART * (slopes > 0)
        square = (place**2).sum(dim=1, keepdim=True).expand(len(slopes), -1, -1)
        one, place, own = (part.expand(len(slopes), -1, -1) for part in (torch.ones_like(place[:, :1]), place, own))
        query = torch.cat([place, one, -slopes * square - apart, apart * own], dim=2)
        key = torch.cat([2 * slopes * place, -slopes * square, one, own], dim=2)
        # The class token has no place; columns of zeros make the width one that fast kernels take.
        return torch.nn.functional.pad(query, (0, -query.shape[2] % 4, 1, 0)), torch.nn.functional.pad(
            key, (0, -key.shape[2] % 4, 1, 0)
        )


class _Layer(nn.Module):
    def __init__(self, width: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, settings.heads)
        self.drop = nn.Dropout(settings.dropout)
        self.after = nn.Sequential(
            nn.Linear(width, 2 * width), GatedLinear(), nn.Dropout(settings.dropout), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, bias: Bias) -> Tensor:
        tokens = tokens + self.drop(self.attention(tokens, self.before, bias))
        (result,) = in_pieces(self._moved, tokens, self)
        return result

    def of_class(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the class token, the first, becomes, and how much it looks at each tile."""
        taken, weights = self.attention.of_first(tokens, self.before)
        (moved,) = self._moved(tokens[:1] + self.drop(taken))
        return moved, weights

    def _moved(self, tokens: Tensor) -> tuple[Tensor]:
        return (tokens + self.after(normalised(self.between, tokens)),)
