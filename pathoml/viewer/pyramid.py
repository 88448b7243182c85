"""Tiles of a deep zoom: every step halves the picture, down to one tile that shows the whole slide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pathoml.slides import Slide, SlideGeometry, coarsest_level
from pathoml.units import RgbImage

TILE_PX = 256
DIRECT_PX = 1 << 22
"""Stored pixels that are decoded for one tile without a second thought: 2048 x 2048."""
MOST_PX = 1 << 26
"""Stored pixels beyond which a tile is refused until there is an overview."""
_WHITE = 255


@dataclass(frozen=True)
class ZoomSteps:
    """The steps from the whole slide in one tile (0) to its stored pixels (`deepest`).

    Parameters
    ----------
    width_px, height_px : int
        Extent of level 0.
    """

    width_px: int
    height_px: int

    @property
    def deepest(self) -> int:
        """The step at which a pixel on the screen is a pixel of level 0."""
        return max(0, math.ceil(math.log2(max(self.width_px, self.height_px) / TILE_PX)))

    def downsample(self, zoom: int) -> int:
        """Return how many level-0 pixels a pixel spans.

        Parameters
        ----------
        zoom : int
            The step.

        Returns
        -------
        int
            A power of 2.
        """
        return int(2 ** (self.deepest - zoom))

    def holds(self, zoom: int, column: int, row: int) -> bool:
        """Tell whether there is such a tile.

        Parameters
        ----------
        zoom, column, row : int
            As a client gives them.

        Returns
        -------
        bool
            False beyond the slide or its steps.
        """
        if not 0 <= zoom <= self.deepest:
            return False
        side = TILE_PX * self.downsample(zoom)
        return 0 <= column * side < self.width_px and 0 <= row * side < self.height_px


@dataclass(frozen=True)
class Rectangle:
    """A part of a slide and the size of its picture.

    Parameters
    ----------
    left, top, width, height : int
        In level-0 pixels.
    columns, rows : int
        Of the picture.
    """

    left: int
    top: int
    width: int
    height: int
    columns: int
    rows: int

    @property
    def downsample(self) -> float:
        """Level-0 pixels that a pixel of the picture spans."""
        return min(self.width / self.columns, self.height / self.rows)


@dataclass(frozen=True)
class OverviewLevel:
    """A reduced picture of a whole slide that stores none.

    Parameters
    ----------
    downsample : float
        Level-0 pixels that one of its pixels spans.
    pixels : ndarray of uint8, shape (rows, columns, 3)
        Mapped from a file.
    """

    downsample: float
    pixels: RgbImage


class NoOverviewError(Exception):
    """The slide stores no level coarse enough, and its overview is not there yet."""


def tile_rectangle(steps: ZoomSteps, zoom: int, column: int, row: int) -> Rectangle:
    """Return which part of the slide a tile shows, cut at the slide's edge.

    Parameters
    ----------
    steps : ZoomSteps
        Of the slide.
    zoom, column, row : int
        A tile that `ZoomSteps.holds`.

    Returns
    -------
    Rectangle
        At most 256 pixels a side.
    """
    downsample = steps.downsample(zoom)
    left, top = column * TILE_PX * downsample, row * TILE_PX * downsample
    width = min(TILE_PX * downsample, steps.width_px - left)
    height = min(TILE_PX * downsample, steps.height_px - top)
    return Rectangle(
        left, top, width, height, max(1, round(width / downsample)), max(1, round(height / downsample))
    )  # fmt: skip


def render(slide: Slide, rectangle: Rectangle, overview: Sequence[OverviewLevel] = ()) -> RgbImage:
    """Return a part of a slide as a picture.

    Parameters
    ----------
    slide : Slide
        An open slide.
    rectangle : Rectangle
        Which part, and how large.
    overview : sequence of OverviewLevel, optional
        Finest first; used where the slide itself would have to decode too much.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        By area averaging.

    Raises
    ------
    NoOverviewError
        If too much would have to be decoded and no overview is given.
    DamagedSlideError
        If stored data cannot be decoded.
    """
    geometry = slide.geometry
    level, reduction = coarsest_level(geometry, rectangle.downsample)
    stored = geometry.level_downsamples[level]
    decoded_px = rectangle.width * rectangle.height / stored**2
    fitting = [one for one in overview if one.downsample <= rectangle.downsample * 1.01]
    if decoded_px > DIRECT_PX and fitting:
        return _from_overview(geometry, rectangle, fitting[-1])
    if decoded_px > MOST_PX:
        raise NoOverviewError
    downsample = stored * reduction
    size = (max(1, round(rectangle.width / downsample)), max(1, round(rectangle.height / downsample)))
    pixels = slide.read_region((rectangle.left, rectangle.top), level, size, reduction=reduction).pixels
    return _resized(pixels, rectangle)


def needs_overview(geometry: SlideGeometry) -> bool:
    """Tell whether a slide stores no level that is small enough to be seen as a whole.

    Parameters
    ----------
    geometry : SlideGeometry
        Of the slide.

    Returns
    -------
    bool
        True if its coarsest level has more than four times the pixels that are decoded without a second thought.
    """
    return geometry.width_px * geometry.height_px / max(geometry.level_downsamples) ** 2 > 4 * DIRECT_PX


def padded(pixels: RgbImage) -> RgbImage:
    """Complete a tile at the slide's edge with white.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (at most 256, at most 256, 3)
        The tile.

    Returns
    -------
    ndarray of uint8, shape (256, 256, 3)
        The tile at the top left.
    """
    if pixels.shape[:2] == (TILE_PX, TILE_PX):
        return pixels
    whole = np.full((TILE_PX, TILE_PX, 3), _WHITE, dtype=np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    return whole


def _from_overview(geometry: SlideGeometry, rectangle: Rectangle, level: OverviewLevel) -> RgbImage:
    rows, columns = level.pixels.shape[:2]
    scale_x, scale_y = columns / geometry.width_px, rows / geometry.height_px
    left, top = int(rectangle.left * scale_x), int(rectangle.top * scale_y)
    right = max(left + 1, round((rectangle.left + rectangle.width) * scale_x))
    bottom = max(top + 1, round((rectangle.top + rectangle.height) * scale_y))
    return _resized(np.ascontiguousarray(level.pixels[top:bottom, left:right]), rectangle)


def _resized(pixels: RgbImage, rectangle: Rectangle) -> RgbImage:
    size = (rectangle.columns, rectangle.rows)
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    shrinks = pixels.shape[1] >= size[0]
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)
