"""The fast tier: slides whose compressed tiles are read from the file directly."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathoml.errors import DamagedSlideError, SlideError
from pathoml.slides.base import ReadPlan, Region, Slide, SlideGeometry, TileReader, corners
from pathoml.slides.codecs import TileCodec, TileDecodeError, codec_for
from pathoml.slides.native_reader import NativeTileReader, paste
from pathoml.slides.native_tiles import NativeLevel
from pathoml.slides.openslide_backend import OpenSlideSlide
from pathoml.slides.tiff_layout import TiledImage

_SAMPLES = 3
"""Tiles of each level that are compared with OpenSlide when a slide is opened."""

_MAX_INTERPOLATED = 12.0
"""Mean difference in grey levels that half a pixel of interpolation explains; another picture or colour space differs more."""


class TiledSlide(Slide):
    """A tiled TIFF read tile by tile.

    Parameters
    ----------
    path : Path
        The file.
    geometry : SlideGeometry
        With one level for each of those given next.
    metadata : dict of str to str
        The allow-listed ones; codec and tier are added.
    levels : sequence of NativeLevel
        Finest first.
    background : tuple of int
        RGB of what was never scanned.
    on_close : callable
        Releases the files that the levels read.
    """

    def __init__(
        self, path: Path, geometry: SlideGeometry, metadata: dict[str, str], levels: Sequence[NativeLevel], *,
        background: tuple[int, int, int], on_close: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(path)
        self._levels, self._background, self._on_close = list(levels), background, on_close
        common = set.intersection(*(set(level.codec.reductions) for level in levels))
        first = levels[0]
        self._geometry = replace(geometry, reductions=tuple(sorted(common)), native_tile_px=first.image.tile_px)
        self._metadata = {**metadata, "codec": first.codec.name, "tier": "native tiles"}

    @property
    def geometry(self) -> SlideGeometry:
        """Size, levels and resolution."""
        return self._geometry

    @property
    def metadata(self) -> dict[str, str]:
        """Vendor, objective power, codec and tier."""
        return dict(self._metadata)

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
            (width, height) at that level after `reduction`.
        reduction : int, optional
            Shrink by this factor while decoding.

        Returns
        -------
        Region
            Its pixels.

        Raises
        ------
        DamagedSlideError
            If a native tile under it cannot be decoded.
        """
        native = self._levels[level]
        tile_width, tile_height = native.tile_px(reduction)
        x0, y0 = (round(value / (native.downsample * reduction)) for value in xy_level0_px)
        width, height = size_px
        columns = range(max(0, x0 // tile_width), min(native.image.columns, (x0 + width - 1) // tile_width + 1))
        rows = range(max(0, y0 // tile_height), min(native.image.rows, (y0 + height - 1) // tile_height + 1))
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        present = np.ones((height, width), dtype=bool)
        level_width, level_height = native.size_px(reduction)
        present[max(0, level_height - y0) :] = present[: max(0, -y0)] = False
        present[:, max(0, level_width - x0) :] = present[:, : max(0, -x0)] = False
        pixels[~present] = self._background
        scratch = np.empty((tile_height, tile_width, 3), dtype=np.uint8)
        for index in (row * native.image.columns + column for row in rows for column in columns):
            try:
                whole = native.decode(index, scratch, reduction)
            except (TileDecodeError, DamagedSlideError) as error:
                message = f"{self.path.name}: stored tile {index} of level {level} is damaged: {error}"
                raise DamagedSlideError(message) from error
            paste({index: scratch}, native, reduction, (x0, y0), None, pixels)
            if not whole:
                top, left = index // native.image.columns * tile_height, index % native.image.columns * tile_width
                _area(present, left - x0, top - y0, tile_width, tile_height)[...] = False
        return Region(pixels, None if present.all() else present)

    def stored_tile_px(self, level: int) -> tuple[int, int]:
        """Return the size of a level's native tiles.

        Parameters
        ----------
        level : int
            Pyramid level.

        Returns
        -------
        tuple of int
            Width and height.
        """
        return self._levels[level].image.tile_px

    def tile_reader(
        self, coords: NDArray[np.int32] | Sequence[Sequence[int]], plan: ReadPlan, *, threads: int = 1
    ) -> TileReader:
        """Prepare to read tiles; see `Slide.tile_reader`.

        Parameters
        ----------
        coords : array-like of int, shape (tiles, 2)
            Top-left corners in level-0 pixels.
        plan : ReadPlan
            How each is read.
        threads : int, optional
            Threads that decode.

        Returns
        -------
        TileReader
            For these tiles.
        """
        return NativeTileReader(
            self._levels[plan.level], corners(coords), plan, background=self._background,
            name=self.path.name, threads=threads,
        )  # fmt: skip

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        release, self._on_close = self._on_close, _nothing
        release()


def open_tiled(reference: OpenSlideSlide, images: Sequence[TiledImage]) -> tuple[TiledSlide | None, str]:
    """Open a slide in the fast tier if that gives OpenSlide's pixels.

    Parameters
    ----------
    reference : OpenSlideSlide
        The slide through OpenSlide: its geometry, metadata and background hold, and it reads what has no tile of its
        own. The new slide closes it.
    images : sequence of TiledImage
        The tiled images of the file.

    Returns
    -------
    TiledSlide or None
        None where OpenSlide has to read it.
    str
        Why, if so.
    """
    matched: list[tuple[TiledImage, TileCodec]] = []
    for size in reference.level_sizes_px:
        matching = [image for image in images if (image.width_px, image.height_px) == size]
        if len(matching) != 1:
            return None, f"{len(matching)} tiled images have the size of the level of {size[0]} x {size[1]} px"
        codec = codec_for(matching[0])
        if codec is None:
            return None, f"compression {matching[0].compression} has no fast codec"
        matched.append((matching[0], codec))
    file = FileIO(reference.path)
    lock = threading.Lock()
    levels = [
        NativeLevel(image, codec, downsample, file, _read_beside(reference, level, lock))
        for level, ((image, codec), downsample) in enumerate(
            zip(matched, reference.geometry.level_downsamples, strict=True)
        )
    ]
    try:
        difference = _difference(levels)
    except BaseException:
        file.close()
        raise
    if difference:
        file.close()
        return None, difference

    def release() -> None:
        file.close()
        reference.close()

    slide = TiledSlide(
        reference.path, reference.geometry, reference.metadata, levels, background=reference.background,
        on_close=release,
    )  # fmt: skip
    return slide, ""


def _nothing() -> None:
    """Stand for a release that has happened."""


def _read_beside(
    reference: OpenSlideSlide, level: int, lock: threading.Lock
) -> Callable[[int, int, int, int], Region]:  # fmt: skip
    """Return what reads a rectangle of a level through OpenSlide, one thread at a time."""
    downsample = reference.geometry.level_downsamples[level]

    def read(x: int, y: int, width: int, height: int) -> Region:
        with lock:
            return reference.read_region((round(x * downsample), round(y * downsample)), level, (width, height))

    return read


def _difference(levels: Sequence[NativeLevel]) -> str:
    """Compare a few tiles of every level with OpenSlide's; return which one differs and by how much, or nothing."""
    for number, level in enumerate(levels):
        width, height = level.image.tile_px
        tile = np.empty((height, width, 3), dtype=np.uint8)
        for index in _samples(level.image):
            row, column = divmod(index, level.image.columns)
            where = f"level {number}, stored tile in row {row}, column {column}"
            seen_width, seen_height = _visible(level.image, index)
            try:
                level.decode(index, tile)
                theirs = level.never_written(column * width, row * height, seen_width, seen_height).pixels
            except (TileDecodeError, SlideError) as error:
                return f"{where}: {error}"
            apart = np.abs(tile[:seen_height, :seen_width].astype(np.int16) - theirs)
            corner = (column * width * level.downsample, row * height * level.downsample)
            if _on_whole_pixels(corner, level.downsample) and apart.max() > 0:
                return f"{where}: pixels differ by up to {apart.max()}"
            if apart.mean() > _MAX_INTERPOLATED:
                return f"{where}: pixels differ by {apart.mean():.1f} on average"
    return ""


def _on_whole_pixels(corner_level0: tuple[float, float], downsample: float) -> bool:
    """Say whether level-0 coordinates, which are whole numbers, can name this pixel; else OpenSlide interpolates."""
    return all(abs(round(value) - value) / downsample < 1 / 512 for value in corner_level0)


def _samples(image: TiledImage) -> list[int]:
    """Return the tile with the most bytes, which has the most structure, and some spread over the rest."""
    written = np.flatnonzero(image.counts > 0)
    if len(written) == 0:
        return []
    spread = written[np.linspace(0, len(written) - 1, _SAMPLES - 1).astype(int)].tolist()
    return sorted({int(np.argmax(image.counts)), *spread})


def _visible(image: TiledImage, index: int) -> tuple[int, int]:
    """Return the part of a tile that lies on the level."""
    row, column = divmod(index, image.columns)
    width, height = image.tile_px
    return min(width, image.width_px - column * width), min(height, image.height_px - row * height)


def _area(array: NDArray[np.bool_], left: int, top: int, width: int, height: int) -> NDArray[np.bool_]:
    return array[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
