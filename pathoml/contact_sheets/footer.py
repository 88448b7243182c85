"""What stands below the picture of a contact sheet: scale bar, sizes, and a legend with the count of each mark."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathoml.contact_sheets.fates import GridFates
from pathoml.contact_sheets.marks import FLAG_MARKS, MARKS, SWATCH_PX, TISSUE_LINE, Fate, Mark, swatch
from pathoml.slides import SlideGeometry
from pathoml.tiling import TileGrid
from pathoml.units import IntArray, RgbImage

_TEXT_PX, _LINE_PX, _LETTER_PX, _MARGIN_PX, _GAP_PX = 15, 24, 11, 10, 24
_BAR_SHARE = 0.25
_LEAST_CELL_PX = _LETTER_PX + 5
"""Side of a tile on the sheet from which a letter fits into it."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class ScaleBar(NamedTuple):
    """A length that a reader can hold against the picture.

    Parameters
    ----------
    length_um : float
        What it stands for.
    length_px : int
        How long it is drawn.
    """

    length_um: float
    length_px: int

    @classmethod
    def of(cls, geometry: SlideGeometry, picture_px: int) -> Self:
        """Return the bar of a picture: a round length, of a quarter of its width at most.

        Parameters
        ----------
        geometry : SlideGeometry
            Of the slide, with a usable resolution.
        picture_px : int
            Width of the picture, which spans the slide.

        Returns
        -------
        ScaleBar
            To be drawn below it.
        """
        um_per_px = geometry.width_px * geometry.checked_mpp("slide")[0] / picture_px
        length_um = nice_length(_BAR_SHARE * picture_px * um_per_px)
        return cls(length_um, round(length_um / um_per_px))

    @property
    def text(self) -> str:
        """Its length in words."""
        return f"{self.length_um / 1000:g} mm" if self.length_um >= 1000 else f"{self.length_um:g} microns"


class Entry(NamedTuple):
    """One line of a legend.

    Parameters
    ----------
    sample : ndarray of uint8, shape (rows, columns, 3)
        What it looks like.
    letter : str
        What is written into it; may be empty.
    text : str
        What it means, and how often it occurs.
    """

    sample: RgbImage
    letter: str
    text: str


def draw_footer(width: int, bar: ScaleBar, lines: Sequence[str], entries: Sequence[Entry]) -> RgbImage:
    """Draw scale bar, lines of text and legend.

    Parameters
    ----------
    width : int
        Of the sheet.
    bar : ScaleBar
        Comes first.
    lines : sequence of str
        Come next; cut where they are too long.
    entries : sequence of Entry
        In as many columns as there is room for.

    Returns
    -------
    ndarray of uint8, shape (rows, width, 3)
        Black on white.
    """
    side = max(round(font(_TEXT_PX).getlength(one.text)) for one in entries)
    column_px = entries[0].sample.shape[1] + 8 + side + _GAP_PX
    columns = max(1, (width - _MARGIN_PX + _GAP_PX) // column_px)
    entry_rows = -(-len(entries) // columns)
    top = _LINE_PX + 8
    image = Image.new("RGB", (width, top + _LINE_PX * (len(lines) + entry_rows) + _MARGIN_PX), "white")
    pen = ImageDraw.Draw(image)
    _draw_scale_bar(pen, bar)
    for number, line in enumerate(lines):
        pen.text((_MARGIN_PX, top + number * _LINE_PX), _shortened(line, width), fill="black", font=font(_TEXT_PX))
    for number, one in enumerate(entries):
        row, column = number % entry_rows, number // entry_rows
        x, y = _MARGIN_PX + column * column_px, top + (len(lines) + row) * _LINE_PX
        image.paste(Image.fromarray(one.sample), (x, y))
        _write_letter(pen, (x + 3, y + 3), one.letter)
        pen.text((x + one.sample.shape[1] + 8, y), one.text, fill="black", font=font(_TEXT_PX))
    return np.array(image)


def legend_of(fates: GridFates, *, lettered: bool, outlined: Sequence[Mark] = ()) -> list[Entry]:
    """Return a legend of every mark that occurs.

    Parameters
    ----------
    fates : GridFates
        Each tile counts in one fate, and if it was kept in each of its flags.
    lettered : bool
        Whether letters are written into the tiles.
    outlined : sequence of Mark, optional
        Artefacts around which there are lines, also where they are too small to mark a tile.

    Returns
    -------
    list of Entry
        Fates, whose counts add up to the grid, then flags of kept tiles, then the lines.
    """
    entries = []
    for fate, mark in MARKS.items():
        count = fates.count(fate)
        if count or fate == Fate.KEPT:
            text = f"{count:,} {'' if fate in (Fate.KEPT, Fate.NO_TISSUE) else 'dropped: '}{mark.text}"
            entries.append(_entry(mark, text, dropped=fate != Fate.KEPT, lettered=lettered))
    for flag, mark in FLAG_MARKS.items():
        count = fates.flagged(flag)
        if count:
            entries.append(_entry(mark, f"{count:,} of the kept: {mark.text}", dropped=False, lettered=lettered))
    entries.append(Entry(_line_sample(TISSUE_LINE), "", "line around tissue"))
    return entries + [Entry(_line_sample(mark.colour), "", f"line around {mark.text}") for mark in outlined]


def say_sizes(geometry: SlideGeometry, grid: TileGrid, title: str) -> list[str]:
    """Name a slide, its size, and that of its tiles.

    Parameters
    ----------
    geometry : SlideGeometry
        Of the slide.
    grid : TileGrid
        Its tiles.
    title : str
        Its name, as it may be shown.

    Returns
    -------
    list of str
        Lines.
    """
    mpp = geometry.checked_mpp(title)
    width_mm, height_mm = geometry.width_px * mpp[0] / 1000, geometry.height_px * mpp[1] / 1000
    resolution = f"{mpp[0]:.4g}" if abs(mpp[0] / mpp[1] - 1) < 1e-3 else f"{mpp[0]:.4g} x {mpp[1]:.4g}"
    side_um = grid.footprint_level0_px[0] * mpp[0]
    overlap = 1 - grid.stride_level0_px[0] / grid.footprint_level0_px[0]
    tiles = f"tiles: {grid.plan.tile_px} px at {max(grid.plan.mpp_read):.4g} microns per pixel = {side_um:.4g} microns"
    return [
        title,
        f"slide: {width_mm:.3g} x {height_mm:.3g} mm, {geometry.width_px:,} x {geometry.height_px:,} px at "
        f"{resolution} microns per pixel",
        f"{tiles}, overlapping by {overlap:.0%}: each place shows the nearest" if overlap > 1e-6 else tiles,
    ]


def say_sum(fates: GridFates, *, judged: bool) -> str:
    """Say how the tiles of a grid add up.

    Parameters
    ----------
    fates : GridFates
        What became of them.
    judged : bool
        Whether their focus is known.

    Returns
    -------
    str
        One line.
    """
    rows, columns = fates.fate.shape
    kept, bare = fates.count(Fate.KEPT), fates.count(Fate.NO_TISSUE)
    dropped = fates.fate.size - kept - bare
    told = (
        f"{rows:,} rows x {columns:,} columns = {fates.fate.size:,} tiles: {kept:,} kept + {dropped:,} dropped + "
        f"{bare:,} no tissue"
    )
    return told if judged else f"{told}; focus not judged"


def write_letters(sheet: RgbImage, fates: GridFates, cells: tuple[IntArray, IntArray]) -> None:
    """Write the letters of marks into the upper left corners of tiles.

    Parameters
    ----------
    sheet : ndarray of uint8, shape (rows, columns, 3)
        Changed.
    fates : GridFates
        What became of the tiles.
    cells : tuple of ndarray of int64
        Row of the grid of each row of pixels, and column of each column.
    """
    tops, lefts = (np.searchsorted(index, np.arange(index[-1] + 1)) for index in cells)
    image = Image.fromarray(sheet)
    pen = ImageDraw.Draw(image)
    shown = np.zeros(fates.fate.shape, dtype=bool)
    # A last row or column may be too narrow for a letter.
    high, wide = (
        np.diff(np.append(starts, len(index))) >= _LEAST_CELL_PX
        for starts, index in zip((tops, lefts), cells, strict=True)
    )
    shown[: len(tops), : len(lefts)] = high[:, None] & wide
    for row, column in np.argwhere(shown & ((fates.fate != Fate.KEPT) | (fates.flags > 0))).tolist():
        text = MARKS[Fate(int(fates.fate[row, column]))].letter or fates.letters(row, column)
        _write_letter(pen, (int(lefts[column]) + 2, int(tops[row]) + 2), text)
    sheet[...] = np.array(image)


@lru_cache(maxsize=4)
def font(size_px: int) -> Font:
    """Return the font that comes with Pillow, the same on every machine; it has no letters beyond the common ones.

    Parameters
    ----------
    size_px : int
        Height of a line of it.

    Returns
    -------
    Font
        To draw with.
    """
    return ImageFont.load_default(size_px)


def nice_length(at_most_um: float) -> float:
    """Return the largest length of the series 1, 2, 5, 10 that is not longer.

    Parameters
    ----------
    at_most_um : float
        Micrometres; above 0.

    Returns
    -------
    float
        Micrometres.

    Examples
    --------
    >>> nice_length(730.0)
    500.0
    """
    power = 10.0 ** np.floor(np.log10(at_most_um))
    return float(max(digit * power for digit in (1, 2, 5) if digit * power <= at_most_um * (1 + 1e-9)))


def _entry(mark: Mark, text: str, *, dropped: bool, lettered: bool) -> Entry:
    return Entry(swatch(mark, dropped=dropped), mark.letter if lettered else "", text)


def _line_sample(colour: tuple[int, int, int]) -> RgbImage:
    sample = np.full((SWATCH_PX[1], SWATCH_PX[0], 3), 255, dtype=np.uint8)
    sample[len(sample) // 2, 2:-2] = colour
    return sample


def _write_letter(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    """Write black on white, which can be read on any ground."""
    if text:
        left, top, right, bottom = pen.textbbox(corner, text, font=font(_LETTER_PX))
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill="white")
        pen.text(corner, text, fill="black", font=font(_LETTER_PX))


def _draw_scale_bar(pen: ImageDraw.ImageDraw, bar: ScaleBar) -> None:
    end = _MARGIN_PX + bar.length_px
    pen.rectangle((_MARGIN_PX, 14, end, 18), fill="black")
    for x in (_MARGIN_PX, end):
        pen.line((x, 10, x, 22), fill="black", width=2)
    pen.text((end + 10, 7), bar.text, fill="black", font=font(_TEXT_PX))


def _shortened(line: str, width: int) -> str:
    """Cut a line that is too long for the sheet; a file's name may be."""
    room = width - 2 * _MARGIN_PX
    if font(_TEXT_PX).getlength(line) <= room:
        return line
    while line and font(_TEXT_PX).getlength(line + "...") > room:
        line = line[:-1]
    return line + "..."
