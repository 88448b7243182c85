"""ACMIL: several attention branches that have to look at different tiles, and not only at their favourites."""

from itertools import combinations

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_at_zero
from pathoml.mil.attention import TileAttention
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import AcmilSettings


class Acmil(Aggregator):
    """Branches of gated attention, whose mean is the slide's attention.

    In training each branch has a logit of its own with the objective's loss, likeness of branches costs (mean cosine), and
    some of each branch's most attended tiles are hidden at random.

    Parameters
    ----------
    settings : AcmilSettings
        Branches, widths, dropout and hiding.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Zhang Y et al. Attention-challenging multiple instance learning for whole slide image classification. ECCV 2024.
    """

    def __init__(self, settings: AcmilSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self._branches, self._most, self._hidden = settings.branches, settings.most_attended, settings.hidden_share
        self.embed = Embedding(tile_dim, settings.hidden_dim, settings.dropout)
        self.attention = TileAttention(settings.hidden_dim, settings.attention_dim, heads=settings.branches)
        self.branch_heads = start_at_zero(nn.Linear(settings.hidden_dim, settings.branches * out, bias=False))
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
            Logits (bags, out), the mean attention, contributions (tiles, out); in training with ``branches`` and ``likeness``.
        """
        score, of_branches, parts = in_pieces(self._score, tiles.values, self, embed=self.embed)
        if self.training:
            score = self._some_hidden(tiles, score)
        branches = tiles.filled(score).softmax()
        attention = tiles.filled(branches.values.mean(dim=1, keepdim=True))
        contributions = tiles.filled(attention.values * parts)
        auxiliary = {}
        if self.training:
            by_branch = branches.values[:, :, None] * of_branches.reshape(len(score), self._branches, parts.shape[1])
            logits = tiles.filled(by_branch.flatten(1)).sums().reshape(-1, self._branches, parts.shape[1])
            auxiliary = {"branches": logits.transpose(0, 1), "likeness": _likeness(branches)}
        return BagOutput(contributions.sums(), attention, contributions, auxiliary)

    def _score(self, embedded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention(embedded), self.branch_heads(embedded), self.head(embedded)

    def _some_hidden(self, tiles: Packed, score: Tensor) -> Tensor:
        hidden = torch.zeros_like(score, dtype=torch.bool)
        for span in tiles.spans:
            most = min(self._most, span.stop - span.start - 1)
            count = int(most * self._hidden)
            if count < 1:
                continue
            favourites = score[span].detach().topk(most, dim=0).indices
            order = torch.rand(favourites.shape, device=score.device).argsort(dim=0)[:count]
            chosen = span.start + favourites.gather(0, order)
            hidden[chosen, torch.arange(self._branches, device=score.device)[None, :]] = True
        return score.masked_fill(hidden, -torch.inf)


def _likeness(branches: Packed) -> Tensor:
    """Return the mean cosine between the attentions of two branches over pairs, summed over bags, and their number."""
    pairs = list(combinations(range(branches.values.shape[1]), 2))
    if not pairs:
        return torch.stack([0 * branches.values.sum(), branches.values.new_ones(())])
    first, second = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    products = branches.filled(branches.values[:, first] * branches.values[:, second]).sums()
    norms = branches.filled(branches.values**2).sums().clamp(min=1e-12).sqrt()
    likeness = (products / (norms[:, first] * norms[:, second]))[branches.lengths > 0].mean(dim=1)
    return torch.stack([likeness.sum(), likeness.new_tensor(float(len(likeness)))])
