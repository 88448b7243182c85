"""Corners of tiles -> rows and columns of the grid that they lie on, if they do. Pure arithmetic."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pathoml.units import FloatArray, IntArray

_TOLERANCE_PX = 4.0
"""As far as a codec that shrinks by 8 moves a corner; whole pixels move it by half of one."""
_LEAST_STEP_SHARE = 0.25
"""A measured step below this share of a tile is an accident of several grids, not an overlap."""


class Lattice(NamedTuple):
    """A regular grid and each tile's place on it.

    Parameters
    ----------
    grid : ndarray of int32, shape (tiles, 2)
        Row and column.
    stride : tuple of float
        Step in x and y, level-0 pixels.
    origin : tuple of float
        Corner (x, y) of row 0, column 0.
    regular : bool
        False where the tiles lie on no grid: rows and columns are then their corners in single pixels.
    """

    grid: NDArray[np.int32]
    stride: tuple[float, float]
    origin: tuple[float, float]
    regular: bool


def find_lattice(coords: IntArray, footprint_px: tuple[float, float], step_px: tuple[float, float] | None) -> Lattice:
    """Find the grid that tiles were cut on.

    Parameters
    ----------
    coords : ndarray of int64, shape (tiles, 2)
        Corners (x, y) in level-0 pixels.
    footprint_px : tuple of float
        Width and height of a tile.
    step_px : tuple of float or None
        Distance of neighbouring tiles where it is known.

    Returns
    -------
    Lattice
        Rows and columns counted from the slide's corner where the grid starts there, else from its first tile.

    Examples
    --------
    >>> find_lattice(np.array([[448, 0], [0, 224]]), (224.0, 224.0), None).grid.tolist()
    [[0, 2], [1, 0]]
    """
    steps = step_px or footprint_px
    axes = [_find_axis(coords[:, axis].astype(np.float64), footprint_px[axis], steps[axis]) for axis in (0, 1)]
    x, y = axes
    if x is not None and y is not None:
        grid = np.stack([y.place, x.place], axis=1).astype(np.int32)
        if len(np.unique(grid, axis=0)) == len(grid):
            return Lattice(grid, (x.step, y.step), (x.origin, y.origin), regular=True)
    return Lattice(coords[:, ::-1].astype(np.int32), (1.0, 1.0), (0.0, 0.0), regular=False)


class _Axis(NamedTuple):
    place: IntArray
    step: float
    origin: float


def _find_axis(values: FloatArray, footprint: float, step: float) -> _Axis | None:
    """Try the step that is known from the slide's corner, then from the first tile, then the step that is measured."""
    measured = _measured_step(values, footprint)
    trials = [(step, 0.0), (step, float(values.min()))]
    if measured is not None:
        trials += [(measured, 0.0), (measured, float(values.min()))]
    for one, origin in trials:
        index = np.rint((values - origin) / one).astype(np.int64)
        if np.abs(index * one + origin - values).max() <= min(_TOLERANCE_PX, one / 8):
            return _Axis(index, one, origin)
    return None


def _measured_step(values: FloatArray, footprint: float) -> float | None:
    """Return the step that the corners themselves show, or None if they show none."""
    places = np.unique(values)
    gaps = np.diff(places)
    if len(gaps) == 0 or gaps.min() < _LEAST_STEP_SHARE * footprint:
        return None
    step = float(gaps.min())
    for _ in range(3):  # each pass counts steps with what the one before has learnt of their length
        index = np.concatenate([[0.0], np.cumsum(np.rint(gaps / step))])
        step = float(np.polyfit(index, places, 1)[0])
    return step
