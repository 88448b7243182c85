"""Images that OpenSlide refuses: OME-TIFF by its tiles, ordinary pictures as a whole."""

import logging
import re
import warnings
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pathoml.errors import DamagedSlideError, SlideError, TooLargeSlideError, UnsupportedSlideError
from pathoml.slides.base import ReadPlan, Region, Slide, SlideGeometry, TileReader, corners
from pathoml.slides.codecs import TileCodec, TileDecodeError
from pathoml.slides.native_tiles import NativeLevel
from pathoml.slides.region_reader import RegionTileReader
from pathoml.slides.stored_codec import tiff_codec
from pathoml.slides.tiff_layout import opened_tiff, tiled_images
from pathoml.slides.tiled_slide import TiledSlide
from pathoml.units import BoolArray, RgbImage

logger = logging.getLogger(__name__)

MAX_PICTURE_PIXELS = 178_000_000
"""Ordinary pictures are held in memory as a whole; Pillow refuses larger ones too."""

_WHITE = (255, 255, 255)
_MICROMETRES = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")


class PictureSlide(Slide):
    """An ordinary picture (PNG, JPEG, BMP, plain TIFF) held in memory.

    Parameters
    ----------
    path : Path
        The file.
    mpp : float, optional
        Microns per pixel from the manifest; a picture's own idea of its resolution is for printers and not used.

    Raises
    ------
    TooLargeSlideError
        If it has more than 178 million pixels.
    UnsupportedSlideError
        If its pixels are not 8-bit colours or greys.
    DamagedSlideError
        If it cannot be decoded.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        super().__init__(path)
        self._picture: _Picture | None = _read_picture(path)
        self._codec = self._picture.codec
        height, width = self._picture.pixels.shape[:2]
        self._geometry = SlideGeometry(width, height, (1.0,), None if mpp is None else (mpp, mpp))

    @property
    def geometry(self) -> SlideGeometry:
        """Size, one level, and the resolution from the manifest."""
        return self._geometry

    @property
    def metadata(self) -> dict[str, str]:
        """Codec and tier; a picture names no vendor."""
        return {"vendor": "none", "objective_power": "unknown", "codec": self._codec, "tier": "whole picture"}

    def read_region(
        self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
    ) -> Region:
        """Cut a rectangle; see `Slide.read_region`.

        Parameters
        ----------
        xy_level0_px : tuple of int
            Top-left corner.
        level : int
            0.
        size_px : tuple of int
            (width, height).
        reduction : int, optional
            1.

        Returns
        -------
        Region
            Its pixels.
        """
        if level != 0 or reduction != 1:
            raise ValueError(f"a picture has one level, decoded whole; level {level}, reduction {reduction} asked for")
        if self._picture is None:
            raise ValueError(f"{self.path.name} is closed")
        (x, y), (width, height) = xy_level0_px, size_px
        left, top = max(0, x), max(0, y)
        seen = (slice(top, max(top, y + height)), slice(left, max(left, x + width)))
        inside = self._picture.pixels[seen]
        if inside.shape[:2] == (height, width) and self._picture.present is None:
            return Region(inside.copy(), None)
        pixels = np.full((height, width, 3), _WHITE, dtype=np.uint8)
        present = np.zeros((height, width), dtype=bool)
        place = (slice(top - y, top - y + inside.shape[0]), slice(left - x, left - x + inside.shape[1]))
        pixels[place] = inside
        present[place] = True if self._picture.present is None else self._picture.present[seen]
        return Region(pixels, None if present.all() else present)

    def tile_reader(
        self, coords: NDArray[np.int32] | Sequence[Sequence[int]], plan: ReadPlan, *, threads: int = 1
    ) -> TileReader:
        """Prepare to cut tiles; see `Slide.tile_reader`.

        Parameters
        ----------
        coords : array-like of int, shape (tiles, 2)
            Top-left corners.
        plan : ReadPlan
            How each is cut.
        threads : int, optional
            Not used: nothing is left to decode.

        Returns
        -------
        TileReader
            For these tiles.
        """
        return RegionTileReader(self.read_region, self._geometry, corners(coords), plan)

    def close(self) -> None:
        """Forget the pixels."""
        self._picture = None


class _TifffileCodec(TileCodec):
    """Decodes a tile as tifffile does, whatever its compression."""

    def __init__(self, page: tifffile.TiffPage) -> None:
        compression = int(page.compression)
        self._name = tiff_codec(compression)
        self._decode, self._tables = page.decode, page.jpegtables  # both read the file, so now

    @property
    def name(self) -> str:
        return self._name

    @property
    def reductions(self) -> tuple[int, ...]:
        return (1,)

    def decode(self, data: bytes, out: RgbImage, reduction: int = 1) -> None:
        try:
            tile, _, _ = self._decode(data, 0, jpegtables=self._tables, _fullsize=True)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise TileDecodeError(str(error)) from error
        if tile is None or tile.shape[1:] != out.shape:
            raise TileDecodeError(
                f"a tile of {None if tile is None else tile.shape[1:]} where {out.shape} was promised"
            )
        out[...] = tile[0]


def open_tiled_image(path: Path, *, mpp: float | None = None) -> TiledSlide:
    """Open a tiled TIFF that OpenSlide refuses, OME-TIFF above all.

    Parameters
    ----------
    path : Path
        The file.
    mpp : float, optional
        Microns per pixel from the manifest; otherwise the OME metadata's.

    Returns
    -------
    TiledSlide
        With the levels that are whole reductions of the first image.

    Raises
    ------
    UnsupportedSlideError
        If the first image is not tiled 8-bit RGB with interleaved channels.
    DamagedSlideError
        If the directory cannot be parsed.
    """
    images = [image for image in tiled_images(path) if image.width_px > 0 and image.height_px > 0]
    if not images or images[0].directory != 0:
        raise UnsupportedSlideError(
            f"{path.name}: a TIFF whose first image is not tiled 8-bit RGB with interleaved channels; "
            "export it as brightfield RGB (a fluorescence or planar image is not H&E)"
        )
    first = images[0]
    levels = [first]
    for image in images[1:]:
        ratio = first.width_px / image.width_px
        finer = first.width_px / levels[-1].width_px
        if image.reduced and ratio > finer and abs(first.height_px / image.height_px / ratio - 1) < 0.02:
            levels.append(image)
    with opened_tiff(path) as tiff:
        codecs = [_TifffileCodec(_page(tiff, image.directory)) for image in levels]
        own_mpp = _ome_mpp(tiff.ome_metadata or "")
    file = FileIO(path)
    downsamples = tuple(first.width_px / image.width_px for image in levels)
    natives = [
        NativeLevel(image, codec, downsample, file, _nothing_there)
        for image, codec, downsample in zip(levels, codecs, downsamples, strict=True)
    ]
    geometry = SlideGeometry(first.width_px, first.height_px, downsamples, own_mpp if mpp is None else (mpp, mpp))
    metadata = {"vendor": "ome" if own_mpp else "tiff", "objective_power": "unknown"}
    return TiledSlide(path, geometry, metadata, natives, background=_WHITE, on_close=file.close)


def _page(tiff: tifffile.TiffFile, directory: int) -> tifffile.TiffPage:
    count = len(tiff.pages)
    page = tiff.pages[directory] if directory < count else (tiff.pages[0].pages or [])[directory - count]
    if not isinstance(page, tifffile.TiffPage):
        raise TypeError(f"directory {directory} is not a page of its own")
    return page


def _nothing_there(x: int, y: int, width: int, height: int) -> Region:
    return Region(np.full((height, width, 3), _WHITE, dtype=np.uint8), np.zeros((height, width), dtype=bool))


def _ome_mpp(xml: str) -> tuple[float, float] | None:
    """Return the physical size of the first image's pixels; only these attributes of the metadata are looked at."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    if pixels is None:
        return None
    values = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', pixels[0])
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', pixels[0])
        factor = _MICROMETRES.get(unit[1] if unit else "µm")
        if size is None or factor is None:
            return None
        try:
            values.append(float(size[1]) * factor)
        except ValueError:
            return None
    return values[0], values[1]


class _Picture(NamedTuple):
    """Pixels on white, where there are any (None: everywhere), and what they were stored as."""

    pixels: RgbImage
    present: BoolArray | None
    codec: str


def _read_picture(path: Path) -> _Picture:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = _decoded(path)
        except Image.DecompressionBombError as error:
            raise TooLargeSlideError(_too_large(path, "more pixels")) from error
        except (OSError, ValueError, SyntaxError, TypeError, MemoryError) as error:
            if isinstance(error, SlideError):
                raise
            raise DamagedSlideError(
                f"{path.name}: cannot be decoded ({error}); copy it again from its source"
            ) from error
    for warning in said:
        logger.info("%s: Pillow says: %s", path.name, warning.message)
    return found


def _decoded(path: Path) -> _Picture:
    with Image.open(path, formats=_FORMATS) as picture:
        if picture.width * picture.height > MAX_PICTURE_PIXELS:
            raise TooLargeSlideError(_too_large(path, f"{picture.width:,} x {picture.height:,} px"))
        if picture.mode not in _MODES:
            raise UnsupportedSlideError(
                f"{path.name}: pixels of kind {picture.mode!r} where 8-bit colours are needed; export it as 8-bit RGB"
            )
        if not picture.has_transparency_data:
            return _Picture(np.array(picture.convert("RGB")), None, str(picture.format))
        layers = picture.convert("RGBA")
        white = Image.new("RGBA", layers.size, (*_WHITE, 255))
        white.alpha_composite(layers)
        present = np.array(layers.getchannel("A")) > 0
        return _Picture(np.array(white.convert("RGB")), present, str(picture.format))


def _too_large(path: Path, found: str) -> str:
    return (
        f"{path.name}: a plain picture of {found} where at most {MAX_PICTURE_PIXELS // 10**6} million pixels fit in "
        "memory; convert it to a tiled pyramidal TIFF (for example with vips tiffsave --tile --pyramid)"
    )
