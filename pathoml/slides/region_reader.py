"""Tiles of a grid by one `read_region` each: for every format that has no faster way."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pathoml.errors import DamagedSlideError
from pathoml.slides.base import ReadPlan, Region, SlideGeometry, TileReader, TileState
from pathoml.slides.resample import resample
from pathoml.units import IntArray, RgbImage

logger = logging.getLogger(__name__)


class RegionTileReader(TileReader):
    """Reads tiles one by one.

    Parameters
    ----------
    read_region : callable
        `Slide.read_region` of an open slide.
    geometry : SlideGeometry
        Of the slide.
    coords : ndarray of int32, shape (tiles, 2)
        Top-left corners (x, y) in level-0 pixels.
    plan : ReadPlan
        How each tile is read.
    """

    def __init__(
        self, read_region: Callable[[tuple[int, int], int, tuple[int, int]], Region], geometry: SlideGeometry,
        coords: IntArray, plan: ReadPlan,
    ) -> None:  # fmt: skip
        if plan.reduction != 1:
            raise ValueError(f"this slide is decoded whole; a reduction of {plan.reduction} was asked for")
        self._read_region, self._geometry, self._coords, self._plan = read_region, geometry, coords, plan

    def _read(self, start: int, stop: int, out: RgbImage) -> NDArray[np.uint8]:
        states = np.zeros(stop - start, dtype=np.uint8)
        for place, (x, y) in enumerate(self._coords[start:stop].tolist()):
            try:
                region = self._read_region((x, y), self._plan.level, self._plan.read_px)
            except DamagedSlideError as error:
                logger.warning("tile left out: %s", error)
                states[place] = TileState.LOST
                continue
            if self._is_part_absent(region, x, y):
                states[place] = TileState.ABSENT_PART
            resample(region.pixels, self._plan, out[place])
        return states

    def _is_part_absent(self, region: Region, x: int, y: int) -> bool:
        """Say whether pixels are missing on the slide itself; those beyond its edge are known from the grid."""
        if region.present is None:
            return False
        downsample = self._geometry.level_downsamples[self._plan.level]
        # One pixel of grace: the size of a level is rounded.
        right = int((self._geometry.width_px - x) / downsample) - 1
        bottom = int((self._geometry.height_px - y) / downsample) - 1
        left, top = max(0, -int(x / downsample)), max(0, -int(y / downsample))
        return not region.present[top : max(0, bottom), left : max(0, right)].all()
