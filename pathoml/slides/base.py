"""What every slide backend offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pathoml.errors import BadMppError, MissingMppError
from pathoml.units import BoolArray, IntArray, RgbImage

MPP_RANGE = (0.05, 10.0)
"""Plausible microns per pixel of level 0; outside, the metadata are wrong or the image is no slide."""
LEAST_PART_PX = 128
"""Side of the least part of a slide that is tried by itself around damage."""
_OVERVIEW_MPP = 100.0
"""Coarser than any overview that scanners write: the metadata are wrong."""


@dataclass(frozen=True)
class SlideGeometry:
    """Size and resolution of a slide: all that tiling needs to know of it.

    Parameters
    ----------
    width_px, height_px : int
        Extent of level 0.
    level_downsamples : tuple of float
        Downsample of each level against level 0, finest first; the first is 1.
    mpp : tuple of float, or None
        Microns per level-0 pixel in x and y, as the metadata or the manifest say; not yet judged.
    reductions : tuple of int
        By which whole factors the codec can shrink while it decodes; 1 is plain decoding.
    native_tile_px : tuple of int, or None
        (width, height) of the compressed tiles of level 0, where the file's layout is known.
    """

    width_px: int
    height_px: int
    level_downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None
    reductions: tuple[int, ...] = (1,)
    native_tile_px: tuple[int, int] | None = None

    def checked_mpp(self, slide_name: str) -> tuple[float, float]:
        """Return the resolution, or say that it cannot be used.

        Parameters
        ----------
        slide_name : str
            For the message.

        Returns
        -------
        tuple of float
            Microns per level-0 pixel in x and y.

        Raises
        ------
        MissingMppError
            If nobody says it.
        BadMppError
            If it is outside 0.05-10.
        """
        remedy = (
            "give the right value in the manifest's column mpp, or on the command line (pathoml slide --slide-mpp, "
            "scripts/extract_archive.py --mpp)"
        )
        if self.mpp is None:
            raise MissingMppError(f"{slide_name}: no microns-per-pixel in the metadata; {remedy}")
        low, high = MPP_RANGE
        if not all(low <= value <= high for value in self.mpp):
            found = f"{slide_name}: microns-per-pixel {' x '.join(f'{value:.4g}' for value in self.mpp)}"
            if high < min(self.mpp) < _OVERVIEW_MPP:
                what = "if it is right, this is an overview without cells and cannot be used; if not"
                raise BadMppError(f"{found} is coarser than {high}; {what}, {remedy}")
            raise BadMppError(f"{found} outside {low}-{high}; {remedy}")
        return self.mpp


@dataclass(frozen=True)
class ReadPlan:
    """How to read one tile of a grid, the same for all.

    Parameters
    ----------
    level : int
        Pyramid level to read.
    read_px : tuple of int
        (width, height) of the rectangle read, in pixels of that level after `reduction`.
    tile_px : int
        Side of the finished tile.
    mpp_read : tuple of float
        Microns per pixel of the finished tile in x and y.
    scale : tuple of float
        Pixels of the finished tile per pixel read, in x and y; (1, 1) takes the pixels as they are.
    reduction : int
        Factor by which the codec shrinks while it decodes (1, 2, 4 or 8).
    """

    level: int
    read_px: tuple[int, int]
    tile_px: int
    mpp_read: tuple[float, float]
    scale: tuple[float, float] = (1.0, 1.0)
    reduction: int = 1

    @property
    def resized(self) -> bool:
        """Whether the rectangle read has to be resized to the tile."""
        return self.scale != (1.0, 1.0)

    def footprint_level0_px(self, geometry: SlideGeometry) -> tuple[float, float]:
        """Return what a tile covers of the slide.

        Parameters
        ----------
        geometry : SlideGeometry
            Of the slide that the plan was made for.

        Returns
        -------
        tuple of float
            Width and height in level-0 pixels, exact where those read are rounded.
        """
        lattice = geometry.level_downsamples[self.level] * self.reduction
        return self.tile_px / self.scale[0] * lattice, self.tile_px / self.scale[1] * lattice


class Region(NamedTuple):
    """A rectangle of pixels read from a slide.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        RGB, absent parts filled with the slide's background colour.
    present : ndarray of bool, shape (height, width), or None
        False where the slide holds no pixel (outside its bounds, or never scanned); None where all are present.
    """

    pixels: RgbImage
    present: BoolArray | None


class TileState(IntEnum):
    """What became of a tile that was read."""

    WHOLE = 0
    ABSENT_PART = 1
    """Part of it was never scanned and holds the background colour."""
    LOST = 2
    """Its data are damaged; its pixels must not be used."""


class TileReader(ABC):
    """Reads the tiles of one slide in the order of their rows. Close the slide, not the reader."""

    def read(self, start: int, stop: int, out: RgbImage) -> NDArray[np.uint8]:
        """Read the next tiles.

        Parameters
        ----------
        start, stop : int
            Rows ``start`` to ``stop - 1`` of the coordinates that the reader was made for; every row once.
        out : ndarray of uint8, shape (at least stop - start, tile_px, tile_px, 3)
            Receives the pixels; beyond the slide's edge its background colour.

        Returns
        -------
        ndarray of uint8, shape (stop - start,)
            `TileState` of each.

        Raises
        ------
        ValueError
            If the pixels cannot be put there.
        """
        if out.dtype != np.uint8 or out.ndim != 4 or out.shape[-1] != 3 or not out.flags.c_contiguous:
            raise ValueError(f"tiles are read into a C-contiguous uint8 array, not {out.dtype} of shape {out.shape}")
        if len(out) < stop - start:
            raise ValueError(f"{stop - start} tiles are asked for, and there is room for {len(out)}")
        return self._read(start, stop, out)

    @abstractmethod
    def _read(self, start: int, stop: int, out: RgbImage) -> NDArray[np.uint8]:
        """Read the next tiles into memory that is fit for them; see `read`."""


class Slide(ABC):
    """An open slide. Use it in a ``with`` block; it is not shared between processes.

    Parameters
    ----------
    path : Path
        The slide's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def geometry(self) -> SlideGeometry:
        """Size, levels and resolution."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """The allow-listed metadata: vendor, objective power, codec and tier; nothing that could name a person."""

    @abstractmethod
    def read_region(
        self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
    ) -> Region:
        """Read a rectangle.

        Parameters
        ----------
        xy_level0_px : tuple of int
            Top-left corner in level-0 pixels; may lie outside the slide.
        level : int
            Pyramid level to read from.
        size_px : tuple of int
            (width, height) in pixels of that level after `reduction`.
        reduction : int, optional
            One of ``geometry.reductions``: shrink by this factor while decoding.

        Returns
        -------
        Region
            Its pixels.

        Raises
        ------
        DamagedSlideError
            If the stored data cannot be decoded. The slide stays usable for other regions.
        """

    def stored_tile_px(self, level: int) -> tuple[int, int]:
        """Return the least part of a level that damage takes away.

        Parameters
        ----------
        level : int
            Pyramid level.

        Returns
        -------
        tuple of int
            Width and height in that level's pixels of a stored tile, or of several where they are small; without knowledge
            of the file's layout a size that suits.
        """
        del level
        return LEAST_PART_PX, LEAST_PART_PX

    @abstractmethod
    def tile_reader(
        self, coords: NDArray[np.int32] | Sequence[Sequence[int]], plan: ReadPlan, *, threads: int = 1
    ) -> TileReader:
        """Prepare to read many tiles.

        Parameters
        ----------
        coords : array-like of int, shape (tiles, 2)
            Top-left corners (x, y) in level-0 pixels, in the order in which they will be read.
        plan : ReadPlan
            How each is read.
        threads : int, optional
            Threads that decode, where the format allows several.

        Returns
        -------
        TileReader
            For these tiles.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def corners(coords: NDArray[np.int32] | Sequence[Sequence[int]]) -> IntArray:
    """Return corners as one array.

    Parameters
    ----------
    coords : array-like of int, shape (tiles, 2)
        (x, y) in level-0 pixels.

    Returns
    -------
    ndarray of int64, shape (tiles, 2)
        The same.
    """
    return np.asarray(coords, dtype=np.int64).reshape(-1, 2)
