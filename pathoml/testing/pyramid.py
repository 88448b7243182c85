"""Write a slide as a pyramidal, tiled, JPEG-compressed TIFF that OpenSlide opens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from pathoml.files import atomic_path
from pathoml.testing.noise import ByteMap

TILE_PX = 256
_JPEG_QUALITY = 85
_UM_PER_CM = 10_000.0


def write_pyramid(path: Path, level0: ByteMap, *, mpp: float, downsamples: tuple[int, ...] = (4, 16)) -> None:
    """Write an image and its reduced copies; the file appears whole or not at all.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    level0
        uint8 (row, col, 3), red, green, blue.
    mpp
        Micrometres per pixel of ``level0``; stored as pixels per centimetre.
    downsamples
        Factors of the reduced levels.

    Notes
    -----
    Each level is a directory of its own, marked as a reduced image: OpenSlide follows no sub-directories.
    """
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=False) as writer:
        _write_level(writer, level0, mpp, reduced=False)
        for factor in downsamples:
            size = (max(1, level0.shape[1] // factor), max(1, level0.shape[0] // factor))
            smaller = cv2.resize(level0, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            _write_level(writer, smaller, mpp * factor, reduced=True)


def _write_level(writer: tifffile.TiffWriter, image: ByteMap, mpp: float, *, reduced: bool) -> None:
    """Append one directory."""
    per_cm = _UM_PER_CM / mpp
    writer.write(
        _tiles(image),
        shape=image.shape,
        dtype=np.uint8,
        photometric="rgb",
        tile=(TILE_PX, TILE_PX),
        compression="jpeg",
        compressionargs={"level": _JPEG_QUALITY},
        subsampling=(2, 2),
        subfiletype=1 if reduced else 0,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        software=False,
        metadata=None,
        maxworkers=1,
    )


def _tiles(image: ByteMap) -> Iterator[ByteMap]:
    """Yield whole tiles row by row, continued past the image's border, where JPEG would ring."""
    rows, cols = image.shape[:2]
    for row in range(0, rows, TILE_PX):
        for col in range(0, cols, TILE_PX):
            tile = image[row : row + TILE_PX, col : col + TILE_PX]
            below, beside = TILE_PX - tile.shape[0], TILE_PX - tile.shape[1]
            if below or beside:
                tile = cv2.copyMakeBorder(tile, 0, below, 0, beside, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
            yield np.ascontiguousarray(tile)
