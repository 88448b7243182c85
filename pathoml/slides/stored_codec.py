"""What the pixels of a slide are compressed with, where OpenSlide reads it and does not say."""

import itertools
import re
from pathlib import Path

import tifffile

from pathoml.slides.dicom_series import read_transfer_syntax
from pathoml.slides.tiff_layout import is_tiff, opened_tiff

_UNKNOWN = "unknown"
_OF_TIFF = {
    1: "none", 5: "LZW", 6: "JPEG", 7: "JPEG", 8: "Deflate", 32946: "Deflate", 22610: "JPEG XR", 34934: "JPEG XR",
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34926: "Zstandard",
    50000: "Zstandard", 34927: "WebP", 50001: "WebP", 34933: "PNG", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
"""TIFF tag 259."""
_OF_DICOM = (
    (re.compile(r"1\.2\.840\.10008\.1\.2(\.1|\.2)?"), "none"),
    (re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(5\d|70)"), "JPEG"),
    (re.compile(r"1\.2\.840\.10008\.1\.2\.4\.8[01]"), "JPEG-LS"),
    (re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(9[0-3]|20[1-3])"), "JPEG 2000"),
    (re.compile(r"1\.2\.840\.10008\.1\.2\.5"), "RLE"),
)
_OF_MIRAX = re.compile(r"^IMAGE_FORMAT\s*=\s*(JPEG|PNG|BMP24)\s*$", re.MULTILINE | re.IGNORECASE)
_MAX_DIRECTORIES, _MAX_INDEX_BYTES = 64, 1 << 20


def stored_codec(path: Path) -> str:
    """Return what a slide's pixels are compressed with.

    Parameters
    ----------
    path : Path
        A slide that could be opened.

    Returns
    -------
    str
        ``JPEG``, ``JPEG 2000``, ``none`` for pixels as they are, and so on; ``unknown`` where the file does not say it in a
        way that is known here. Never text of the file's own.

    Raises
    ------
    DamagedSlideError
        If the directory of a TIFF cannot be parsed.
    """
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        return _of_mirax(path.with_suffix("") / "Slidedat.ini")
    if suffix == ".vms":
        return "JPEG"
    if is_tiff(path):
        return _of_largest_image(path)
    with path.open("rb") as stream:
        syntax = read_transfer_syntax(stream) or ""
    return next((name for pattern, name in _OF_DICOM if pattern.fullmatch(syntax)), _UNKNOWN)


def tiff_codec(compression: int) -> str:
    """Return what TIFF tag 259 stands for.

    Parameters
    ----------
    compression : int
        The tag.

    Returns
    -------
    str
        As `stored_codec` says it; the number itself where it is not known here.
    """
    return _OF_TIFF.get(compression, f"TIFF compression {compression}")


def _of_largest_image(path: Path) -> str:
    with opened_tiff(path) as tiff:
        pages = [page for page in itertools.islice(tiff.pages, _MAX_DIRECTORIES) if isinstance(page, tifffile.TiffPage)]
        if not pages:
            return _UNKNOWN
        largest = max(pages, key=lambda page: page.imagewidth * page.imagelength)
        return tiff_codec(int(largest.compression))


def _of_mirax(index: Path) -> str:
    if not index.is_file():
        return _UNKNOWN
    with index.open("rb") as stream:
        found = _OF_MIRAX.search(stream.read(_MAX_INDEX_BYTES).decode("utf-8-sig", errors="replace"))
    return _UNKNOWN if found is None else found.group(1).upper()
