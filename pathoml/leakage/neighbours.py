"""Pairs of rows of a few numbers that are nearer to each other than chance brings strangers."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import poisson

from pathoml.units import FloatArray, IntArray

_LEAST_ROWS = 30
_ALONE = 0.002
"""Chance at most of a pair as near as one that is named, in the whole table."""
_TOGETHER, _RARE = 0.02, 0.001
"""Pairs nearer than so few rows have their neighbour are named together where there are more of them than chance makes."""
_LEAST_TOGETHER = 3


class NearPairs(NamedTuple):
    """Pairs that are too near to each other.

    Parameters
    ----------
    first, second : ndarray of int64, shape (pairs,)
        Rows, the first above.
    expected : float
        So many pairs as near as the farthest of them come about by chance.
    """

    first: IntArray
    second: IntArray
    expected: float


def near_pairs(values: FloatArray) -> NearPairs:
    """Find rows whose nearest row is too near, measured by how far the next ones are.

    Among strangers the distances to the nearest row and to the next have a ratio whose d-th power is uniform, d being the
    dimension; d itself is estimated from the next two [1]_, which a second row of the same person does not touch.

    Parameters
    ----------
    values : ndarray of float64, shape (rows, columns)
        Without gaps; columns hardly any two rows of which are equal.

    Returns
    -------
    NearPairs
        Each the other's nearest.

    References
    ----------
    .. [1] Levina and Bickel, Maximum likelihood estimation of intrinsic dimension, NIPS 2004.
    """
    rows, columns = values.shape
    nobody = NearPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0.0)
    if rows < _LEAST_ROWS:
        return nobody
    standard = standardised(values)
    distance, nearest = cKDTree(standard).query(standard, k=4)
    # A column that was rounded does not tell anybody apart within its last digit.
    own = np.sqrt(distance[:, 1] ** 2 + (_steps(standard) ** 2).sum())
    next_one, third = distance[:, 2], distance[:, 3]
    apart = next_one > 0
    if not apart.any():
        return nobody
    logs = float(np.log(third[apart] / next_one[apart]).sum())
    dimension = min(apart.sum() / (2 * logs), columns) if logs > 0 else columns
    chance = np.ones(rows)
    chance[apart] = np.minimum(own[apart] / next_one[apart], 1) ** dimension
    row, other = np.arange(rows), nearest[:, 1]
    first = np.flatnonzero((nearest[other, 1] == row) & (row < other))
    second = other[first]
    of_pair = np.maximum(chance[first], chance[second])
    together = int((of_pair < _TOGETHER).sum())
    by_chance = rows * _TOGETHER / 2
    crowd = together >= _LEAST_TOGETHER and poisson.sf(together - 1, by_chance) < _RARE
    named = of_pair < (_TOGETHER if crowd else _ALONE / rows)
    return NearPairs(first[named], second[named].astype(np.int64), by_chance if crowd else _ALONE / 2)


def _steps(standard: FloatArray) -> FloatArray:
    """Return the smallest difference between two values of each column."""
    ordered = np.sort(standard, axis=0)
    gaps = np.diff(ordered, axis=0)
    smallest: FloatArray = np.where(gaps > 0, gaps, np.inf).min(axis=0)
    return smallest


def standardised(values: FloatArray) -> FloatArray:
    """Return columns with mean 0 and standard deviation 1.

    Parameters
    ----------
    values : ndarray of float64, shape (rows, columns)
        Without gaps; no column is constant.

    Returns
    -------
    ndarray of float64
        Same shape.
    """
    standard: FloatArray = (values - values.mean(axis=0)) / values.std(axis=0)
    return standard


def independent_directions(standard: FloatArray) -> float:
    """Return how many independent directions rows have (participation ratio of the variances).

    Parameters
    ----------
    standard : ndarray of float64, shape (rows, columns)
        Standardised columns.

    Returns
    -------
    float
        From 1, all columns say the same, to their number.
    """
    small = standard if standard.shape[1] <= len(standard) else standard.T
    gram = small.T @ small
    return float(np.trace(gram) ** 2 / max(float((gram**2).sum()), 1e-300))
