"""The compressed tiles of one pyramid level: fetched from the file and decoded, nothing kept."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO

from pathoml.errors import DamagedSlideError
from pathoml.slides.base import Region
from pathoml.slides.codecs import TileCodec
from pathoml.slides.tiff_layout import TiledImage
from pathoml.units import RgbImage


@dataclass(frozen=True)
class NativeLevel:
    """One level whose tiles are read from the file directly.

    Parameters
    ----------
    image : TiledImage
        Where its tiles lie.
    codec : TileCodec
        Decodes them.
    downsample : float
        Against level 0.
    file : file
        Open for reading, unbuffered. Closed, it can read nothing, where a number could by then be another file's.
    never_written : callable
        Gives the region (x, y, width, height at this level) of a tile that has no bytes.
    """

    image: TiledImage
    codec: TileCodec
    downsample: float
    file: FileIO
    never_written: Callable[[int, int, int, int], Region]

    def tile_px(self, reduction: int) -> tuple[int, int]:
        """Return the size of a decoded tile.

        Parameters
        ----------
        reduction : int
            Factor by which the codec shrinks.

        Returns
        -------
        tuple of int
            Width and height.
        """
        return self.image.tile_px[0] // reduction, self.image.tile_px[1] // reduction

    def size_px(self, reduction: int) -> tuple[int, int]:
        """Return the size of the level.

        Parameters
        ----------
        reduction : int
            Factor by which the codec shrinks.

        Returns
        -------
        tuple of int
            Width and height; a last pixel that is only in part inside is counted.
        """
        return -(-self.image.width_px // reduction), -(-self.image.height_px // reduction)

    def decode(self, index: int, out: RgbImage, reduction: int = 1) -> bool:
        """Decode a tile.

        Parameters
        ----------
        index : int
            Its number, row by row.
        out : ndarray of uint8, shape (height, width, 3), C-contiguous
            Receives its pixels.
        reduction : int, optional
            Factor by which the codec shrinks.

        Returns
        -------
        bool
            False where the tile, or part of it, was never scanned and `out` holds the background there.

        Raises
        ------
        TileDecodeError
            If its bytes are damaged.
        DamagedSlideError
            If they cannot be read, or it has none and what stands in for it cannot be read either.
        """
        count = int(self.image.counts[index])
        if count > 0:
            try:
                data = os.pread(self.file.fileno(), count, int(self.image.offsets[index]))
            except (OSError, ValueError, MemoryError, OverflowError) as error:
                raise DamagedSlideError(f"stored tile {index} cannot be read from the file: {error}") from error
            self.codec.decode(data, out, reduction)
            return True
        width, height = self.image.tile_px
        row, column = divmod(index, self.image.columns)
        region = self.never_written(column * width, row * height, width, height)
        out[...] = region.pixels[::reduction, ::reduction]
        return region.present is None
