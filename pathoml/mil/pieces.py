"""Large bags piece by piece: what lies between is computed again on the way back, so that memory does not grow with the bag."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_TILES = 1024
WHOLE_UP_TO = 32_768
"""Tiles up to which everything is kept, since that is faster."""

TileFunction = Callable[[Tensor], tuple[Tensor, ...]]


def in_pieces(function: TileFunction, values: Tensor, module: torch.nn.Module) -> tuple[Tensor, ...]:
    """Apply a function of single tiles to all tiles.

    Dropout falls on the same units when a piece is computed again.

    Parameters
    ----------
    function : callable
        Tiles of shape (n, columns) -> tensors with one row a tile, each of which depends on that tile alone.
    values : Tensor, shape (tiles, columns)
        Of any floating type, for example float16 as on disk; converted to the parameters' type piece by piece.
    module : nn.Module
        Whose parameters the function uses.

    Returns
    -------
    tuple of Tensor
        As the function gives them, for all tiles.

    References
    ----------
    Chen T et al. Training deep nets with sublinear memory cost. arXiv:1604.06174 (2016).
    """
    parameters = tuple(module.parameters())

    def converted(piece: Tensor) -> tuple[Tensor, ...]:
        return function(piece.to(parameters[0].dtype))

    if len(values) <= PIECE_TILES or (len(values) <= WHOLE_UP_TO and torch.is_grad_enabled()):
        return converted(values)
    if torch.is_grad_enabled():
        outputs: tuple[Tensor, ...] = _Recomputed.apply(converted, values, *parameters)
        return outputs
    return _joined([converted(piece) for piece in _cut(values)])


def _cut(values: Tensor) -> list[Tensor]:
    return [values[start : start + PIECE_TILES] for start in range(0, len(values), PIECE_TILES)]


def _joined(results: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))


class _Recomputed(torch.autograd.Function):
    """A function of tiles of which nothing is kept but its results."""

    @staticmethod
    def forward(ctx: Any, function: TileFunction, values: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.function, ctx.values, ctx.parameters = function, values, parameters
        ctx.mixed = torch.is_autocast_enabled(values.device.type)
        ctx.states = []
        results = []
        for piece in _cut(values):
            ctx.states.append(random_state(values.device))
            results.append(function(piece))
        return _joined(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values: Tensor = ctx.values
        used = [one for one in ctx.parameters if one.requires_grad]
        sums: dict[int, Tensor] = {}
        of_values = torch.zeros_like(values) if ctx.needs_input_grad[1] else None
        after = random_state(values.device)
        for number, start in enumerate(range(0, len(values), PIECE_TILES)):
            rows = slice(start, start + PIECE_TILES)
            set_random_state(values.device, ctx.states[number])
            piece = values[rows].detach().requires_grad_(of_values is not None)
            with torch.enable_grad(), torch.autocast(values.device.type, dtype=torch.bfloat16, enabled=ctx.mixed):
                outputs = ctx.function(piece)
            wanted = [*used, piece] if of_values is not None else used
            given = [
                (one, gradient[rows]) for one, gradient in zip(outputs, gradients, strict=True) if one.requires_grad
            ]
            found = torch.autograd.grad(
                [one for one, _ in given], wanted, [gradient for _, gradient in given], allow_unused=True
            )
            grown: list[Tensor | None] = list(found)  # None where an output does not depend on a parameter
            for one, gradient in zip(used, grown, strict=False):
                if gradient is None:
                    continue
                if id(one) not in sums:  # in float64, since there may be many pieces
                    sums[id(one)] = torch.zeros_like(one, dtype=torch.float64)
                sums[id(one)] += gradient
            if of_values is not None and found[-1] is not None:
                of_values[rows] = found[-1]
        set_random_state(values.device, after)
        rounded = {key: value.to(used[0].dtype) for key, value in sums.items()}
        return None, of_values, *(rounded.get(id(one)) for one in ctx.parameters)


def random_state(device: torch.device) -> Tensor:
    """Return the state of a device's own random numbers.

    Parameters
    ----------
    device : torch.device
        CPU or GPU.

    Returns
    -------
    Tensor of uint8
        For `set_random_state`.
    """
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Bring a device's random numbers back to a state.

    Parameters
    ----------
    device : torch.device
        CPU or GPU.
    state : Tensor of uint8
        From `random_state`.
    """
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
