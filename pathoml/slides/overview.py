"""The whole slide at low resolution, read in strips so that a slide without a pyramid fits in memory."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from pathoml.errors import DamagedSlideError
from pathoml.slides.base import Slide, SlideGeometry
from pathoml.units import BoolArray, RgbImage

logger = logging.getLogger(__name__)

_STRIP_PIXELS = 32_000_000
_MOST_FAILURES = 2_000
"""Stored tiles that may fail while a part is read around damage; a reader of some formats starts anew after each."""
_LEAST_REDUCED_PX = 64
"""Narrower pictures are not shrunk by the codec: it mixes what lies beyond the edge into the last pixel."""


Source = tuple[int, int]
"""Level, and the factor by which its codec shrinks."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in level-0 pixels."""


class Overview(NamedTuple):
    """A whole slide from afar.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (rows, columns, 3)
        RGB; white where nothing could be read.
    unread : ndarray of bool, shape (rows, columns)
        True where the stored data are damaged at every level that is fine enough.
    """

    pixels: RgbImage
    unread: BoolArray


def overview_of(slide: Slide, mpp: float) -> Overview:
    """Return the whole slide at about a resolution, by area averaging, and where it cannot be read.

    Where a level is damaged, the next finer one is read; only what no level gives is left white.

    Parameters
    ----------
    slide : Slide
        An open slide with a usable mpp.
    mpp : float
        Microns per pixel asked for.

    Returns
    -------
    Overview
        The picture covers the slide exactly: one of its pixels spans ``width_px / columns`` level-0 pixels.

    Raises
    ------
    MissingMppError, BadMppError
        If the slide's resolution is unknown.
    """
    geometry = slide.geometry
    mpp_x, mpp_y = geometry.checked_mpp(slide.path.name)
    columns = max(1, round(geometry.width_px * mpp_x / mpp))
    rows = max(1, round(geometry.height_px * mpp_y / mpp))
    return _shrunken(slide, (columns, rows))


def whole_slide_image(slide: Slide, mpp: float) -> RgbImage:
    """Return the picture of `overview_of`.

    Parameters
    ----------
    slide : Slide
        An open slide with a usable mpp.
    mpp : float
        Microns per pixel asked for.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        Covers the slide exactly.

    Raises
    ------
    MissingMppError, BadMppError
        If the slide's resolution is unknown.
    """
    return overview_of(slide, mpp).pixels


def shrunken_image(slide: Slide, size_px: tuple[int, int]) -> RgbImage:
    """Return the whole slide at a given size, by area averaging.

    Parameters
    ----------
    slide : Slide
        An open slide; its mpp need not be known.
    size_px : tuple of int
        (width, height) of the picture.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The picture covers the slide exactly.
    """
    return _shrunken(slide, size_px).pixels


def _shrunken(slide: Slide, size_px: tuple[int, int]) -> Overview:
    geometry = slide.geometry
    columns, rows = size_px
    level, reduction = coarsest_level(geometry, min(geometry.width_px / columns, geometry.height_px / rows))
    downsample = geometry.level_downsamples[level] * reduction
    row_height = geometry.height_px / rows
    strip_rows = max(1, int(_STRIP_PIXELS / (geometry.width_px / downsample) / (row_height / downsample)))
    seen = Overview(np.empty((rows, columns, 3), dtype=np.uint8), np.zeros((rows, columns), dtype=bool))
    for first in range(0, rows, strip_rows):
        last = min(rows, first + strip_rows)
        top, bottom = round(first * row_height), round(last * row_height)
        size = (max(1, round(geometry.width_px / downsample)), max(1, round((bottom - top) / downsample)))
        try:
            strip = slide.read_region((0, top), level, size, reduction=reduction).pixels
        except DamagedSlideError as error:
            logger.warning("reading around what is damaged: %s", error)
            box = (0.0, first * row_height, float(geometry.width_px), last * row_height)
            part = read_around_damage(slide, box, (columns, last - first))
            seen.pixels[first:last], seen.unread[first:last] = part
            continue
        seen.pixels[first:last] = cv2.resize(strip, (columns, last - first), interpolation=cv2.INTER_AREA)
    return seen


def read_around_damage(slide: Slide, box: Box, size_px: tuple[int, int]) -> Overview:
    """Return a part of a slide of which some stored data are damaged: from finer levels where coarser ones fail.

    Parameters
    ----------
    slide : Slide
        Open.
    box : tuple of float
        Left, top, right and bottom in level-0 pixels.
    size_px : tuple of int
        (width, height) of the picture.

    Returns
    -------
    Overview
        Of that part.

    Raises
    ------
    DamagedSlideError
        If so many stored tiles are damaged that trying them all would take minutes.
    """
    columns, rows = size_px
    seen = Overview(np.full((rows, columns, 3), 255, dtype=np.uint8), np.zeros((rows, columns), dtype=bool))
    wanted = min((box[2] - box[0]) / columns, (box[3] - box[1]) / rows)
    _AroundDamage(slide).fill(box, _sources(slide.geometry, wanted), seen)
    if seen.unread.any():
        logger.warning("%s: %s of a part cannot be read at any level", slide.path.name, f"{seen.unread.mean():.2%}")
    return seen


def _sources(geometry: SlideGeometry, wanted: float) -> list[Source]:
    """Return what to read, coarsest first."""
    coarsest = coarsest_level(geometry, wanted)
    finer = [
        level
        for level, downsample in enumerate(geometry.level_downsamples)
        if downsample < geometry.level_downsamples[coarsest[0]]
    ]
    finer.sort(key=lambda level: -geometry.level_downsamples[level])
    return [coarsest, *((level, _reduction(geometry, level, wanted)) for level in finer)]


class _AroundDamage:
    """Reads a slide stored tile by stored tile, each once, and where one is damaged from the next source."""

    def __init__(self, slide: Slide) -> None:
        self._slide, self._failures = slide, 0

    def fill(self, box: Box, sources: Sequence[Source], out: Overview) -> None:
        """Fill a picture of a box (left, top, right, bottom in level-0 pixels) from the first source that can be read."""
        level, reduction = sources[0]
        rows, columns = out.unread.shape
        downsample = self._slide.geometry.level_downsamples[level] * reduction
        left, top = round(box[0] / downsample), round(box[1] / downsample)
        width, height = max(1, round(box[2] / downsample) - left), max(1, round(box[3] / downsample) - top)
        if width * height > _STRIP_PIXELS and max(rows, columns) > 1:
            for part, inner in _quarters(box, rows, columns):
                self.fill(inner, sources, Overview(out.pixels[part], out.unread[part]))
            return
        near = Overview(np.empty((height, width, 3), dtype=np.uint8), np.zeros((height, width), dtype=bool))
        across, down = (max(1, pixels // reduction) for pixels in self._slide.stored_tile_px(level))
        for y, below in _steps(top, top + height, down):
            for x, beyond in _steps(left, left + width, across):
                part = np.s_[y - top : below - top, x - left : beyond - left]
                self._fill_stored_tile((x, y, beyond, below), sources, Overview(near.pixels[part], near.unread[part]))
        out.pixels[...] = cv2.resize(near.pixels, (columns, rows), interpolation=cv2.INTER_AREA)
        out.unread[...] = cv2.resize(near.unread.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > 0
        out.pixels[out.unread] = 255

    def _fill_stored_tile(self, sides: tuple[int, int, int, int], sources: Sequence[Source], out: Overview) -> None:
        """Fill the picture of one stored tile, whose sides are given in pixels of the first source."""
        (level, reduction), *finer = sources
        downsample = self._slide.geometry.level_downsamples[level] * reduction
        left, top, right, bottom = (side * downsample for side in sides)
        size = (sides[2] - sides[0], sides[3] - sides[1])
        try:
            region = self._slide.read_region((round(left), round(top)), level, size, reduction=reduction)
        except DamagedSlideError as error:
            self._note(error)
            if finer:
                self.fill((left, top, right, bottom), finer, out)
            else:
                out.unread[...] = True
        else:
            out.pixels[...] = region.pixels

    def _note(self, error: DamagedSlideError) -> None:
        self._failures += 1
        if self._failures > _MOST_FAILURES:
            message = f"{self._slide.path.name}: {_MOST_FAILURES} stored tiles of its overview and of finer levels cannot be read"
            raise DamagedSlideError(f"{message}, the last since: {error}") from error


def _steps(start: int, stop: int, side: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch where one stored tile ends and the next begins."""
    while start < stop:
        end = min(stop, (start // side + 1) * side)
        yield start, end
        start = end


def _quarters(box: Box, rows: int, columns: int) -> Iterator[tuple[tuple[slice, slice], Box]]:
    """Cut a picture of a box in two along each side that has two pixels, at a whole pixel."""
    left, top, right, bottom = box
    x, y = (right - left) / columns, (bottom - top) / rows
    for row, below in _halves(rows):
        for column, beyond in _halves(columns):
            inner = (left + column * x, top + row * y, left + beyond * x, top + below * y)
            yield (slice(row, below), slice(column, beyond)), inner


def _halves(length: int) -> list[tuple[int, int]]:
    return [(0, length)] if length < 2 else [(0, length // 2), (length // 2, length)]


def coarsest_level(geometry: SlideGeometry, wanted: float) -> tuple[int, int]:
    """Return the level, and the factor by which its codec shrinks, that give the coarsest pixels still fine enough.

    Parameters
    ----------
    geometry : SlideGeometry
        The slide's levels.
    wanted : float
        Level-0 pixels that a pixel may span; 1 % more is taken.

    Returns
    -------
    level : int
        0 where no level is fine enough.
    reduction : int
        1 where the codec does not shrink.
    """
    fine_enough = [level for level, value in enumerate(geometry.level_downsamples) if value <= wanted * 1.01]
    # The coarsest level first: shrinking while decoding still reads every compressed byte of the level.
    level = max(fine_enough, key=lambda index: geometry.level_downsamples[index]) if fine_enough else 0
    return level, _reduction(geometry, level, wanted)


def _reduction(geometry: SlideGeometry, level: int, wanted: float) -> int:
    """Return the largest factor by which a level's codec may shrink."""
    downsample = geometry.level_downsamples[level]
    side = min(geometry.width_px, geometry.height_px) / downsample
    return max(
        reduction
        for reduction in geometry.reductions
        if reduction == 1 or (downsample * reduction <= wanted * 1.01 and side >= _LEAST_REDUCED_PX * reduction)
    )
