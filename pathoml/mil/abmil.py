"""Gated attention multiple-instance learning with an additive head."""

import torch
from torch import nn

from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.settings import AbmilSettings


class GatedAbmil(nn.Module):
    """Attention-weighted sum of tile embeddings, then a linear layer without bias.

    Because the layer is linear, each tile's share of the result is exact: attention times the tile's own logit.

    Parameters
    ----------
    settings : AbmilSettings
        Widths and dropout.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    References
    ----------
    Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML 2018, equation 9.
    """

    def __init__(self, settings: AbmilSettings, tile_dim: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(tile_dim, settings.hidden_dim), nn.ReLU(), nn.Dropout(settings.dropout))
        self.attend = nn.Linear(settings.hidden_dim, settings.attention_dim)
        self.gate = nn.Linear(settings.hidden_dim, settings.attention_dim)
        self.score = nn.Linear(settings.attention_dim, 1)
        self.head = nn.Linear(settings.hidden_dim, out, bias=False)
        # Before training the slides say nothing: the model starts as the covariates' and maps start blank.
        nn.init.zeros_(self.head.weight)

    def forward(self, tiles: Packed) -> BagOutput:
        """Score bags.

        Parameters
        ----------
        tiles : Packed
            Rows of shape (tiles, tile_dim).

        Returns
        -------
        BagOutput
            Logits (bags, out), attention with one column, contributions (tiles, out).
        """
        embedded = self.embed(tiles.values)
        score = self.score(torch.tanh(self.attend(embedded)) * torch.sigmoid(self.gate(embedded)))
        attention = Packed(score, tiles.offsets).softmax()
        contributions = Packed(attention.values * self.head(embedded), tiles.offsets)
        return BagOutput(contributions.sums(), attention, contributions, {})
