"""What the pixels of a slide are compressed with, where OpenSlide reads it and does not say."""

import itertools
import re
from pathlib import Path

import tifffile

from pathoml.slides.dicom_series import read_transfer_syntax
from pathoml.slides.tiff_layout import is_tiff, opened_tiff

_UNKNOWN = "unknown"
_OF_TIFF = {
    "NONE": "none", "JPEG": "JPEG", "OJPEG": "JPEG", "JPEG_2000_LOSSY": "JPEG 2000", "JPEG2000": "JPEG 2000",
    "APERIO_JP2000_YCBC": "JPEG 2000", "APERIO_JP2000_RGB": "JPEG 2000", "LZW": "LZW", "DEFLATE": "Deflate",
    "ADOBE_DEFLATE": "Deflate", "JPEGXR": "JPEG XR", "JPEGXR_NDPI": "JPEG XR", "JPEGXL": "JPEG XL", "WEBP": "WebP",
    "ZSTD": "Zstandard",
}  # fmt: skip
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


def _of_largest_image(path: Path) -> str:
    with opened_tiff(path) as tiff:
        pages = [page for page in itertools.islice(tiff.pages, _MAX_DIRECTORIES) if isinstance(page, tifffile.TiffPage)]
        if not pages:
            return _UNKNOWN
        largest = max(pages, key=lambda page: page.imagewidth * page.imagelength)
        return _OF_TIFF.get(getattr(largest.compression, "name", ""), _UNKNOWN)


def _of_mirax(index: Path) -> str:
    if not index.is_file():
        return _UNKNOWN
    with index.open("rb") as stream:
        found = _OF_MIRAX.search(stream.read(_MAX_INDEX_BYTES).decode("utf-8-sig", errors="replace"))
    return _UNKNOWN if found is None else found.group(1).upper()
