"""Attention and gates as given: what is left of a network is linear in its tiles, so that one look backwards shares it out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

_STEPS = 8
"""Of Gauss and Legendre's rule, over small networks behind the pooling: the sum is exact to 1e-4 and better."""
_RULE = np.polynomial.legendre.leggauss(_STEPS)  # places from -1 to 1, weights that sum to 2
_PLACES = torch.tensor([*(_RULE[0] + 1) / 2, 1], dtype=torch.float32)  # and the end, which counts for nothing
_WEIGHTS = torch.tensor([*_RULE[1] / 2, 0], dtype=torch.float32)
_SCORES_AT_ONCE = 1 << 17
"""Attention weights that are written out at a time: half a megabyte, which stays in a core's cache."""
_FAINTEST = -60.0
"""Scores below the highest that no longer count: smaller weights are numbers so small that processors slow down."""

Result = TypeVar("Result")

_given: ContextVar[bool] = ContextVar("weights_as_given", default=False)


@contextmanager
def weights_as_given() -> Iterator[None]:
    """Let no gradient through attention weights, gates and scales of layer norms, as far as this context reaches.

    Yields
    ------
    None
        While it lasts.
    """
    token = _given.set(True)
    try:
        yield
    finally:
        _given.reset(token)


def as_given(weights: Tensor) -> Tensor:
    """Return weights by which something else is multiplied, as constants inside `weights_as_given`.

    Parameters
    ----------
    weights : Tensor
        Attention, a gate, a slope.

    Returns
    -------
    Tensor
        The same numbers.
    """
    return weights.detach() if _given.get() else weights


def with_weights_given(function: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function that treats weights as they are treated now, whenever and by whichever thread it is called.

    Parameters
    ----------
    function : callable
        Called again on the way back, for example.

    Returns
    -------
    callable
        The same function outside `weights_as_given`.
    """
    if not _given.get():
        return function

    def called(*arguments: Tensor) -> Result:
        with weights_as_given():
            return function(*arguments)

    return called


def attended(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Return what each query takes from the values, in memory that grows with their number and not with its square.

    Parameters
    ----------
    query, key : Tensor, shape (heads, queries or keys, columns)
        Whose products, times `scale`, are the scores.
    value : Tensor, shape (heads, keys, width)
        Not wider than the keys.
    scale : float
        Of the scores.

    Returns
    -------
    Tensor, shape (heads, queries, width)
        Inside `weights_as_given` with a gradient for the values alone.
    """
    if _given.get():
        taken: Tensor = _GivenAttention.apply(query.detach(), key.detach(), value, scale)
        return taken
    return _attention(query, key, value, scale)


def normalised(norm: nn.LayerNorm, rows: Tensor) -> Tensor:
    """Apply a layer norm, whose scale is given inside `weights_as_given`.

    Parameters
    ----------
    norm : nn.LayerNorm
        With weight and bias.
    rows : Tensor, shape (rows, columns)
        Tokens.

    Returns
    -------
    Tensor, shape (rows, columns)
        Normalised.
    """
    if not _given.get():
        result: Tensor = norm(rows)
        return result
    centred = rows - rows.mean(dim=-1, keepdim=True)
    scale = (centred.detach().square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
    return centred * scale * norm.weight + norm.bias


class GatedLinear(nn.Module):
    """The Gaussian error linear unit: its input times a gate, which is given inside `weights_as_given`."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, rows: Tensor) -> Tensor:
        """Apply it.

        Parameters
        ----------
        rows : Tensor
            Of any shape.

        Returns
        -------
        Tensor
            Of the same.
        """
        return rows * torch.special.ndtr(rows.detach()) if _given.get() else gelu(rows)


def mean_gradient(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean gradient along a straight way: times the way, what a weighted sum of results changes by.

    Parameters
    ----------
    function : callable
        Points of shape (points, ...) -> results of shape (points, out).
    start, end : Tensor, shape (...)
        Of the way.
    weight : Tensor, shape (out,)
        Of the results.

    Returns
    -------
    gradient : Tensor, shape (...)
        By Gauss and Legendre's rule.
    result : Tensor, shape (out,)
        At the end of the way.

    References
    ----------
    Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017, equation 1.
    """
    places = _PLACES.to(end.device).reshape(-1, *(1 for _ in range(end.ndim)))
    points = torch.lerp(start, end, places).detach().requires_grad_()
    with torch.enable_grad():
        results = function(points)
        (gradients,) = torch.autograd.grad(results, points, torch.outer(_WEIGHTS.to(end.device), weight))
    return gradients.sum(dim=0), results[-1].detach()


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    # Zeros beside the values keep all three as wide, which the fast kernels ask for.
    width = value.shape[2]
    padded = pad(value, (0, query.shape[2] - width))
    return scaled_dot_product_attention(query[None], key[None], padded[None], scale=scale)[0][:, :, :width]


class _GivenAttention(torch.autograd.Function):
    """Attention whose way back is that of a fixed matrix; its rows are written out again, a few at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.scale = scale
        return _attention(query, key, value, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor, None]:
        query, key = ctx.saved_tensors
        rows = gradient.abs().amax(dim=(0, 2)).nonzero()[:, 0]  # of the last layer only the class token is asked
        if len(rows) < query.shape[1]:
            query, gradient = query[:, rows], gradient[:, rows]
        at_once = min(len(rows), max(16, _SCORES_AT_ONCE // key.shape[1]))
        result = key.new_zeros(len(key), gradient.shape[2], key.shape[1])
        scores = key.new_empty(at_once, key.shape[1])
        for head in range(len(key)):
            columns = (key[head] * ctx.scale).T.contiguous()
            for begin in range(0, len(rows), max(1, at_once)):
                piece = slice(begin, begin + at_once)
                weights = torch.mm(query[head, piece], columns, out=scores[: len(rows[piece])])
                weights.sub_(weights.amax(dim=1, keepdim=True)).clamp_(min=_FAINTEST).exp_()
                result[head].addmm_((gradient[head, piece] / weights.sum(dim=1, keepdim=True)).T, weights)
        return None, None, result.transpose(1, 2), None
