"""The picture of a slide with the outline of its tissue and the fate of every tile."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.contact_sheets.fates import GridFates, fates_of
from pathoml.contact_sheets.footer import ScaleBar, draw_footer, legend_of, say_sizes, say_sum, write_letters
from pathoml.contact_sheets.marks import FLAG_MARKS, MARKS, TISSUE_LINE, Fate, hatched, tint
from pathoml.files import atomic_path, make_folder
from pathoml.slides import Slide, SlideGeometry, whole_slide_image
from pathoml.tiles import LaidTiles, ReadTiles
from pathoml.tiling import TileGrid
from pathoml.tissue import TissueMask
from pathoml.units import BoolArray, IntArray, RgbImage

LONGEST_PX = 1100
_LEAST_WIDTH_PX = 700
"""Narrower pictures get white beside them, so that the legend can be read."""
_FRAMED_FROM_PX, _LETTERED_FROM_PX = 10, 26
"""Tiles that are smaller on the sheet are framed together with neighbours of the same fate: lines would hide the tissue."""
_FINE_ENOUGH = 1.02


def draw_contact_sheet(slide: Slide, laid: LaidTiles, title: str, *, read: ReadTiles | None = None) -> RgbImage:
    """Draw a slide with its tissue's outline and every tile of its grid, marked by what became of it.

    Parameters
    ----------
    slide : Slide
        Open: a small one is drawn from finer pixels than those of the mask, never from enlarged ones.
    laid : LaidTiles
        What was seen of it.
    title : str
        Name of the slide, as it may be shown.
    read : ReadTiles, optional
        What its tiles proved to be as they were read; before that all of the grid are shown as kept, focus unjudged.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        Picture above; scale, sizes and legend, whose counts add up to the grid, below.
    """
    sheet = _sheet_picture(slide, laid.picture)
    fates = fates_of(laid.grid, read)
    cells = _cells(laid.grid, slide.geometry, sheet)
    _mark_tiles(sheet, fates, cells)
    _outline_artefacts(sheet, laid.mask)
    _outline(sheet, laid.mask.tissue, TISSUE_LINE)
    lettered = min(laid.grid.stride_level0_px) * sheet.shape[1] / slide.geometry.width_px >= _LETTERED_FROM_PX
    if lettered:
        write_letters(sheet, fates, cells)
    width = max(sheet.shape[1], _LEAST_WIDTH_PX)
    beside = ((0, 0), (0, width - sheet.shape[1]), (0, 0))
    lines = [*say_sizes(slide.geometry, laid.grid, title), say_sum(fates, judged=read is not None)]
    outlined = [mark for flag, mark in FLAG_MARKS.items() if laid.mask.of(flag).any()]
    legend = legend_of(fates, lettered=lettered, outlined=outlined)
    footer = draw_footer(width, ScaleBar.of(slide.geometry, sheet.shape[1]), lines, legend)
    return np.vstack([np.pad(sheet, beside, constant_values=255), footer])


def sheet_path(bags: Path, slide_id: str) -> Path:
    """Return where a slide's contact sheet lies.

    Parameters
    ----------
    bags : Path
        Folder of the bags.
    slide_id : str
        The slide.

    Returns
    -------
    Path
        PNG file in the folder ``contact_sheets`` beside the bags.
    """
    return bags / "contact_sheets" / f"{slide_id}.png"


def write_contact_sheet(path: Path, sheet: RgbImage) -> None:
    """Write a sheet, whole or not at all; its folder is made if need be.

    Parameters
    ----------
    path : Path
        PNG file.
    sheet : ndarray of uint8, shape (rows, columns, 3)
        From `draw_contact_sheet`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        _, coded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        temporary.write_bytes(coded.tobytes())


def _sheet_picture(slide: Slide, seen: RgbImage) -> RgbImage:
    """Return the slide at the sheet's size: never enlarged, and from the slide's own pixels where the mask's are too few."""
    geometry = slide.geometry
    mpp = geometry.checked_mpp(slide.path.name)
    longest_um = max(geometry.width_px * mpp[0], geometry.height_px * mpp[1])
    wanted = max(longest_um / LONGEST_PX, *mpp)
    if longest_um / max(seen.shape[:2]) > _FINE_ENOUGH * wanted:
        return whole_slide_image(slide, wanted)
    factor = min(1.0, LONGEST_PX / max(seen.shape[:2]))
    size = (max(1, round(seen.shape[1] * factor)), max(1, round(seen.shape[0] * factor)))
    return np.array(cv2.resize(seen, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


Cells = tuple[IntArray, IntArray]
"""Row of the grid of each row of a sheet's pixels, and column of each column."""


def _cells(grid: TileGrid, geometry: SlideGeometry, sheet: RgbImage) -> Cells:
    """Give each pixel to one tile: where tiles overlap, to the one whose middle is nearest."""
    sides = ((0, geometry.height_px, 1), (1, geometry.width_px, 0))
    rows, columns = (
        _nearest(sheet.shape[axis], extent, grid.stride_level0_px[way], grid.footprint_level0_px[way], grid.shape[axis])
        for axis, extent, way in sides
    )
    return rows, columns


def _nearest(pixels: int, extent: int, stride: float, footprint: float, count: int) -> IntArray:
    middles = (np.arange(pixels) + 0.5) * extent / pixels
    return np.clip(np.floor((middles - (footprint - stride) / 2) / stride), 0, count - 1).astype(np.int64)


def _mark_tiles(sheet: RgbImage, fates: GridFates, cells: Cells) -> None:
    rows, columns = cells
    fate, flags = fates.fate[np.ix_(rows, columns)], fates.flags[np.ix_(rows, columns)]
    height, width = fate.shape
    for one, mark in MARKS.items():
        where = fate == one
        if not where.any():
            continue
        tint(sheet, where, mark)
        sheet[where & hatched(mark, height, width)] = mark.colour
    left = flags > 0
    for flag, mark in FLAG_MARKS.items():
        where = left & ((flags & flag) > 0)
        if not where.any():
            continue
        sheet[where & hatched(mark, height, width)] = mark.colour
        left &= ~where
    for one, frame in _frames(fate, cells):
        sheet[frame] = MARKS[one].colour


def _frames(fate: NDArray[np.uint8], cells: Cells) -> list[tuple[Fate, BoolArray]]:
    """Return the frames of tiles, or of neighbours of one fate where tiles are small; those of kept tiles last."""
    rows, columns = cells
    side = min(fate.shape[0] / (rows[-1] + 1), fate.shape[1] / (columns[-1] + 1))
    if side >= _FRAMED_FROM_PX:
        edge = _edges(rows)[:, None] | _edges(columns)[None, :]
        order = (Fate.NO_TISSUE, *(one for one in MARKS if one not in (Fate.NO_TISSUE, Fate.KEPT)), Fate.KEPT)
        return [(one, edge & (fate == one)) for one in order]
    edge = _changes(fate, 0) | _changes(fate, 1)
    return [(one, edge & (fate == one)) for one in MARKS if one != Fate.NO_TISSUE]


def _edges(index: IntArray) -> BoolArray:
    """Say which pixels are the first or the last of their tile along one side."""
    change = index[1:] != index[:-1]
    return np.asarray(np.concatenate([[True], change]) | np.concatenate([change, [True]]))


def _changes(kind: NDArray[np.uint8], axis: int) -> BoolArray:
    """Say which pixels have a neighbour of another kind along an axis; each side of a border is one pixel wide."""
    after, before = (np.s_[1:], np.s_[:-1]) if axis == 0 else (np.s_[:, 1:], np.s_[:, :-1])
    change = kind[after] != kind[before]
    none = np.zeros_like(np.take(kind, [0], axis=axis), dtype=bool)
    return np.asarray(np.concatenate([none, change], axis=axis) | np.concatenate([change, none], axis=axis))


def _outline_artefacts(sheet: RgbImage, mask: TissueMask) -> None:
    for flag, mark in FLAG_MARKS.items():
        where = mask.of(flag)
        if where.any():
            _outline(sheet, where, (255, 255, 255), width_px=3)  # light around the line: it runs through dark tissue
            _outline(sheet, where, mark.colour)


def _outline(sheet: RgbImage, mask: BoolArray, colour: tuple[int, int, int], *, width_px: int = 1) -> None:
    size = (sheet.shape[1], sheet.shape[0])
    method = cv2.INTER_AREA if mask.shape[0] > size[1] else cv2.INTER_LINEAR
    fitted = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=method) > 127
    contours, _ = cv2.findContours(fitted.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(sheet, contours, -1, colour, width_px)
