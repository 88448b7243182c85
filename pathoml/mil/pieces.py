"""Large bags piece by piece: what lies between is computed again on the way back, so that memory does not grow with the bag."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PIECE_TILES = 4096
WHOLE_UP_TO = 32_768
"""Tiles up to which everything is kept, since that is faster."""


def in_pieces(
    function: Callable[[Tensor], tuple[Tensor, ...]], values: Tensor, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Apply a function of single tiles to all tiles.

    Dropout falls on the same units when a piece is computed again.

    Parameters
    ----------
    function : callable
        Tiles of shape (n, columns) -> tensors with one row a tile, each of which depends on that tile alone.
    values : Tensor, shape (tiles, columns)
        Of any floating type, for example float16 as on disk.
    dtype : torch.dtype
        What the function takes; converted piece by piece.

    Returns
    -------
    tuple of Tensor
        As the function gives them, for all tiles.

    References
    ----------
    Chen T et al. Training deep nets with sublinear memory cost. arXiv:1604.06174 (2016).
    """

    def converted(piece: Tensor) -> tuple[Tensor, ...]:
        return function(piece.to(dtype))

    if len(values) <= WHOLE_UP_TO:
        return converted(values)
    pieces = values.split(PIECE_TILES)  # type: ignore[no-untyped-call]
    if torch.is_grad_enabled():
        results = [checkpoint(converted, piece, use_reentrant=False) for piece in pieces]
    else:
        results = [converted(piece) for piece in pieces]
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
