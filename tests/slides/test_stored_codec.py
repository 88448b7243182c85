"""The codec of slides that OpenSlide reads is found in the file, and nothing of the file's own words is shown."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from pathoml.slides import stored_codec
from tests.slides.several_files import EXPLICIT, IMPLICIT, dicom

JPEG_BASELINE, JPEG_LS, HTJ2K, RLE = (
    f"1.2.840.10008.1.2.{end}" for end in ("4.50", "4.80", "4.201", "5")
)  # fmt: skip


@pytest.mark.parametrize(
    ("compression", "name"),
    [(None, "none"), ("jpeg", "JPEG"), ("lzw", "LZW"), ("zlib", "Deflate"), ("jpeg2000", "JPEG 2000")],
)
def test_a_tiff_is_what_its_largest_image_is(tmp_path: Path, compression: str | None, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    path = tmp_path / "slide.bif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels[::4, ::4], compression="deflate" if compression != "zlib" else None, photometric="rgb")
        tiff.write(pixels, compression=compression, photometric="rgb", tile=(32, 32))
    assert stored_codec(path) == name


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (EXPLICIT, "none"), (IMPLICIT, "none"), (JPEG_BASELINE, "JPEG"), (JPEG_LS, "JPEG-LS"), (HTJ2K, "JPEG 2000"),
        (RLE, "RLE"), ("1.2.3.4.5", "unknown"),
    ],
)  # fmt: skip
def test_a_dicom_file_is_what_its_transfer_syntax_says(tmp_path: Path, syntax: str, name: str) -> None:
    path = tmp_path / "slide.dcm"
    path.write_bytes(dicom("1.2.3", syntax=syntax))
    assert stored_codec(path) == name


@pytest.mark.parametrize(
    ("said", "name"), [("JPEG", "JPEG"), ("bmp24", "BMP24"), ("DOE^JANE", "unknown"), (None, "unknown")]
)
def test_an_mrxs_is_what_its_index_says_and_no_other_word_of_it_is_shown(
    tmp_path: Path, said: str | None, name: str
) -> None:
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"picture")
    if said is not None:
        (tmp_path / "slide").mkdir()
        text = f"[LAYER_0_LEVEL_0_SECTION]\r\nIMAGE_FORMAT = {said}\r\nOVERLAP_X = 0\r\n"
        (tmp_path / "slide/Slidedat.ini").write_text(text, encoding="utf-8")
    assert stored_codec(path) == name


def test_what_is_neither_has_no_known_codec(tmp_path: Path) -> None:
    path = tmp_path / "slide.xyz"
    path.write_bytes(b"no slide" * 100)
    assert stored_codec(path) == "unknown"
