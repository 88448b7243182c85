"""Rows of numbers that nearly agree, among ten thousand: candidates by a sketch of few columns, then in full."""

from collections.abc import Iterator

import numpy as np

from pathoml.units import AnyArray, FloatArray, IntArray

_NEARLY_ONE = 0.995
_SKETCH = 48
_BLOCK = 1024
_FAR_NEARER = 0.25
"""How much nearer than anybody else the nearest has to be."""


def alike_rows(standard: FloatArray) -> tuple[IntArray, IntArray]:
    """Return pairs of rows that point nearly the same way.

    Parameters
    ----------
    standard : ndarray of float64, shape (rows, columns)
        Standardised columns.

    Returns
    -------
    tuple of ndarray of int64
        First and second of each pair.
    """
    unit = _unit(standard.astype(np.float32))
    sketch = _unit(_sketch(unit))
    first: list[int] = []
    second: list[int] = []
    for start in range(0, len(sketch), _BLOCK):
        near = sketch[start : start + _BLOCK] @ sketch[start:].T >= _NEARLY_ONE - 0.02
        one, two = (places + start for places in np.nonzero(near))
        later = two > one
        one, two = one[later], two[later]
        cosine = np.einsum("ij,ij->i", unit[one], unit[two])
        first += one[cosine >= _NEARLY_ONE].tolist()
        second += two[cosine >= _NEARLY_ONE].tolist()
    return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)


def far_nearest_rows(standard: FloatArray) -> tuple[IntArray, IntArray]:
    """Return pairs of rows of which one is far nearer to the other than to any third.

    Parameters
    ----------
    standard : ndarray of float64, shape (rows, columns)
        Standardised columns, of enough independent directions.

    Returns
    -------
    tuple of ndarray of int64
        First and second of each pair, the first above.
    """
    found = set()
    for one, two in _nearest(_sketch(standard.astype(np.float32))):
        distance = np.linalg.norm(standard - standard[one], axis=1)
        distance[one] = np.inf
        own = float(distance[two])
        distance[two] = np.inf
        if own < _FAR_NEARER * float(distance.min()):
            found.add((min(one, two), max(one, two)))
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _nearest(sketch: AnyArray) -> Iterator[tuple[int, int]]:
    """Yield each row whose nearest one is nearer by half than the next, with that one: twice what is asked for, for the sketch."""
    squares = (sketch**2).sum(axis=1)
    for start in range(0, len(sketch), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(sketch)))
        own = np.arange(len(block))
        distance = squares[block][:, None] + squares[None] - 2 * (sketch[block] @ sketch.T)
        distance[own, block] = np.inf
        nearest = distance.argmin(axis=1)
        first = distance[own, nearest]
        distance[own, nearest] = np.inf
        for place in np.flatnonzero(first < (2 * _FAR_NEARER) ** 2 * distance.min(axis=1)).tolist():
            yield int(block[place]), int(nearest[place])


def _sketch(rows: AnyArray) -> AnyArray:
    """Project rows on few directions, which keeps distances and angles nearly."""
    if rows.shape[1] <= _SKETCH:
        return rows
    turn = np.random.default_rng(0).normal(size=(rows.shape[1], _SKETCH)).astype(np.float32)
    return rows @ turn


def _unit(rows: AnyArray) -> AnyArray:
    unit: AnyArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
