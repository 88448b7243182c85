"""The whole slide at low resolution, read in strips so that a slide without a pyramid fits in memory."""

import logging

import cv2
import numpy as np

from pathoml.errors import DamagedSlideError
from pathoml.slides.base import Slide, SlideGeometry
from pathoml.units import RgbImage

logger = logging.getLogger(__name__)

_STRIP_PIXELS = 32_000_000
_PIECE_PX = 256
_LEAST_REDUCED_PX = 64
"""Narrower pictures are not shrunk by the codec: it mixes what lies beyond the edge into the last pixel."""


def whole_slide_image(slide: Slide, mpp: float) -> RgbImage:
    """Return the whole slide at about a resolution, by area averaging.

    Parameters
    ----------
    slide : Slide
        An open slide with a usable mpp.
    mpp : float
        Microns per pixel asked for.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
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
    return shrunken_image(slide, (columns, rows))


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
    geometry = slide.geometry
    columns, rows = size_px
    level, reduction = coarsest_level(geometry, min(geometry.width_px / columns, geometry.height_px / rows))
    downsample = geometry.level_downsamples[level] * reduction
    row_height = geometry.height_px / rows
    strip_rows = max(1, int(_STRIP_PIXELS / (geometry.width_px / downsample) / (row_height / downsample)))
    picture = np.empty((rows, columns, 3), dtype=np.uint8)
    for first in range(0, rows, strip_rows):
        last = min(rows, first + strip_rows)
        top, bottom = round(first * row_height), round(last * row_height)
        size = (max(1, round(geometry.width_px / downsample)), max(1, round((bottom - top) / downsample)))
        strip = _read_strip(slide, top, level, reduction, size)
        picture[first:last] = cv2.resize(strip, (columns, last - first), interpolation=cv2.INTER_AREA)
    return picture


def _read_strip(slide: Slide, top: int, level: int, reduction: int, size: tuple[int, int]) -> RgbImage:
    """Read a strip; where it is damaged, read it in pieces and leave those that cannot be read white."""
    try:
        return slide.read_region((0, top), level, size, reduction=reduction).pixels
    except DamagedSlideError as error:
        logger.warning("reading the overview in pieces: %s", error)
    downsample = slide.geometry.level_downsamples[level] * reduction
    strip = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
    for y in range(0, size[1], _PIECE_PX):
        for x in range(0, size[0], _PIECE_PX):
            width, height = min(_PIECE_PX, size[0] - x), min(_PIECE_PX, size[1] - y)
            corner = (round(x * downsample), top + round(y * downsample))
            try:
                piece = slide.read_region(corner, level, (width, height), reduction=reduction)
                strip[y : y + height, x : x + width] = piece.pixels
            except DamagedSlideError as error:
                logger.warning("left white in the overview: %s", error)
    return strip


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
    downsample = geometry.level_downsamples[level]
    side = min(geometry.width_px, geometry.height_px) / downsample
    allowed = [
        reduction
        for reduction in geometry.reductions
        if reduction == 1 or (downsample * reduction <= wanted * 1.01 and side >= _LEAST_REDUCED_PX * reduction)
    ]
    return level, max(allowed)
