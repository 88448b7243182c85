"""CLAM with a single attention branch: its most and least attended tiles are also told apart."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pathoml.mil.abmil import Abmil
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.settings import AbmilSettings, ClamSettings


class ClamSb(Abmil):
    """Gated attention, and in training a classifier that has to tell the most from the least attended tiles of a bag.

    A survival model has no classes, so that there is one such classifier, of the "in the class" kind.

    Parameters
    ----------
    settings : ClamSettings
        Widths, dropout, tiles told apart and the weight of doing so.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Lu MY et al. Data-efficient and weakly supervised computational pathology on whole-slide images. Nat Biomed Eng 5 (2021)
    555-570; cross-entropy as the instance loss, as its code has it by default.
    """

    def __init__(self, settings: ClamSettings, tile_dim: int, out: int) -> None:
        widths = AbmilSettings(
            hidden_dim=settings.hidden_dim, attention_dim=settings.attention_dim, dropout=settings.dropout
        )
        super().__init__(widths, tile_dim, out)
        self._sampled, self._weight = settings.instances, settings.instance_weight
        self.tell_apart = nn.Linear(settings.hidden_dim, 2)

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags; see `Aggregator.forward`.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            As of `Abmil`; in training with the term ``instances``.
        """
        output = super().forward(tiles)
        if not self.training or output.attention is None:
            return output
        return output._replace(
            auxiliary={"instances": self._instance_loss(tiles, output.attention.values[:, 0].detach())}
        )

    def _instance_loss(self, tiles: Packed, attention: Tensor) -> Tensor:
        """Return the loss of telling the most from the least attended tiles apart, summed over bags, and their number.

        Beside a bag's own loss, which has weight 1, it is as heavy as the paper's two weights say.
        """
        losses = []
        for span in tiles.spans:
            count = min(self._sampled, (span.stop - span.start) // 2)
            if count == 0:
                continue
            most, least = (attention[span].topk(count, largest=largest).indices for largest in (True, False))
            chosen = tiles.values[span][torch.cat([most, least])].to(self.tell_apart.weight.dtype)
            target = torch.arange(2 * count, device=chosen.device) < count
            losses.append(cross_entropy(self.tell_apart(self.embed(chosen)).float(), target.long()))
        total = torch.stack(losses).sum() if losses else 0 * self.tell_apart.weight.sum()
        return torch.stack([self._weight / (1 - self._weight) * total, total.new_tensor(float(len(losses)))])
