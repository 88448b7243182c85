"""ILRA-MIL: tiles exchange what they know through a few latent vectors."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import NonAdditiveAggregator, start_at_zero
from pathoml.mil.as_given import as_given, attended
from pathoml.mil.attribution import linear_shares
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import IlraSettings


class Ilra(NonAdditiveAggregator):
    """Gated attention blocks from tiles to latent vectors and back, then attention of one seed over all tiles.

    Parameters
    ----------
    settings : IlraSettings
        Width, heads, latent vectors, layers and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Xiang J, Zhang J. Exploring low-rank property in multiple instance learning for whole slide image classification. ICLR 2023,
    equations 13 to 17.
    """

    def __init__(self, settings: IlraSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        width, heads = settings.hidden_dim, settings.heads
        dims = [tile_dim] + [width] * (settings.layers - 1)
        self.blocks = nn.ModuleList(_Block(dim, settings) for dim in dims)
        self.seed = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, width)))
        self.pool = _CrossAttention(width, width, width, heads, gated=False)
        self.drop = nn.Dropout(settings.dropout)
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
            Logits (bags, out), attention of the seed (mean over heads); no contributions, since tiles act together.
        """
        return self._joined(tiles.values, tiles)

    def explained(self, tiles: Packed, weight: Tensor) -> tuple[BagOutput, Tensor]:
        """See `NonAdditiveAggregator.explained`."""
        return linear_shares(None, self._joined, tiles, weight)

    def _joined(self, values: Tensor, tiles: Packed) -> BagOutput:
        pooled, attention = [], []
        for span in tiles.spans:
            if span.stop == span.start:
                pooled.append(self.seed.new_zeros(1, self.seed.shape[1]))
                continue
            bag = values[span]
            for block in self.blocks:
                bag = block(bag)
            taken, key = self.pool.from_tiles(self.seed, bag)
            pooled.append(taken)
            attention.append(self.pool.weights(self.seed, key).T)
        logits = self.head(self.drop(torch.cat(pooled)))
        weights = torch.cat(attention) if attention else logits.new_zeros(0, 1)
        return BagOutput(tiles.unless_empty(logits), tiles.filled(weights.float()), None, {})


class _Block(nn.Module):
    """Latent vectors take from tiles, then tiles from latent vectors."""

    def __init__(self, dim: int, settings: IlraSettings) -> None:
        super().__init__()
        width, heads = settings.hidden_dim, settings.heads
        self.latents = nn.Parameter(nn.init.xavier_uniform_(torch.empty(settings.latents, width)))
        self.gather = _CrossAttention(width, dim, width, heads, gated=True)
        self.spread = _CrossAttention(dim, width, width, heads, gated=True)

    def forward(self, bag: Tensor) -> Tensor:
        found, _ = self.gather.from_tiles(self.latents, bag)
        (result,) = in_pieces(self.spread.to_tiles, bag, self.spread, given=(found,))
        return result


class _CrossAttention(nn.Module):
    """Queries take from keys, add it to themselves, and go through a layer; gated by what they were, if asked for."""

    def __init__(self, query_dim: int, key_dim: int, dim: int, heads: int, *, gated: bool) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value = nn.Linear(query_dim, dim), nn.Linear(key_dim, dim), nn.Linear(key_dim, dim)
        self.joined, self.after = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gate = nn.Sequential(nn.Linear(query_dim, dim), nn.SiLU()) if gated else None

    def from_tiles(self, queries: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Let a few queries take from all tiles; return what they become, and the tiles' keys, (tiles, dim)."""
        key, value = in_pieces(
            lambda own: (self.key(own), self.value(own)), tiles, nn.ModuleList([self.key, self.value])
        )
        return self._become(queries, key, value), key

    def to_tiles(self, tiles: Tensor, given: Tensor) -> tuple[Tensor]:
        """Let each tile take from a few rows; return what it becomes."""
        return (self._become(tiles, self.key(given), self.value(given)),)

    def weights(self, queries: Tensor, key: Tensor) -> Tensor:
        """Return attention, mean over heads, shape (queries, keys)."""
        query, key = self._split(self.query(queries)), self._split(key)
        return torch.softmax((query @ key.transpose(1, 2)).float() / query.shape[2] ** 0.5, dim=2).mean(dim=0)

    def _become(self, queries: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = self.query(queries)
        heads = self._split(value)
        taken = attended(self._split(query), self._split(key), heads, heads.shape[2] ** -0.5)
        result = query + self.joined(taken.transpose(0, 1).flatten(1))
        result = result + torch.relu(self.after(result))
        gated: Tensor = result if self.gate is None else result * as_given(self.gate(queries))
        return gated

    def _split(self, rows: Tensor) -> Tensor:
        return rows.reshape(len(rows), self._heads, rows.shape[1] // self._heads).transpose(0, 1)
