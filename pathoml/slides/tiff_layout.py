"""Where the compressed tiles of a TIFF lie: parsed once, nothing decoded."""

import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathoml.errors import DamagedSlideError, SlideError, TruncatedSlideError

_MAX_DIRECTORIES = 512
_MAX_ENTRIES = 4096
_NDPI_TAG = 65420
_MAX_TILES = 50_000_000
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

YCBCR_JPEG2000, RGB_JPEG2000, JPEG = 33003, 33005, 7


@dataclass(frozen=True)
class TiledImage:
    """One tiled 8-bit RGB image of a TIFF.

    Parameters
    ----------
    width_px, height_px : int
        Extent of the image.
    tile_px : tuple of int
        (width, height) of its tiles; those at the right and lower edge hang over.
    compression : int
        TIFF tag 259.
    photometric : int
        TIFF tag 262 (2 RGB, 6 YCbCr).
    jpeg_tables : bytes
        Tables shared by all tiles; empty where there are none.
    offsets, counts : ndarray of int64, shape (tiles,)
        Where each tile's bytes lie, row by row; a count of 0 is a tile that was never written.
    directory : int
        Index of the image in the file.
    reduced : bool
        Whether the file says that it is a smaller copy of another image.
    """

    width_px: int
    height_px: int
    tile_px: tuple[int, int]
    compression: int
    photometric: int
    jpeg_tables: bytes
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    directory: int
    reduced: bool

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width_px // self.tile_px[0])

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height_px // self.tile_px[1])


def is_tiff(path: Path) -> bool:
    """Return whether a file starts as a TIFF or BigTIFF does.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    bool
        Nothing else is looked at.
    """
    with path.open("rb") as stream:
        return stream.read(4) in _TIFF_MAGIC


@contextmanager
def opened_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF for its directories, and turn what a broken one raises into a slide's error.

    Parameters
    ----------
    path : Path
        A file that starts as a TIFF does.

    Yields
    ------
    tifffile.TiffFile
        Closed at the end.

    Raises
    ------
    DamagedSlideError
        If a directory cannot be parsed.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff
    except SlideError:
        raise
    except (
        tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError,
        ZeroDivisionError, MemoryError, RuntimeError, struct.error, AssertionError,
    ) as error:  # fmt: skip
        raise DamagedSlideError(
            f"{path.name}: its TIFF directory is damaged ({type(error).__name__}: {error}); copy it again from its source"
        ) from error


def check_extent(path: Path) -> None:
    """Say so if a TIFF's data reach beyond the end of the file, as those of a broken-off copy do.

    Parameters
    ----------
    path : Path
        A file that starts as a TIFF does.

    Raises
    ------
    TruncatedSlideError
        If a directory or the data of an image lie beyond the end.
    DamagedSlideError
        If a directory cannot be parsed.
    """
    size = path.stat().st_size
    _walk_directories(path, size)
    with opened_tiff(path) as tiff:
        for page in itertools.islice(tiff.pages, _MAX_DIRECTORIES):
            if not isinstance(page, tifffile.TiffPage):
                continue
            ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
            if ends and max(ends) > size:
                beyond = sum(end > size for end in ends)
                raise TruncatedSlideError(_cut_short(path, size, f"{beyond} of {len(ends)} pieces of an image lie"))


def tiled_images(path: Path) -> list[TiledImage]:
    """Return every tiled 8-bit RGB image of a TIFF; label and macro images are not tiled and stay out.

    Parameters
    ----------
    path : Path
        A file that starts as a TIFF does.

    Returns
    -------
    list of TiledImage
        In file order; reduced images that hang under the first one (OME-TIFF) follow it.

    Raises
    ------
    DamagedSlideError
        If a directory cannot be parsed.
    """
    found = []
    with opened_tiff(path) as tiff:
        first = list(itertools.islice(tiff.pages, _MAX_DIRECTORIES))
        below = list(itertools.islice(first[0].pages or (), _MAX_DIRECTORIES)) if first and first[0].subifds else []
        for index, page in enumerate([*first, *below]):
            image = _tiled_image(page, index) if isinstance(page, tifffile.TiffPage) else None
            if image is not None:
                found.append(replace(image, reduced=True) if index >= len(first) else image)
    size = path.stat().st_size
    for image in found:
        beyond = int((image.offsets + image.counts > size).sum())
        if beyond:
            raise TruncatedSlideError(_cut_short(path, size, f"{beyond} of {len(image.counts)} stored tiles lie"))
    return found


def is_ome(path: Path) -> bool:
    """Return whether a TIFF carries OME metadata.

    Parameters
    ----------
    path : Path
        A file that starts as a TIFF does.

    Returns
    -------
    bool
        Only the end of the first image's description is looked at.

    Raises
    ------
    DamagedSlideError
        If the directory cannot be parsed.
    """
    with opened_tiff(path) as tiff:
        return bool(tiff.is_ome)


def count_pages(path: Path) -> int:
    """Return how many images a TIFF holds.

    Parameters
    ----------
    path : Path
        A file that starts as a TIFF does.

    Returns
    -------
    int
        Directories of the main chain, counted up to 512.

    Raises
    ------
    DamagedSlideError
        If a directory cannot be parsed.
    """
    with opened_tiff(path) as tiff:
        return sum(1 for _ in itertools.islice(tiff.pages, _MAX_DIRECTORIES))


def _tiled_image(page: tifffile.TiffPage, directory: int) -> TiledImage | None:
    rgb = page.samplesperpixel == 3 and page.bitspersample == 8 and int(page.planarconfig) == 1
    if not (page.is_tiled and rgb) or page.imagedepth != 1 or page.is_ndpi:
        return None
    offsets = np.array(page.dataoffsets, dtype=np.int64)
    counts = np.array(page.databytecounts, dtype=np.int64)
    image = TiledImage(
        page.imagewidth, page.imagelength, (page.tilewidth, page.tilelength), int(page.compression),
        int(page.photometric), page.jpegtables or b"", offsets, counts, directory, bool(page.is_reduced),
    )  # fmt: skip
    whole = 0 < len(offsets) <= _MAX_TILES and len(offsets) == len(counts) == image.columns * image.rows
    return image if whole else None


def _walk_directories(path: Path, size: int) -> None:
    """Follow the chain of directories to its end; tifffile stops silently where it is broken."""
    with path.open("rb") as stream:
        head = stream.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count_format, entry_bytes, next_format = (
            (f"{order}Q", 20, f"{order}Q") if big else (f"{order}H", 12, f"{order}I")
        )
        offset = _unpacked(next_format, head[8:] if big else head[4:])
        wide = _unpacked(f"{order}Q", head[4:])
        if not big and wide is not None and wide < size and _is_ndpi_directory(stream, wide, order):
            offset, next_format = wide, f"{order}Q"  # Hamamatsu's own way past 4 GB
        seen: set[int] = set()
        while offset and len(seen) < _MAX_DIRECTORIES:
            if offset in seen:
                raise DamagedSlideError(_damaged(path, "runs in a circle"))
            seen.add(offset)
            if offset >= size:
                raise TruncatedSlideError(_cut_short(path, size, "a directory lies"))
            stream.seek(offset)
            entries = _unpacked(count_format, stream.read(struct.calcsize(count_format)))
            if entries is None:
                raise TruncatedSlideError(_cut_short(path, size, "a directory lies"))
            if not 0 < entries <= _MAX_ENTRIES:
                raise DamagedSlideError(_damaged(path, f"claims {entries} entries"))
            stream.seek(entries * entry_bytes, os.SEEK_CUR)
            offset = _unpacked(next_format, stream.read(struct.calcsize(next_format)))
            if offset is None:
                raise TruncatedSlideError(_cut_short(path, size, "a directory lies"))


def _unpacked(form: str, data: bytes) -> int | None:
    """Return the number at the start of the data, or None if they are too few."""
    wanted = struct.calcsize(form)
    return int(struct.unpack(form, data[:wanted])[0]) if len(data) >= wanted else None


def _is_ndpi_directory(stream: BinaryIO, offset: int, order: str) -> bool:
    """Say whether a directory that carries Hamamatsu's tag lies at an offset."""
    stream.seek(offset)
    entries = _unpacked(f"{order}H", stream.read(2)) or 0
    return 0 < entries <= _MAX_ENTRIES and _has_tag(stream.read(entries * 12), order, _NDPI_TAG)


def _has_tag(table: bytes, order: str, tag: int) -> bool:
    return any(struct.unpack(f"{order}H", table[at : at + 2])[0] == tag for at in range(0, len(table) - 1, 12))


def _damaged(path: Path, what: str) -> str:
    return f"{path.name}: its chain of TIFF directories {what}; copy it again from its source"


def _cut_short(path: Path, size: int, what: str) -> str:
    return f"{path.name}: the file is cut short: it has {size:,} bytes and {what} beyond its end; copy it again from its source"
