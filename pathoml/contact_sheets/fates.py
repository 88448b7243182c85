"""What became of every tile of a slide's grid, and how often each fate and flag occurs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts import TileFlag
from pathoml.contact_sheets.marks import FATE_OF, FLAG_MARKS, Fate
from pathoml.tiles import ReadTiles
from pathoml.tiling import TileGrid


@dataclass(frozen=True)
class GridFates:
    """The fate of every tile of a grid.

    Parameters
    ----------
    fate : ndarray of uint8, shape (rows, columns)
        `Fate` of each.
    flags : ndarray of uint8, shape (rows, columns)
        `TileFlag` bits of those that were kept; 0 of the others.
    """

    fate: NDArray[np.uint8]
    flags: NDArray[np.uint8]

    def count(self, fate: Fate) -> int:
        """Return how many tiles met a fate.

        Parameters
        ----------
        fate : Fate
            Which.

        Returns
        -------
        int
            Tiles.
        """
        return int((self.fate == fate).sum())

    def flagged(self, flag: TileFlag) -> int:
        """Return how many of the kept tiles carry a flag.

        Parameters
        ----------
        flag : TileFlag
            Which.

        Returns
        -------
        int
            Tiles.
        """
        return int(((self.flags & flag) > 0).sum())

    def letters(self, row: int, column: int) -> str:
        """Return what is written into a tile.

        Parameters
        ----------
        row, column : int
            Of the grid.

        Returns
        -------
        str
            One letter for each flag of a kept tile; empty for an ordinary one.
        """
        return "".join(mark.letter for flag, mark in FLAG_MARKS.items() if self.flags[row, column] & flag)


def fates_of(grid: TileGrid, read: ReadTiles | None) -> GridFates:
    """Return the fate of every tile of a grid.

    Parameters
    ----------
    grid : TileGrid
        Of a slide.
    read : ReadTiles, optional
        What its tiles proved to be as they were read; before that all of the grid count as kept.

    Returns
    -------
    GridFates
        Each tile has one fate, so that their counts add up to the grid.
    """
    fate = np.zeros(grid.shape, dtype=np.uint8)
    flags = np.zeros(grid.shape, dtype=np.uint8)
    table = np.zeros(max(FATE_OF) + 1, dtype=np.uint8)
    table[list(FATE_OF)] = list(FATE_OF.values())
    fate[grid.rejected[:, 0], grid.rejected[:, 1]] = table[grid.reasons]
    rows, columns = grid.grid.T
    if read is None:
        flags[rows, columns] = grid.flags
        return GridFates(fate, flags)
    fate[rows[read.blurred], columns[read.blurred]] = Fate.OUT_OF_FOCUS
    fate[rows[read.lost], columns[read.lost]] = Fate.LOST
    flags[rows[read.kept], columns[read.kept]] = read.flags[read.kept]
    return GridFates(fate, flags)
