"""Rows of numbers that nearly agree, among ten thousand: candidates by a sketch of few columns, then in full."""

from collections.abc import Iterator

import numpy as np

from pathoml.units import AnyArray, FloatArray, IntArray

_NEARLY_ONE = 0.995
_SKETCH = 48
_BLOCK = 1024
_FAR_NEARER = 0.25
"""How much nearer than anybody else the nearest has to be."""


def alike_rows(standard: FloatArray, *, nearest_only: bool = False) -> tuple[IntArray, IntArray]:
    """Return pairs of rows that point nearly the same way.

    Parameters
    ----------
    standard : ndarray of float64, shape (rows, columns)
        Standardised columns.
    nearest_only : bool, optional
        Whether the two have to be far nearer to each other than the first of them is to anybody else.

    Returns
    -------
    tuple of ndarray of int64
        First and second of each pair.
    """
    unit = standard.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    first: list[int] = []
    second: list[int] = []
    for one, two in _candidates(unit):
        cosine = np.einsum("ij,ij->i", unit[one], unit[two])
        near = cosine >= _NEARLY_ONE
        first += one[near].tolist()
        second += two[near].tolist()
    pairs = np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    return _far_nearer(standard, *pairs) if nearest_only else pairs


def _candidates(unit: AnyArray) -> Iterator[tuple[IntArray, IntArray]]:
    sketch = unit
    if unit.shape[1] > _SKETCH:
        turn = np.random.default_rng(0).normal(size=(unit.shape[1], _SKETCH)).astype(np.float32)
        sketch = unit @ turn
        sketch /= np.maximum(np.linalg.norm(sketch, axis=1, keepdims=True), 1e-12)
    for start in range(0, len(sketch), _BLOCK):
        near = sketch[start : start + _BLOCK] @ sketch[start:].T >= _NEARLY_ONE - 0.02
        first, second = np.nonzero(near)
        later = second > first
        yield first[later] + start, second[later] + start


def _far_nearer(standard: FloatArray, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    kept = []
    for place, (one, two) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        distance = np.linalg.norm(standard - standard[one], axis=1)
        distance[one] = np.inf
        own = float(distance[two])
        distance[two] = np.inf
        if own < _FAR_NEARER * float(distance.min()):
            kept.append(place)
    return first[kept], second[kept]
