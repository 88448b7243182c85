"""The attention branch that most heads share: one number a tile and head, before the softmax over its bag."""

import torch
from torch import Tensor, nn


class TileAttention(nn.Module):
    """Plain or gated attention scores.

    Parameters
    ----------
    dim : int
        Columns of a tile.
    attention_dim : int
        Width of the branch.
    heads : int, optional
        Scores a tile.
    gated : bool, optional
        Whether a sigmoid gates the hyperbolic tangent.

    References
    ----------
    Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML 2018, equations 8 and 9.
    """

    def __init__(self, dim: int, attention_dim: int, *, heads: int = 1, gated: bool = True) -> None:
        super().__init__()
        self.attend = nn.Linear(dim, attention_dim)
        self.gate = nn.Linear(dim, attention_dim) if gated else None
        self.score = nn.Linear(attention_dim, heads)

    def forward(self, tiles: Tensor) -> Tensor:
        """Score tiles.

        Parameters
        ----------
        tiles : Tensor, shape (tiles, dim)
            Embedded.

        Returns
        -------
        Tensor, shape (tiles, heads)
            Before the softmax.
        """
        hidden = torch.tanh(self.attend(tiles))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(tiles))
        scores: Tensor = self.score(hidden)
        return scores
