"""The compressed bytes of one native tile -> its pixels."""

import re
import struct
from abc import ABC, abstractmethod

import imagecodecs
import numpy as np
import simplejpeg

from pathoml.slides.tiff_layout import JPEG, RGB_JPEG2000, YCBCR_JPEG2000, TiledImage
from pathoml.units import RgbImage

# An Adobe marker that says "no colour transform": TIFFs of RGB JPEGs leave it out, and libjpeg then takes them as YCbCr.
_STORED_AS_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_START = b"\xff\xd8"
_PHOTOMETRIC_RGB = 2
_JPEG_REDUCTIONS = (1, 2, 4, 8)
_COLOURS = 3
_MARKER, _FRAMES, _WITHOUT_LENGTH = (
    0xFF,
    frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC},
    frozenset([1, *range(0xD0, 0xDA)]),
)
"""First byte of a marker; second bytes of those of frames (their sizes), and of those that stand for themselves."""
_STRAY_BYTES, _MOST_PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9"), 16
"""Of bits flipped at random 1 % leave so few bytes over, and 12 % more; the others are silent or another error."""


class TileDecodeError(Exception):
    """The bytes of a native tile do not decode to a tile of the size that the file promises."""


class TileCodec(ABC):
    """Decodes the native tiles of one level. Free of state: several threads may share it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the tiles are compressed with, for the user."""

    @property
    @abstractmethod
    def reductions(self) -> tuple[int, ...]:
        """Whole factors by which it can shrink while it decodes."""

    @abstractmethod
    def decode(self, data: bytes, out: RgbImage, reduction: int = 1) -> None:
        """Decode a tile.

        Parameters
        ----------
        data : bytes
            As stored in the file.
        out : ndarray of uint8, shape (height, width, 3), C-contiguous
            Receives the RGB pixels; its size is the tile's divided by the reduction.
        reduction : int, optional
            One of `reductions`.

        Raises
        ------
        TileDecodeError
            If the bytes are damaged, or are a tile of another size.
        """


class JpegCodec(TileCodec):
    """Baseline JPEG by libjpeg-turbo, with the exact (slow integer) DCT and smooth chroma that OpenSlide uses.

    Parameters
    ----------
    image : TiledImage
        Its shared tables and colour space.
    """

    def __init__(self, image: TiledImage) -> None:
        tables = image.jpeg_tables
        marker = _STORED_AS_RGB if image.photometric == _PHOTOMETRIC_RGB else b""
        # Tables come as a whole JPEG stream (start, tables, end): keep start and tables, and go on with the tile's own.
        self._head = _START + marker + tables[2:-2]
        width, height = image.tile_px
        self._reductions = tuple(r for r in _JPEG_REDUCTIONS if width % r == 0 and height % r == 0)

    @property
    def name(self) -> str:
        """``JPEG``."""
        return "JPEG"

    @property
    def reductions(self) -> tuple[int, ...]:
        """Those of 1, 2, 4 and 8 that divide the tile."""
        return self._reductions

    def decode(self, data: bytes, out: RgbImage, reduction: int = 1) -> None:
        """Decode a tile; see `TileCodec.decode`.

        Parameters
        ----------
        data : bytes
            A JPEG stream, with or without its tables.
        out : ndarray of uint8
            Receives the pixels.
        reduction : int, optional
            DCT-domain reduction.

        Raises
        ------
        TileDecodeError
            If libjpeg finds the stream corrupt, or it is of another size, or grey.
        """
        # Where nothing has to be put in front of it, the stream is taken as it is, without a copy.
        stream = data if data.startswith(self._head) else self._head + data[2:]
        _check_jpeg(data, (out.shape[1] * reduction, out.shape[0] * reduction))
        try:
            # Strict: libjpeg repairs a broken stream with invented pixels and calls that a warning.
            pixels = simplejpeg.decode_jpeg(
                stream, min_height=out.shape[0], min_width=out.shape[1], min_factor=reduction,
                buffer=out, strict=True,
            )  # fmt: skip
        except ValueError as error:
            if not _only_padded(str(error)):
                raise TileDecodeError(str(error)) from error
            pixels = simplejpeg.decode_jpeg(
                stream, min_height=out.shape[0], min_width=out.shape[1], min_factor=reduction,
                buffer=out, strict=False,
            )  # fmt: skip
        if pixels.shape != out.shape:
            raise TileDecodeError(f"a tile of {pixels.shape[1]} x {pixels.shape[0]} px where {out.shape} was promised")


def _check_jpeg(data: bytes, size_px: tuple[int, int]) -> None:
    """Compare a stream's own frame with the tile's: the decoder would shrink a larger picture until it fits.

    Walked by hand: asking the decoder for the header sets up a second one for each tile.
    """
    at, last = 2, len(data) - 10
    while at <= last and data[at] == _MARKER:
        kind = data[at + 1]
        if kind in _FRAMES:
            found = (data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6])
            if found != size_px:
                promised = f"{size_px[0]} x {size_px[1]}"
                raise TileDecodeError(f"a tile of {found[0]} x {found[1]} px where {promised} were promised")
            if data[at + 9] != _COLOURS:
                raise TileDecodeError(f"a tile of {data[at + 9]} colour(s) where {_COLOURS} were promised")
            return
        if kind == _MARKER:
            at += 1
        elif kind in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise TileDecodeError("no JPEG frame")


def _only_padded(warning: str) -> bool:
    """Say whether all that is wrong are a few bytes between the last pixel and the end mark, as some writers leave them."""
    stray = _STRAY_BYTES.search(warning)
    return stray is not None and int(stray.group(1)) <= _MOST_PADDING


class Jpeg2000Codec(TileCodec):
    """JPEG 2000 by OpenJPEG, as Aperio scanners store it.

    Parameters
    ----------
    image : TiledImage
        Its compression says whether the components are RGB or YCbCr.
    """

    def __init__(self, image: TiledImage) -> None:
        self._ycbcr = image.compression == YCBCR_JPEG2000

    @property
    def name(self) -> str:
        """``JPEG 2000``."""
        return "JPEG 2000"

    @property
    def reductions(self) -> tuple[int, ...]:
        """Plain decoding only."""
        return (1,)

    def decode(self, data: bytes, out: RgbImage, reduction: int = 1) -> None:
        """Decode a tile; see `TileCodec.decode`.

        Parameters
        ----------
        data : bytes
            A JPEG 2000 codestream.
        out : ndarray of uint8
            Receives the pixels.
        reduction : int, optional
            1.

        Raises
        ------
        TileDecodeError
            If OpenJPEG finds the stream corrupt, or of another size.
        """
        if reduction != 1:
            raise ValueError(f"JPEG 2000 tiles are decoded whole here; a reduction of {reduction} was asked for")
        _check_size(data, out)
        try:
            imagecodecs.jpeg2k_decode(data, numthreads=1, out=out)
        except (imagecodecs.Jpeg2kError, ValueError, RuntimeError) as error:
            raise TileDecodeError(str(error)) from error
        if self._ycbcr:
            out[...] = _rgb_of_ycbcr(out)


def codec_for(image: TiledImage) -> TileCodec | None:
    """Return the codec of an image's tiles.

    Parameters
    ----------
    image : TiledImage
        One level.

    Returns
    -------
    TileCodec or None
        None where the compression has no fast codec here.
    """
    if image.compression == JPEG:
        return JpegCodec(image)
    if image.compression in (YCBCR_JPEG2000, RGB_JPEG2000):
        return Jpeg2000Codec(image)
    return None


def _check_size(data: bytes, out: RgbImage) -> None:
    """Compare the size in the codestream's header with the tile's before OpenJPEG believes it and allocates."""
    start = data.find(b"\xff\x4f\xff\x51")
    header = data[start + 4 : start + 4 + 20] if 0 <= start <= 4096 else b""
    if len(header) < 20:
        raise TileDecodeError("no JPEG 2000 codestream")
    _, _, right, bottom, left, top = struct.unpack(">HHIIII", header)
    if (right - left, bottom - top) != (out.shape[1], out.shape[0]):
        raise TileDecodeError(f"a tile of {right - left} x {bottom - top} px where {out.shape} was promised")


def _rgb_of_ycbcr(pixels: RgbImage) -> RgbImage:
    """Convert full-range YCbCr (ITU-R BT.601, as in JFIF) with 16-bit fixed-point coefficients, rounded to nearest."""
    y, cb, cr = (pixels[..., channel].astype(np.int32) for channel in range(3))
    cb, cr = cb - 128, cr - 128
    half = 1 << 15
    red = y + ((91881 * cr + half) >> 16)
    green = y + ((-22554 * cb - 46802 * cr + half) >> 16)
    blue = y + ((116130 * cb + half) >> 16)
    rgb: RgbImage = np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)
    return rgb
