"""How each fate of a tile is marked: by a colour, by a hatching and by a letter, so that none is told by colour alone."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pathoml.artefacts import TileFlag
from pathoml.tiling import Rejection
from pathoml.units import BoolArray, RgbImage

TISSUE_LINE = (0, 0, 0)
"""Colour of the line around tissue; lines around artefacts have those of their marks, within white."""
SWATCH_PX = (36, 18)
"""Width and height of a sample of a mark in a legend."""
TINT = 0.12
"""Share of its colour that is laid over a tile that was dropped."""


class Fate(IntEnum):
    """What became of a tile of the grid; each has exactly one."""

    KEPT = 0
    LITTLE_TISSUE = 1
    PEN = 2
    NOT_DRAWN = 3
    FOLD = 4
    BUBBLE = 5
    BLOOD_OR_PIGMENT = 6
    EDGE = 7
    NO_TISSUE = 8
    OUT_OF_FOCUS = 9
    LOST = 10


FATE_OF = {reason: Fate[reason.name] for reason in Rejection}


@dataclass(frozen=True)
class Mark:
    """How something is marked on a sheet.

    Parameters
    ----------
    text : str
        What it means, as a legend says it.
    colour : tuple of int
        RGB, of the palettes of Okabe and Ito and of Tol, which the colour-blind can tell apart.
    hatching : tuple of str
        A small pattern that is repeated: ``#`` is a pixel in the colour. Empty for none.
    letter : str
        Written into tiles that are large enough on the sheet.
    """

    text: str
    colour: tuple[int, int, int]
    hatching: tuple[str, ...] = ()
    letter: str = ""


_RISING = tuple("." * (11 - row) + "#" + "." * row for row in range(12))
_FALLING = tuple("." * row + "#" + "." * (7 - row) for row in range(8))
_CROSSED = ("#......#", ".#....#.", "..#..#..", "...##...", "...##...", "..#..#..", ".#....#.", "#......#")
_UPRIGHT, _LEVEL = ("#....",), ("#", ".", ".", ".", ".")
_BROKEN_UPRIGHT = ("#....", "#....", "#....", ".....", ".....")
_BROKEN_LEVEL = ("###..", ".....", ".....", ".....", ".....")
_RINGS = (".###....", "#...#...", "#...#...", "#...#...", ".###....", "........", "........", "........")
_BLOTS = ("###...", "###...", "###...", "......", "......", "......")
_DOTS = ("##....", "##....", "......", "......", "......", "......")
_CHEQUERED = ("##..", "##..", "..##", "..##")

MARKS = {
    Fate.KEPT: Mark("kept", (0, 90, 181)),
    Fate.NO_TISSUE: Mark("no tissue", (200, 200, 200)),
    Fate.LITTLE_TISSUE: Mark("little tissue", (230, 159, 0), _RISING, "L"),
    Fate.EDGE: Mark("too far over the slide's edge", (90, 90, 90), _UPRIGHT, "E"),
    Fate.PEN: Mark("pen", (90, 0, 110), _CROSSED, "P"),
    Fate.FOLD: Mark("fold", (0, 140, 100), _FALLING, "F"),
    Fate.BUBBLE: Mark("bubble", (20, 130, 210), _RINGS, "B"),
    Fate.BLOOD_OR_PIGMENT: Mark("blood or pigment", (200, 60, 0), _BLOTS, "H"),
    Fate.OUT_OF_FOCUS: Mark("out of focus", (130, 110, 0), _LEVEL, "D"),
    Fate.LOST: Mark("damaged, cannot be read", (136, 34, 85), _CHEQUERED, "X"),
    Fate.NOT_DRAWN: Mark("left out by chance (max_tiles)", (130, 130, 130), _DOTS, "S"),
}
"""Of each fate, in the order of legends."""

FLAG_MARKS = {
    TileFlag.PEN: MARKS[Fate.PEN],
    TileFlag.FOLD: MARKS[Fate.FOLD],
    TileFlag.BUBBLE: MARKS[Fate.BUBBLE],
    TileFlag.BLOOD_OR_PIGMENT: MARKS[Fate.BLOOD_OR_PIGMENT],
    TileFlag.OUT_OF_FOCUS: MARKS[Fate.OUT_OF_FOCUS],
    TileFlag.ABSENT_PART: Mark("part never scanned", (17, 119, 51), _BROKEN_UPRIGHT, "A"),
    TileFlag.OVERHANG: Mark("over the slide's edge", (90, 90, 90), _BROKEN_LEVEL, "O"),
}
"""Of each flag; where a kept tile has several, the first is hatched and all letters are written."""


def hatched(mark: Mark, rows: int, columns: int) -> BoolArray:
    """Return where a mark's hatching falls.

    Parameters
    ----------
    mark : Mark
        The mark.
    rows, columns : int
        Of a picture.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True where its colour goes; all False if it has no hatching.
    """
    if not mark.hatching:
        return np.zeros((rows, columns), dtype=bool)
    one = np.array([[cell == "#" for cell in line] for line in mark.hatching])
    repeats = (-(-rows // one.shape[0]), -(-columns // one.shape[1]))
    return np.tile(one, repeats)[:rows, :columns]


def swatch(mark: Mark, *, dropped: bool) -> RgbImage:
    """Return a sample of a mark as it looks on a white slide.

    Parameters
    ----------
    mark : Mark
        The mark.
    dropped : bool
        Whether it stands for tiles that were dropped, which are tinted; those that were kept have the frame of kept ones.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB, of `SWATCH_PX`.
    """
    width, height = SWATCH_PX
    sample = np.full((height, width, 3), 255, dtype=np.uint8)
    if dropped:
        tint(sample, np.ones((height, width), dtype=bool), mark)
    sample[hatched(mark, height, width)] = mark.colour
    frame = mark.colour if dropped else MARKS[Fate.KEPT].colour
    sample[[0, -1]] = frame
    sample[:, [0, -1]] = frame
    return sample


def tint(picture: RgbImage, where: BoolArray, mark: Mark) -> None:
    """Lay a mark's colour thinly over a part of a picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        Changed.
    where : ndarray of bool, shape (rows, columns)
        The part.
    mark : Mark
        Its colour is taken; what has no hatching is not tinted.
    """
    if mark.hatching:
        mixed = (1 - TINT) * picture[where] + TINT * np.array(mark.colour)
        picture[where] = np.rint(mixed).astype(np.uint8)
