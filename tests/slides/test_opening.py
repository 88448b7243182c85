"""What is no slide, or no longer one, is told apart; each finding has its own code."""

import errno
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from pathoml.errors import (
    DamagedSlideError,
    SlideError,
    SlideNotFoundError,
    SlidePermissionError,
    TooLargeSlideError,
    UnreadableSlideError,
)
from pathoml.slides import open_slide
from pathoml.slides.openslide_backend import OpenSlideSlide
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiling import TilingSettings, plan_reading

CMU = "slides/CMU-1-Small-Region.svs"
SKIN = "slides/TCGA-CR-7395-01A-01-TS1.svs"
NDPI = "slides/hamamatsu_test3-DAPI.ndpi"
DICOM = "slides/dicom_camelyon_jpeg2000.dcm"
OME = "slides/ome_OS-1-detail_HE.ome.tif"


def code_of(path: Path) -> str:
    """Open a slide and read its corner; return the code of what went wrong."""
    try:
        with open_slide(path) as slide:
            slide.read_region((0, 0), 0, (64, 64))
    except SlideError as error:
        found = error
    else:
        return ""
    assert str(found).startswith(f"{path.name}: ")
    assert len(str(found).split()) >= 6, "a sentence"
    return found.code


def picture(height: int = 300, width: int = 400) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns % 256, rows % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def as_empty(path: Path) -> None:
    path.touch()


def as_html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>", encoding="ascii")


def as_text(path: Path) -> None:
    path.write_text("Die Datei liegt auf dem anderen Server.\nä" * 300, encoding="utf-8")


def as_jpeg(path: Path) -> None:
    Image.fromarray(picture()).save(path, format="JPEG")


def as_png(path: Path) -> None:
    Image.fromarray(picture()).save(path, format="PNG")


def as_folder(path: Path) -> None:
    path.mkdir()


def as_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 10)


def as_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def as_zeros(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def as_nothing(path: Path) -> None:
    pass


def as_multichannel(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((5, 256, 256), dtype=np.uint16), photometric="minisblack")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (as_empty, "EMPTY"), (as_html, "TEXT"), (as_text, "TEXT"), (as_jpeg, "RENAMED_IMAGE"),
        (as_png, "RENAMED_IMAGE"), (as_folder, "NOT_AN_IMAGE"), (as_zip, "NOT_AN_IMAGE"), (as_noise, "NOT_AN_IMAGE"),
        (as_zeros, "DAMAGED"), (as_nothing, "NOT_FOUND"), (as_multichannel, "UNSUPPORTED"),
    ],
)  # fmt: skip
def test_what_is_no_slide_has_its_own_code(tmp_path: Path, make: Callable[[Path], None], code: str) -> None:
    make(tmp_path / "case.svs")
    assert code_of(tmp_path / "case.svs") == code


@pytest.mark.parametrize("name", [CMU, SKIN, NDPI, OME])
@pytest.mark.parametrize("percent", [10, 30, 50, 70, 90, 99])
def test_a_slide_cut_short_is_truncated(data_dir: Path, tmp_path: Path, name: str, percent: int) -> None:
    whole = (data_dir / name).read_bytes()
    path = tmp_path / f"cut{Path(name).suffix}"
    path.write_bytes(whole[: len(whole) * percent // 100])
    assert code_of(path) == "TRUNCATED"


@pytest.mark.parametrize("percent", [20, 60, 99])
def test_a_file_whose_directory_comes_first_is_truncated_too(tmp_path: Path, percent: int) -> None:
    path = tmp_path / "first.tif"
    tifffile.imwrite(path, picture(900, 900), tile=(256, 256), compression="jpeg", photometric="rgb")
    whole = path.read_bytes()
    assert struct.unpack("<I", whole[4:8])[0] < 100, "the directory comes first"
    path.write_bytes(whole[: len(whole) * percent // 100])
    assert code_of(path) == "TRUNCATED"


@pytest.mark.parametrize("name", [CMU, SKIN])
def test_a_slide_whose_second_half_is_zeros_is_refused(data_dir: Path, tmp_path: Path, name: str) -> None:
    whole = (data_dir / name).read_bytes()
    path = tmp_path / "zeros.svs"
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert code_of(path) in {"TRUNCATED", "DAMAGED"}


def test_an_mrxs_without_its_folder_says_which_files_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "case.mrxs"
    as_jpeg(path)
    with pytest.raises(UnreadableSlideError, match="its folder case/ is missing; copy the folder beside"):
        open_slide(path)
    (tmp_path / "case").mkdir()
    with pytest.raises(UnreadableSlideError, match=r"Slidedat\.ini is missing"):
        open_slide(path)
    (tmp_path / "case/Slidedat.ini").write_text("[DATAFILE]\nFILE_COUNT=2\nFILE_0=Data0000.dat\nFILE_1=Data0001.dat\n")
    (tmp_path / "case/Data0000.dat").touch()
    with pytest.raises(UnreadableSlideError, match="1 of its 2 data files are missing in case/") as caught:
        open_slide(path)
    assert caught.value.code == "MISSING_FILES"


def test_a_damaged_dicom_file_is_called_so(data_dir: Path, tmp_path: Path) -> None:
    whole = (data_dir / DICOM).read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[:2000])
    assert code_of(path) == "DAMAGED"


def test_a_dicom_series_without_its_image_says_that_files_are_missing(data_dir: Path, tmp_path: Path) -> None:
    """Only the label of the series was copied."""
    content = (data_dir / DICOM).read_bytes()
    assert content.count(b"VOLUME") > 0
    path = tmp_path / "label.dcm"
    path.write_bytes(content.replace(b"VOLUME", b"LABEL "))
    assert code_of(path) == "MISSING_FILES"


def test_a_file_that_may_not_be_read_is_a_matter_of_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.svs"
    as_noise(path)
    opened = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:  # root may read everything
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SlidePermissionError, match=r"locked\.svs: this user may not read it") as caught:
        open_slide(path)
    assert caught.value.code == "NO_PERMISSION"


def test_a_folder_that_may_not_be_entered_is_a_matter_of_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.svs"
    as_noise(path)

    def refuse(self: Path, **kwargs: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(SlidePermissionError, match="may not read it"):
        open_slide(path)


def test_a_claim_of_an_absurd_size_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    write_pyramid(path, picture(), mpp=0.5, downsamples=())
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(3_000_000)
    assert code_of(path) == "TOO_LARGE"


def test_a_picture_too_large_for_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.png"
    as_png(path)
    monkeypatch.setattr("pathoml.slides.image_slide.MAX_PICTURE_PIXELS", 300 * 400 - 1)
    with pytest.raises(TooLargeSlideError, match=r"big\.png: a plain picture of 400 x 300 px .* pyramidal TIFF"):
        open_slide(path)


def test_each_error_is_also_the_builtin_a_caller_expects() -> None:
    assert issubclass(SlideNotFoundError, FileNotFoundError)
    assert issubclass(UnreadableSlideError, ValueError)
    assert issubclass(SlidePermissionError, PermissionError)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_a_plain_picture_is_read_as_it_is_once_the_manifest_gives_its_resolution(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(picture()).save(path)
    with open_slide(path) as slide, pytest.raises(SlideError, match="column mpp"):
        plan_reading(slide.geometry, TilingSettings(), path.name)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.geometry.checked_mpp("picture") == (0.5, 0.5)
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (400, 300)).pixels, picture())
        beyond = slide.read_region((390, -5), 0, (20, 10))
    assert beyond.present is not None
    assert (beyond.pixels[~beyond.present] == 255).all()
    np.testing.assert_array_equal(beyond.pixels[5:, :10], picture()[:5, 390:])


def test_transparent_parts_of_a_picture_become_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.full((300, 400), 255, dtype=np.uint8)])
    rgba[:50, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    with open_slide(tmp_path / "clear.png", mpp=0.5) as slide:
        region = slide.read_region((0, 0), 0, (400, 300))
        pixels = region.pixels
    assert region.present is not None
    np.testing.assert_array_equal(region.present, rgba[..., 3] > 0)
    assert (pixels[:50] == 255).all()
    np.testing.assert_array_equal(pixels[50:], picture()[50:])


def test_an_ome_tiff_that_openslide_refuses_is_read_as_tifffile_reads_it(data_dir: Path) -> None:
    with pytest.raises(openslide.OpenSlideError, match="Unsupported or missing image file"):
        openslide.OpenSlide(data_dir / OME)
    with open_slide(data_dir / OME) as slide:
        assert slide.geometry.checked_mpp("ome") == pytest.approx((0.22710, 0.22710), rel=1e-4)
        region = slide.read_region((300, 200), 0, (801, 901))
        assert region.present is None
        np.testing.assert_array_equal(region.pixels, tifffile.imread(data_dir / OME)[200:1101, 300:1101])


def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.svs")
    assert stat.S_ISFIFO((tmp_path / "pipe.svs").stat().st_mode)
    assert code_of(tmp_path / "pipe.svs") == "NOT_AN_IMAGE"


def test_a_directory_at_an_absurd_place_is_beyond_the_end(tmp_path: Path) -> None:
    path = tmp_path / "far.tif"
    path.write_bytes(b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 + 5) + bytes(100))
    assert code_of(path) == "TRUNCATED"


def test_directories_in_a_circle_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "circle.tif"
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 256, 4, 1, 300) + struct.pack("<I", 8) + bytes(100))
    assert code_of(path) == "DAMAGED"


def test_a_complete_mrxs_reaches_openslide_though_its_first_file_is_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "case.mrxs"
    as_jpeg(path)
    (tmp_path / "case").mkdir()
    (tmp_path / "case/Slidedat.ini").write_text("[DATAFILE]\nFILE_0=Data0000.dat\n")
    (tmp_path / "case/Data0000.dat").touch()
    asked: list[Path] = []

    def remember(self: OpenSlideSlide, path: Path, *, mpp: float | None = None) -> None:
        asked.append(path)
        raise UnreadableSlideError("the real one would open here") from openslide.OpenSlideError("mock")

    monkeypatch.setattr(OpenSlideSlide, "__init__", remember)
    with pytest.raises(DamagedSlideError, match=r"case\.mrxs: all files of its folder are there.*\(mock\)"):
        open_slide(path)
    assert asked == [path]


def test_a_complete_mrxs_that_openslide_refuses_is_not_called_an_ordinary_picture(tmp_path: Path) -> None:
    path = tmp_path / "case.mrxs"
    as_jpeg(path)
    (tmp_path / "case").mkdir()
    (tmp_path / "case/Slidedat.ini").write_text("[GENERAL]\nSLIDE_VERSION=01.02\n[DATAFILE]\nFILE_0=Data0000.dat\n")
    (tmp_path / "case/Data0000.dat").write_bytes(bytes(100))
    assert code_of(path) == "DAMAGED"
    (tmp_path / "case/Data0000.dat").unlink()
    assert code_of(path) == "MISSING_FILES"


def test_an_ndpi_whose_directory_lies_past_four_gigabytes_is_followed(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "far.ndpi"
    whole = (data_dir / NDPI).read_bytes()
    (first,) = struct.unpack("<I", whole[4:8])
    (entries,) = struct.unpack("<H", whole[first : first + 2])
    directory = whole[first : first + 2 + 12 * entries + 8 + 4 * entries]  # the high words of its offsets follow it
    far = 2**32 + 16
    with path.open("wb") as stream:  # sparse: takes no room
        stream.write(whole[:4] + struct.pack("<Q", far) + whole[12:])
        stream.seek(far)
        stream.write(directory)
    with openslide.OpenSlide(path) as reference:
        size = reference.dimensions
    with open_slide(path) as slide:
        assert (slide.geometry.width_px, slide.geometry.height_px) == size


def write_ome(path: Path, *, compression: str | None = None, subifds: bool = True) -> np.ndarray:
    pixels = picture(1024, 1280)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": compression}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        tiff.write(pixels, subifds=2 if subifds else 0, metadata=metadata, **options)
        if subifds:
            tiff.write(pixels[::2, ::2], subfiletype=1, **options)
            tiff.write(pixels[::4, ::4], subfiletype=1, **options)
        tiff.write(pixels[::8, ::8], tile=(64, 64), photometric="rgb", metadata={"axes": "YXS"})  # a macro image
    return pixels


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_an_ome_pyramid_keeps_its_levels_and_resolution_and_leaves_other_images_out(
    tmp_path: Path, compression: str | None
) -> None:
    pixels = write_ome(tmp_path / "pyramid.ome.tif", compression=compression)
    with open_slide(tmp_path / "pyramid.ome.tif") as slide:
        assert slide.geometry.level_downsamples == (1.0, 2.0, 4.0)
        assert slide.geometry.mpp == (0.25, 0.25)
        np.testing.assert_array_equal(slide.read_region((100, 60), 0, (600, 500)).pixels, pixels[60:560, 100:700])
        np.testing.assert_array_equal(
            slide.read_region((128, 64), 2, (100, 90)).pixels, pixels[::4, ::4][16:106, 32:132]
        )


def test_a_thumbnail_in_front_of_the_slide_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture(128, 128), photometric="rgb")
        tiff.write(picture(900, 900), tile=(256, 256), photometric="rgb", compression="zstd")
    assert code_of(path) == "UNSUPPORTED"


def test_a_share_that_fails_while_a_slide_is_opened_gives_a_code_and_leaves_no_file_open(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, count: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else None
    monkeypatch.setattr("os.pread", fail)
    for _ in range(5):
        with open_slide(data_dir / CMU) as slide:
            assert slide.metadata["tier"] == "openslide", "what cannot be compared is left to OpenSlide"
    if before is not None:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_a_directory_that_cannot_be_read_is_a_code_and_no_traceback(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pathoml.slides.opening.check_extent", fail)
    with pytest.raises(UnreadableSlideError, match=r"cannot be read .*is the share mounted"):
        open_slide(data_dir / CMU)


def test_a_picture_with_a_broken_tag_is_read_and_the_oddity_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "odd.tif"
    Image.fromarray(picture()).save(path, description="a remark long enough to lie outside the directory")
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["ImageDescription"]
    with path.open("r+b") as stream:
        stream.seek(tag.offset + 4)
        stream.write(struct.pack("<I", 10**6))
    with caplog.at_level("INFO"), open_slide(path, mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (400, 300)).pixels, picture())
    assert "odd.tif: Pillow says:" in caplog.text


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    write_pyramid(path, np.full((512, 512, 3), 200, dtype=np.uint8), mpp=0.5)
    with open_slide(str(path)) as slide:
        assert slide.path == path
