"""Gated ABMIL on padded bags with a mask, as Opacus can take gradients of single samples through it: an oracle for ours."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pathoml.mil.packed import Packed


class PaddedAbmil(nn.Module):
    """Weights are those of `pathoml.mil.abmil.Abmil` under the same names, with the bias of the prognosis model."""

    def __init__(self, dim: int, hidden: int, attention: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, hidden)
        self.attend, self.gate, self.score = (
            nn.Linear(hidden, attention),
            nn.Linear(hidden, attention),
            nn.Linear(attention, 1),
        )
        self.head = nn.Linear(hidden, out, bias=False)

    def forward(self, tiles: Tensor, is_tile: Tensor) -> Tensor:
        embedded = torch.relu(self.embed(tiles))
        score = self.score(torch.tanh(self.attend(embedded)) * torch.sigmoid(self.gate(embedded)))[..., 0]
        weight = score.masked_fill(~is_tile, -torch.inf).softmax(dim=1)
        return self.head((weight[..., None] * embedded).sum(dim=1))


NAMES = {
    "embed": "slides.embed.0", "attend": "slides.attention.attend", "gate": "slides.attention.gate",
    "score": "slides.attention.score", "head": "slides.head",
}  # fmt: skip
"""Layer here -> layer of the prognosis model."""


def padded(tiles: Packed) -> tuple[Tensor, Tensor]:
    """Bags side by side, and which of their rows are tiles."""
    bags = [tiles.values[span] for span in tiles.spans]
    return pad_sequence(bags, batch_first=True), pad_sequence(
        [torch.ones(len(bag)) for bag in bags], batch_first=True
    ) > 0
