"""DSMIL: every tile is compared with the most critical one."""

import torch
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator, start_at_zero, start_with_a_draw, weighed
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import DsmilSettings


class Dsmil(Aggregator):
    """Two streams: the tile with the highest logit, and attention by likeness to it; the result is their mean.

    While tiles' logits are equal, or nearly so, a small random score decides which is critical. In training each stream has the
    objective's loss by itself beside that of their mean.

    Parameters
    ----------
    settings : DsmilSettings
        Width of queries and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits; each has its own critical tile and attention.

    References
    ----------
    Li B, Li Y, Eliceiri KW. Dual-stream multiple instance learning network for whole slide image classification with
    self-supervised contrastive learning. CVPR 2021, equations 2 to 5.
    """

    def __init__(self, settings: DsmilSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        width = settings.query_dim
        self._out = out
        self.instance = nn.Linear(tile_dim, out, bias=False)
        self.draw: Tensor
        self.register_buffer("draw", start_with_a_draw(self.instance))
        self.query = nn.Sequential(nn.Linear(tile_dim, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh())
        self.drop = nn.Dropout(settings.dropout)
        self.head = start_at_zero(nn.Linear(tile_dim, out * out, bias=False))

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), attention with one column an output, contributions (tiles, out).
        """
        instance, query, parts, draws = in_pieces(self._score, tiles.values, self)
        chosen, likeness = torch.zeros_like(instance), []
        for span in tiles.spans:
            if span.stop > span.start:
                critical = span.start + (instance[span].detach() + draws[span]).argmax(dim=0)
                chosen[critical, torch.arange(self._out)] = 1
                likeness.append(query[span] @ query[critical].T / query.shape[1] ** 0.5)
        attention = tiles.filled(torch.cat(likeness) if likeness else instance).softmax()
        of_critical = tiles.filled(instance * chosen)
        of_all = tiles.filled(weighed(attention.values, parts))
        contributions = tiles.filled((of_critical.values + of_all.values) / 2)
        auxiliary = {"streams": torch.stack([of_critical.sums(), of_all.sums()])} if self.training else {}
        return BagOutput(contributions.sums(), attention, contributions, auxiliary)

    def _score(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        draws = (values @ self.draw.T.to(values.dtype)).detach()
        return self.instance(values), self.query(values), self.head(self.drop(values)), draws
