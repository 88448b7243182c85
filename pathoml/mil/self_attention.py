"""Self-attention over the tokens of one bag, and what its class token looks at."""

import torch
from torch import Tensor, nn

from pathoml.mil.as_given import as_given, attended, normalised
from pathoml.mil.pieces import in_pieces

Bias = tuple[Tensor, Tensor]
"""Columns that are appended to queries and keys, each of shape (heads, tokens, columns): their products are added to the scores."""


class SelfAttention(nn.Module):
    """Multi-head attention among all tokens, exact, in memory that grows with their number and not with its square.

    Of a token of a large bag only query, key and value are kept.

    Parameters
    ----------
    dim : int
        Columns of a token.
    heads : int
        Divides it.

    References
    ----------
    Vaswani A et al. Attention is all you need. NeurIPS 2017.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.joined = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, norm: nn.LayerNorm, bias: Bias | None = None) -> Tensor:
        """Let tokens take from each other.

        Parameters
        ----------
        tokens : Tensor, shape (tokens, dim)
            Of one bag.
        norm : nn.LayerNorm
            Through which each token goes first.
        bias : tuple of Tensor, optional
            Columns appended to queries and keys.

        Returns
        -------
        Tensor, shape (tokens, dim)
            What each took.
        """
        query, key, value = self._split(tokens, norm)
        taken = (
            attended(query, key, value, value.shape[2] ** -0.5) if bias is None else _biased(query, key, value, bias)
        )
        joined: Tensor = self.joined(taken.transpose(0, 1).flatten(1))
        return joined

    def of_first(self, tokens: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """Let the first token alone take from all; nothing is added to its scores.

        Parameters
        ----------
        tokens : Tensor, shape (tokens, dim)
            Of one bag.
        norm : nn.LayerNorm
            Through which each token goes first.

        Returns
        -------
        taken : Tensor, shape (1, dim)
            The first row of what `forward` gives, if the first token's columns of the bias are 0.
        weights : Tensor, shape (tokens - 1,)
            How much it looks at each of the others, mean over heads; sums to 1.
        """
        query, key, value = self._split(tokens, norm)
        scores = (query[:, :1] @ key.transpose(1, 2)).float() * value.shape[2] ** -0.5
        taken = as_given(torch.softmax(scores, dim=2)).to(value.dtype) @ value
        weights = torch.softmax(scores[:, 0, 1:], dim=1).mean(dim=0)
        return self.joined(taken.transpose(0, 1).flatten(1)), weights

    def _split(self, tokens: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
        (projected,) = in_pieces(
            lambda own: (self.project(normalised(norm, own)),), tokens, nn.ModuleList([norm, self.project])
        )
        parts = projected.reshape(len(tokens), 3, self._heads, tokens.shape[1] // self._heads).permute(1, 2, 0, 3)
        return parts[0], parts[1], parts[2]


def _biased(query: Tensor, key: Tensor, value: Tensor, bias: Bias) -> Tensor:
    """Attend in float32 at least: the bias is a small difference of large products, of which bfloat16 would leave nothing."""
    exact = torch.promote_types(value.dtype, torch.float32)
    root = value.shape[2] ** 0.5  # the scores are divided by it
    with torch.autocast(value.device.type, enabled=False):
        query = torch.cat([query.to(exact), (bias[0] * root).to(exact)], dim=2)
        key = torch.cat([key.to(exact), bias[1].to(exact)], dim=2)
        return attended(query, key, value.to(exact), 1 / root).to(value.dtype)
