"""A graph of neighbouring tiles, then attention over what each has learnt from around it."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_at_zero
from pathoml.mil.attention import TileAttention
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import PatchGcnSettings

_AROUND = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
_LEAST = 1e-7


class PatchGcn(Aggregator):
    """Residual layers in which a tile takes from its eight neighbours, then gated attention over all layers' results.

    Like Patch-GCN, not the same: in each layer normalisation and rectification come before the exchange, as in DeeperGCN's
    residual form (its authors' code has them behind, and the first layer without), what all layers found is brought to the
    width of one before attention, and nothing but a linear layer follows it. Neighbours are those on the grid.

    Parameters
    ----------
    settings : PatchGcnSettings
        Widths, layers and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Chen RJ et al. Whole slide images are 2D point clouds: context-aware survival prediction using patch-based graph
    convolutional networks. MICCAI 2021; messages as in Li G et al. DeeperGCN: all you need to train deeper GCNs.
    arXiv:2006.07739 (2020), softmax aggregation.
    """

    needs_places = True

    def __init__(self, settings: PatchGcnSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        width, wide = settings.hidden_dim, settings.hidden_dim * (settings.layers + 1)
        self.embed = Embedding(tile_dim, width, settings.dropout)
        self.layers = nn.ModuleList(_Exchange(width) for _ in range(settings.layers))
        self.join = Embedding(wide, width, settings.dropout)
        self.attention = TileAttention(width, settings.attention_dim)
        self.head = start_at_zero(nn.Linear(width, out, bias=False))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim), with places.

        Returns
        -------
        BagOutput
            Logits (bags, out), attention, and contributions (tiles, out) of each tile with what it took from around it.
        """
        if tiles.places is None:
            raise ValueError("this model looks at where tiles lie; give their places")
        neighbours = find_neighbours(torch.cat([tiles.bag_of_row[:, None], tiles.places], dim=1))
        states = [*in_pieces(lambda embedded: (embedded,), tiles.values, self.embed, embed=self.embed)]
        for layer in self.layers:
            states.append(states[-1] + layer(states[-1], neighbours))
        score, parts = in_pieces(self._score, torch.cat(states, dim=1), self, embed=self.join)
        attention = tiles.filled(score).softmax()
        contributions = tiles.filled(attention.values * parts)
        return BagOutput(contributions.sums(), attention, contributions, {})

    def _score(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(joined), self.head(joined)


class _Exchange(nn.Module):
    """Each tile's neighbours weighed by a softmax in every column, added to the tile, through a small network.

    What eight neighbours say to each tile of a large bag is computed again on the way back.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sharpness = nn.Parameter(torch.ones(()))
        self.after = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, tiles: Tensor, neighbours: Tensor) -> Tensor:
        own = torch.relu(self.norm(tiles))
        said = torch.cat([own + _LEAST, torch.zeros_like(own[:1])])  # last: what a neighbour that is not there says
        (result,) = in_pieces(self._taken, own, self, along=(neighbours,), given=(said,))
        return result

    def _taken(self, own: Tensor, neighbours: Tensor, said: Tensor) -> tuple[Tensor]:
        messages, missing = said[neighbours], neighbours == len(said) - 1
        score = (self.sharpness * messages).masked_fill(missing[:, :, None], -torch.inf)
        alone = missing.all(dim=1)[:, None, None]
        weights = torch.softmax(torch.where(alone, 0.0, score), dim=1)
        return (self.after(own + (weights * messages).sum(dim=1)),)


def find_neighbours(places: Tensor) -> Tensor:
    """Return the rows of each tile's eight neighbours.

    Parameters
    ----------
    places : Tensor of int64, shape (tiles, 4)
        Bag, slide, row and column.

    Returns
    -------
    Tensor of int64, shape (tiles, 8)
        Row numbers; the number of tiles where there is no such neighbour.
    """
    count = len(places)
    if count == 0:
        return torch.zeros((0, len(_AROUND)), dtype=torch.int64, device=places.device)
    low = places.amin(dim=0) - torch.tensor([0, 0, 1, 1], device=places.device)
    extent = places.amax(dim=0) - low + 2
    keys = _key(places - low, extent)
    order = keys.argsort()
    found = []
    for row, column in _AROUND:
        wanted = _key(places - low + torch.tensor([0, 0, row, column], device=places.device), extent)
        at = torch.searchsorted(keys[order], wanted).clamp(max=count - 1)
        found.append(torch.where(keys[order][at] == wanted, order[at], count))
    return torch.stack(found, dim=1)


def _key(places: Tensor, extent: Tensor) -> Tensor:
    """Return one number for each place, different for different ones."""
    key = places[:, 0]
    for axis in range(1, places.shape[1]):
        key = key * extent[axis] + places[:, axis]
    return key
