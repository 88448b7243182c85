"""Slides through OpenSlide: every vendor it knows."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from pathoml.errors import DamagedSlideError, UnreadableSlideError
from pathoml.slides.base import LEAST_PART_PX, ReadPlan, Region, Slide, SlideGeometry, TileReader, corners
from pathoml.slides.region_reader import RegionTileReader
from pathoml.units import BoolArray, RgbImage

logger = logging.getLogger(__name__)

_WHITE = (255, 255, 255)
_LARGEST_PART_PX = 1_024


_ROUNDED_PX, _MOST_STRETCHED = 2, 0.01
"""Pixels by which writers round the sides of a level, and by how much else one may be longer than the other."""


class OpenSlideSlide(Slide):
    """A slide read by OpenSlide.

    Parameters
    ----------
    path : Path
        The slide's file.
    mpp : float, optional
        Microns per level-0 pixel that override the metadata.

    Raises
    ------
    UnreadableSlideError
        If OpenSlide cannot open it; `pathoml.slides.triage` finds out why.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        super().__init__(path)
        self._handle = _open_handle(path)
        properties = self._handle.properties
        width, height = self._handle.dimensions
        levels = _levels_of_one_shape(self._handle.level_dimensions, path.name)
        self._geometry = SlideGeometry(
            width_px=width,
            height_px=height,
            level_downsamples=tuple(float(value) for value in self._handle.level_downsamples[:levels]),
            mpp=(mpp, mpp) if mpp is not None else _metadata_mpp(properties),
        )
        self._level_sizes = tuple(self._handle.level_dimensions[:levels])
        self._stored_tiles = tuple(_stored_tile(properties, level) for level in range(levels))
        self._background = _background(properties)
        self._metadata = {
            "vendor": properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            "objective_power": _number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
            "codec": "unknown",
            "tier": "openslide",
        }

    @property
    def geometry(self) -> SlideGeometry:
        """Size, levels and resolution."""
        return self._geometry

    @property
    def metadata(self) -> dict[str, str]:
        """Vendor, objective power, and that OpenSlide reads it."""
        return dict(self._metadata)

    @property
    def background(self) -> tuple[int, int, int]:
        """RGB of what was never scanned."""
        return self._background

    @property
    def level_sizes_px(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level."""
        return self._level_sizes

    def read_region(
        self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
    ) -> Region:
        """Read a rectangle; see `Slide.read_region`.

        Parameters
        ----------
        xy_level0_px : tuple of int
            Top-left corner in level-0 pixels.
        level : int
            Pyramid level.
        size_px : tuple of int
            (width, height) at that level.
        reduction : int, optional
            1: OpenSlide does not shrink while it decodes.

        Returns
        -------
        Region
            Its pixels.

        Raises
        ------
        DamagedSlideError
            If the data cannot be decoded.
        """
        if reduction != 1:
            raise ValueError(f"OpenSlide decodes whole pixels; a reduction of {reduction} was asked for")
        try:
            image = self._handle.read_region(xy_level0_px, level, size_px)
        except openslide.OpenSlideError as error:
            # One bad tile makes an OpenSlide handle refuse every later read: start with a fresh one.
            self._handle.close()
            self._handle = _open_handle(self.path)
            raise DamagedSlideError(f"{self.path.name}: tile at {xy_level0_px}, level {level}: {error}") from error
        return _composite(np.asarray(image), self._background)

    def stored_tile_px(self, level: int) -> tuple[int, int]:
        """Return what OpenSlide says of the tiles of a level, made small enough to be read and large enough to be worth it.

        Parameters
        ----------
        level : int
            Pyramid level.

        Returns
        -------
        tuple of int
            Width and height.
        """
        return self._stored_tiles[level]

    def tile_reader(
        self, coords: NDArray[np.int32] | Sequence[Sequence[int]], plan: ReadPlan, *, threads: int = 1
    ) -> TileReader:
        """Prepare to read tiles, one region each; see `Slide.tile_reader`.

        Parameters
        ----------
        coords : array-like of int, shape (tiles, 2)
            Top-left corners in level-0 pixels.
        plan : ReadPlan
            How each is read.
        threads : int, optional
            Not used: a handle that has to be reopened after a damaged tile cannot be shared.

        Returns
        -------
        TileReader
            For these tiles.
        """
        return RegionTileReader(self.read_region, self._geometry, corners(coords), plan)

    def close(self) -> None:
        """Release the file."""
        self._handle.close()


def _levels_of_one_shape(sizes_px: Sequence[tuple[int, int]], name: str) -> int:
    """Return how many levels, finest first, have the shape of the first but for rounding; another shows something else."""
    width, height = sizes_px[0]
    for level, (columns, rows) in enumerate(sizes_px):
        across, down = width / columns, height / rows
        rounding = across * _ROUNDED_PX / columns + down * _ROUNDED_PX / rows
        if abs(across - down) > rounding + _MOST_STRETCHED * across:
            logger.warning(
                "%s: level %d of %d x %d px has another shape than the slide of %d x %d px; it and those after it are not used",
                name, level, columns, rows, width, height,
            )  # fmt: skip
            return level
    return len(sizes_px)


def _open_handle(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise UnreadableSlideError(
            f"{path.name}: OpenSlide cannot open it ({error}); is it a whole slide, copied completely?"
        ) from error


def _metadata_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    values = tuple(_finite(properties.get(name)) for name in names)
    x, y = values
    return None if x is None or y is None else (x, y)


def _stored_tile(properties: Mapping[str, str], level: int) -> tuple[int, int]:
    width, height = (
        int(_finite(properties.get(f"openslide.level[{level}].tile-{side}")) or LEAST_PART_PX)
        for side in ("width", "height")
    )
    return _part_of_whole_tiles(width), _part_of_whole_tiles(height)


def _part_of_whole_tiles(side: int) -> int:
    return min(_LARGEST_PART_PX, -(-LEAST_PART_PX // max(1, side)) * max(1, side))


def _number(text: str | None) -> str:
    """Return a property only if it is a number: vendors write free text where numbers belong."""
    value = _finite(text)
    return "unknown" if value is None else f"{value:g}"


def _finite(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _background(properties: Mapping[str, str]) -> tuple[int, int, int]:
    text = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)
    if text is None or len(text) != 6:
        return _WHITE
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def _composite(rgba: RgbImage, background: tuple[int, int, int]) -> Region:
    """Lay the pixels on the slide's background; OpenSlide's own RGB conversion would make absent ones black."""
    alpha = rgba[..., 3]
    rgb = np.ascontiguousarray(rgba[..., :3])
    if alpha.min() == 255:
        return Region(rgb, None)
    # At deeper levels some vendors' edges are covered in part: OpenSlide gives their own colour and how much of it is there.
    part = (alpha > 0) & (alpha < 255)
    cover = alpha[part, None] / 255
    rgb[part] = np.rint(rgb[part] * cover + np.array(background) * (1 - cover)).astype(np.uint8)
    present: BoolArray = alpha > 0
    rgb[~present] = background
    return Region(rgb, present)
