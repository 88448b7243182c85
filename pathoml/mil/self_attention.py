"""Self-attention over the tokens of one bag, and what its class token looks at."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

Bias = tuple[Tensor, Tensor]
"""Columns that are appended to queries and keys, each of shape (heads, tokens, columns): their products are added to the scores."""


class SelfAttention(nn.Module):
    """Multi-head attention among all tokens, exact, in memory that grows with their number and not with its square.

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

    def forward(self, tokens: Tensor, bias: Bias | None = None) -> Tensor:
        """Let tokens take from each other.

        Parameters
        ----------
        tokens : Tensor, shape (tokens, dim)
            Of one bag.
        bias : tuple of Tensor, optional
            Columns appended to queries and keys.

        Returns
        -------
        Tensor, shape (tokens, dim)
            What each took.
        """
        query, key, value = self._split(tokens, bias)
        # Zeros beside the values keep all three as wide, which the fast kernels ask for.
        width = value.shape[2]
        padded = torch.nn.functional.pad(value, (0, query.shape[2] - width))
        taken = scaled_dot_product_attention(query[None], key[None], padded[None], scale=width**-0.5)[0]
        joined: Tensor = self.joined(taken[:, :, :width].transpose(0, 1).flatten(1))
        return joined

    def of_first(self, tokens: Tensor, bias: Bias | None = None) -> Tensor:
        """Return how much the first token looks at each of the others.

        Parameters
        ----------
        tokens : Tensor, shape (tokens, dim)
            Of one bag.
        bias : tuple of Tensor, optional
            Columns appended to queries and keys.

        Returns
        -------
        Tensor, shape (tokens - 1,)
            Mean over heads; sums to 1.
        """
        query, key, value = self._split(tokens, bias)
        scores = (query[:, :1] @ key[:, 1:].transpose(1, 2)).float() * value.shape[2] ** -0.5
        return torch.softmax(scores[:, 0], dim=1).mean(dim=0)

    def _split(self, tokens: Tensor, bias: Bias | None) -> tuple[Tensor, Tensor, Tensor]:
        projected = (
            self.project(tokens)
            .reshape(len(tokens), 3, self._heads, tokens.shape[1] // self._heads)
            .permute(1, 2, 0, 3)
        )
        query, key, value = projected[0], projected[1], projected[2]
        if bias is not None:
            root = value.shape[2] ** 0.5  # the scores are divided by it
            query = torch.cat([query, (bias[0] * root).to(query.dtype)], dim=2)
            key = torch.cat([key, bias[1].to(key.dtype)], dim=2)
        return query, key, value
