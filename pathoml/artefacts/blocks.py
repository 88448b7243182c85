"""Looking at a picture block by block, so that memory does not grow with the slide."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from pathoml.units import BoolArray

BLOCK_PX = 1024
"""Side of a block: its densities stay in a processor's cache, or near it."""
Part = tuple[slice, slice]


def in_blocks(shape: tuple[int, ...], margin_px: float, find: Callable[[Part], BoolArray]) -> BoolArray:
    """Put together what is found in the blocks of a picture.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the picture.
    margin_px : float
        How far around a block has to be seen to judge what is in it.
    find : callable
        Rows and columns of a part of the picture -> what is found there (bool, of the part's shape).

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        What was found in each block; nothing of the margins around it.
    """
    found = np.zeros(shape[:2], dtype=bool)
    margin = int(np.ceil(margin_px))
    for rows in _spans(shape[0]):
        for columns in _spans(shape[1]):
            seen = (_widened(rows, margin, shape[0]), _widened(columns, margin, shape[1]))
            inner = tuple(
                slice(core.start - wide.start, core.stop - wide.start)
                for core, wide in zip((rows, columns), seen, strict=True)
            )
            found[rows, columns] = find(seen)[inner]
    return found


def _spans(length: int) -> Iterator[slice]:
    """Cut a length into equal parts of at most a block."""
    count = max(1, -(-length // BLOCK_PX))
    edges = np.linspace(0, length, count + 1).round().astype(int)
    return (slice(int(start), int(stop)) for start, stop in pairwise(edges))


def _widened(span: slice, margin: int, length: int) -> slice:
    return slice(max(0, span.start - margin), min(length, span.stop + margin))
