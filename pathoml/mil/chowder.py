"""Chowder: the highest and the lowest tile scores, and nothing else, decide."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import NonAdditiveAggregator, start_at_zero
from pathoml.mil.as_given import mean_gradient
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import ChowderSettings


class Chowder(NonAdditiveAggregator):
    """A linear score of each tile; the extreme scores of a bag, sorted, through a small network.

    A bag with fewer tiles than extremes repeats its last one.

    Parameters
    ----------
    settings : ChowderSettings
        How many extremes, width and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits; each has scores and sees extremes of its own, the network is shared.

    References
    ----------
    Courtiol P, Tramel EW, Sanselme M, Wainrib G. Classification and disease localization in histopathology using only global
    labels: a weakly-supervised approach. arXiv:1802.02212 (2018); for survival, Courtiol P et al. Deep learning-based
    classification of mesothelioma improves prediction of patient outcome. Nat Med 25 (2019) 1519-1525.
    """

    def __init__(self, settings: ChowderSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self._extremes = settings.extremes
        self.score = nn.Linear(tile_dim, out)
        nn.init.xavier_uniform_(self.score.weight)
        wide = settings.hidden_dim
        self.judge = nn.Sequential(
            nn.Linear(2 * settings.extremes, wide), nn.Sigmoid(), nn.Dropout(settings.dropout),
            nn.Linear(wide, max(1, wide // 2)), nn.Sigmoid(), nn.Dropout(settings.dropout),
            start_at_zero(nn.Linear(max(1, wide // 2), 1, bias=False)),
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
            Logits (bags, out); no attention and no contributions, since extremes act together.
        """
        (scores,) = in_pieces(lambda values: (self.score(values),), tiles.values, self)
        extremes = torch.stack([self._extremes_of(scores[span])[0] for span in tiles.spans])
        return BagOutput(tiles.unless_empty(self.judge(extremes)[..., 0]), None, None, {})

    def explained(self, tiles: Packed, weight: Tensor) -> tuple[BagOutput, Tensor]:
        """See `NonAdditiveAggregator.explained`: scores are linear, so that the same tiles are extreme all the way."""
        with torch.no_grad():
            (scores,) = in_pieces(lambda values: (self.score(values),), tiles.values, self)
            extremes, rows = self._extremes_of(scores)
            average = self.score.bias.to(scores.dtype)[:, None].expand_as(extremes)
            slope, logits = mean_gradient(lambda points: self.judge(points)[..., 0], average, extremes, weight)
            added = (slope * (extremes - average)).flatten()
            shares = scores.new_zeros(len(scores)).index_add(0, rows.flatten(), added)
            return BagOutput(logits[None], None, None, {}), shares

    def _extremes_of(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest scores, falling, and the lowest, rising, and whose they are, shapes (out, 2 x extremes)."""
        count = len(scores)
        if count == 0:
            nothing = scores.new_zeros(scores.shape[1], 2 * self._extremes)
            return nothing, nothing.long()
        most = min(self._extremes, count)
        (top, highest), (bottom, lowest) = (scores.topk(most, dim=0, largest=largest) for largest in (True, False))
        found = [top, bottom, highest, lowest]
        if most < self._extremes:
            ranks = torch.arange(self._extremes, device=scores.device).clamp(max=most - 1)
            found = [one[ranks] for one in found]
        return torch.cat(found[:2]).T, torch.cat(found[2:]).T
