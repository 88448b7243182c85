"""What every slide backend offers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pathoml.errors import MissingMppError
from pathoml.units import BoolArray, RgbImage

MPP_RANGE = (0.05, 10.0)
"""Plausible microns per pixel of level 0; outside, the metadata are wrong."""


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
    """

    width_px: int
    height_px: int
    level_downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None

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
            If it is missing or outside 0.05-10.
        """
        remedy = "list the slide in a manifest and give the right value in the manifest's column mpp"
        if self.mpp is None:
            raise MissingMppError(f"{slide_name}: no microns-per-pixel in the metadata; {remedy}")
        low, high = MPP_RANGE
        if not all(low <= value <= high for value in self.mpp):
            raise MissingMppError(f"{slide_name}: microns-per-pixel {self.mpp} outside {low}-{high}; {remedy}")
        return self.mpp


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
        """The allow-listed metadata: vendor and objective power, nothing that could name a person."""

    @abstractmethod
    def read_region(self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int]) -> Region:
        """Read a rectangle.

        Parameters
        ----------
        xy_level0_px : tuple of int
            Top-left corner in level-0 pixels; may lie outside the slide.
        level : int
            Pyramid level to read from.
        size_px : tuple of int
            (width, height) in pixels of that level.

        Returns
        -------
        Region
            Its pixels.

        Raises
        ------
        DamagedSlideError
            If the stored data cannot be decoded. The slide stays usable for other regions.
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
