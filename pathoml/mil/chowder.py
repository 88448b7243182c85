"""Chowder: the highest and the lowest tile scores, and nothing else, decide."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_at_zero
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import ChowderSettings


class Chowder(Aggregator):
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
        extremes = torch.stack([self._extremes_of(scores[span]) for span in tiles.spans])
        return BagOutput(tiles.unless_empty(self.judge(extremes)[..., 0]), None, None, {})

    def _extremes_of(self, scores: Tensor) -> Tensor:
        """Return the highest scores, falling, and the lowest, rising, shape (out, 2 x extremes)."""
        count = len(scores)
        if count == 0:
            return scores.new_zeros(scores.shape[1], 2 * self._extremes)
        ranks = torch.arange(self._extremes, device=scores.device).clamp(max=count - 1)
        most = min(self._extremes, count)
        top, bottom = (scores.topk(most, dim=0, largest=largest).values[ranks] for largest in (True, False))
        return torch.cat([top, bottom]).T
