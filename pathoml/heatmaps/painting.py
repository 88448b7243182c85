"""Tile values -> pixels of any rectangle of the slide: exact at every overlap and resolution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathoml.bags import BagHeader
from pathoml.units import FloatArray, IntArray


@dataclass(frozen=True)
class Window:
    """A rectangle of a slide and the picture of it.

    Parameters
    ----------
    left, top, width, height : float
        In level-0 pixels; may reach beyond the slide.
    shape : tuple of int
        Rows and columns of the picture.
    """

    left: float
    top: float
    width: float
    height: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class TileLattice:
    """Tile values at their places in the grid.

    Parameters
    ----------
    first : tuple of int
        Row and column of the grid at the array's corner.
    values : ndarray of float64, shape (rows + 1, columns + 1)
        One cell a tile, 0 where there is none; a last row and column of zeros.
    counts : ndarray of float64, same shape
        1 where there is a tile.
    stride_px, footprint_px, origin_px : tuple of float
        Step, size and start of the tiles (x, y) in level-0 pixels.
    """

    first: tuple[int, int]
    values: FloatArray
    counts: FloatArray
    stride_px: tuple[float, float]
    footprint_px: tuple[float, float]
    origin_px: tuple[float, float]


def tile_lattice(header: BagHeader, grid: NDArray[np.int32], values: FloatArray) -> TileLattice:
    """Put tile values at their places.

    Parameters
    ----------
    header : BagHeader
        Of the slide's bag.
    grid : ndarray of int32, shape (tiles, 2)
        Row and column of each tile.
    values : ndarray of float64, shape (tiles,)
        One for each tile.

    Returns
    -------
    TileLattice
        Ready to be painted.
    """
    first_row, first_column = (int(value) for value in grid.min(axis=0))
    rows, columns = (int(value) for value in grid.max(axis=0) - grid.min(axis=0) + 2)
    cells, counts = np.zeros((rows, columns)), np.zeros((rows, columns))
    place = (grid[:, 0] - first_row, grid[:, 1] - first_column)
    cells[place], counts[place] = values, 1.0
    return TileLattice(
        (first_row, first_column), cells, counts, header.stride_level0_px, header.footprint_level0_px,
        header.origin_level0_px,
    )  # fmt: skip


def paint(lattice: TileLattice, window: Window) -> FloatArray:
    """Paint the tiles that lie in a rectangle.

    Parameters
    ----------
    lattice : TileLattice
        The tiles.
    window : Window
        What is painted, and at which size.

    Returns
    -------
    ndarray of float64, shape ``window.shape``
        The mean of the tiles over each pixel, NaN where there is none. A tile's edges fall on the nearest edge of a
        pixel; one that is smaller than half a pixel fills the one it starts in.
    """
    extent = (window.height, window.width)
    start = (window.top, window.left)
    over = [
        _tiles_over_pixels(lattice, axis, start[axis], extent[axis] / window.shape[axis], window.shape[axis])
        for axis in (0, 1)
    ]
    total, count = (_gathered(cells, *over) for cells in (lattice.values, lattice.counts))
    painted: FloatArray = np.divide(total, count, out=np.full(window.shape, np.nan), where=count > 0)
    return painted


def tile_raster(header: BagHeader, grid: NDArray[np.int32], values: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Paint tile values on a picture of the whole slide.

    Parameters
    ----------
    header : BagHeader
        Of the slide's bag.
    grid : ndarray of int32, shape (tiles, 2)
        Row and column of each tile.
    values : ndarray of float64, shape (tiles,)
        One for each tile.
    shape : tuple of int
        Rows and columns of the picture, which covers the slide exactly.

    Returns
    -------
    ndarray of float64, shape ``shape``
        As of `paint`.
    """
    return paint(tile_lattice(header, grid, values), Window(0, 0, header.width_px, header.height_px, shape))


def _gathered(cells: FloatArray, rows: IntArray, columns: IntArray) -> FloatArray:
    """Sum the cells over each pixel: first down, then across; index -1 is the row or column of zeros."""
    down = cells[rows[0]]
    for more in rows[1:]:
        down = down + cells[more]
    total: FloatArray = down[:, columns[0]]
    for more in columns[1:]:
        total = total + down[:, more]
    return total


def _tiles_over_pixels(lattice: TileLattice, axis: int, start_px: float, scale: float, pixels: int) -> IntArray:
    """Return, for one side, the lattice positions of the tiles over each pixel, shape (most tiles, pixels); -1 for none."""
    xy = 1 - axis
    count = lattice.values.shape[axis] - 1
    corner = lattice.origin_px[xy] + (lattice.first[axis] + np.arange(count)) * lattice.stride_px[xy] - start_px
    begins = np.rint(corner / scale)
    ends = np.maximum(np.rint((corner + lattice.footprint_px[xy]) / scale), begins + 1)
    pixel = np.arange(pixels)
    lowest = np.searchsorted(ends, pixel, side="right")
    highest = np.searchsorted(begins, pixel, side="right") - 1
    most = max(1, int((highest - lowest).max()) + 1)
    found = lowest[None, :] + np.arange(most)[:, None]
    return np.where(found <= highest[None, :], found, -1).astype(np.int64)
