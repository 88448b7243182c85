"""DTFD-MIL: a bag is dealt into pseudo-bags; a second tier attends to what the first makes of each."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_at_zero
from pathoml.mil.attention import TileAttention
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import DtfdSettings


class Dtfd(Aggregator):
    """Double-tier attention with aggregated features (the paper's AFS).

    In training tiles are dealt at random, and each pseudo-bag has a logit of its own with the objective's loss; in
    evaluation they are dealt in turns, so that the result depends on their order a little.

    Parameters
    ----------
    settings : DtfdSettings
        Pseudo-bags, widths and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Zhang H et al. DTFD-MIL: double-tier feature distillation multiple instance learning for histopathology whole slide image
    classification. CVPR 2022.
    """

    order_matters = True

    def __init__(self, settings: DtfdSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self._groups = settings.pseudo_bags
        self.embed = Embedding(tile_dim, settings.hidden_dim, settings.dropout)
        self.first = TileAttention(settings.hidden_dim, settings.attention_dim)
        self.first_head = start_at_zero(nn.Linear(settings.hidden_dim, out, bias=False))
        self.second = TileAttention(settings.hidden_dim, settings.attention_dim)
        self.head = start_at_zero(nn.Linear(settings.hidden_dim, out, bias=False))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), attention (both tiers together), contributions (tiles, out); in training with ``pseudo_bags``.
        """
        embedded, score, parts = in_pieces(self._score, tiles.values, self, embed=self.embed)
        order, groups, of_bag = self._deal(tiles)
        within = Packed(score[order], groups).softmax()
        pooled = Packed(within.values * embedded[order], groups).sums()
        between = Packed(self.second(pooled), of_bag).softmax()
        dealt = within.values * between.values[within.bag_of_row].to(within.values.dtype)
        attention = tiles.filled(torch.zeros_like(dealt).index_copy(0, order, dealt))
        contributions = tiles.filled(attention.values * parts)
        auxiliary = {"pseudo_bags": self._views(self.first_head(pooled), of_bag)} if self.training else {}
        return BagOutput(contributions.sums(), attention, contributions, auxiliary)

    def _score(self, embedded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return embedded, self.first(embedded), self.head(embedded)

    def _deal(self, tiles: Packed) -> tuple[Tensor, Tensor, Tensor]:
        """Return tiles by pseudo-bag, offsets of pseudo-bags among them, and offsets of bags among pseudo-bags; none is empty."""
        order, sizes, counts = [], [], []
        for span in tiles.spans:
            count = span.stop - span.start
            shuffled = torch.randperm(count) if self.training else torch.arange(count)
            groups = [shuffled[group :: self._groups] for group in range(min(self._groups, count))]
            order += [span.start + group for group in groups]
            sizes += [len(group) for group in groups]
            counts.append(len(groups))
        device = tiles.offsets.device
        rows = torch.cat(order) if order else torch.zeros(0, dtype=torch.int64)
        return rows.to(device), _offsets(sizes, device), _offsets(counts, device)

    def _views(self, logits: Tensor, of_bag: Tensor) -> Tensor:
        """Return the pseudo-bags' logits, shape (pseudo-bags, bags, out); a bag with fewer repeats its own."""
        counts = of_bag.diff()
        number = torch.arange(self._groups, device=logits.device)[:, None] % counts.clamp(min=1)[None, :]
        rows = (of_bag[:-1][None, :] + number).clamp(max=max(len(logits) - 1, 0))
        if len(logits) == 0:
            return logits.new_zeros(self._groups, len(counts), logits.shape[1])
        return torch.where((counts > 0)[None, :, None], logits[rows], 0.0)


def _offsets(counts: list[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *counts], dtype=torch.int64, device=device).cumsum(0)
