"""Slides as vendors write them, as accidents leave them, and what of them may be seen."""

import math
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import (
    BadMppError,
    DamagedSlideError,
    MissingMppError,
)
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.slides import SlideGeometry, open_slide
from pathoml.slides.openslide_backend import OpenSlideSlide
from pathoml.testing.pyramid import TILE_PX, write_pyramid
from pathoml.tiling import TilingSettings, plan_reading
from pathoml.tissue import ClassicalTissueSettings

CMU = "slides/CMU-1-Small-Region.svs"
ALLOWED = {"openslide.vendor", "openslide.objective-power"}


def picture(height: int = 700, width: int = 900) -> np.ndarray:
    """Smooth colours that JPEG keeps well, different everywhere."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([60 + columns * 150 / width, 60 + rows * 150 / height, np.full_like(rows, 120)], -1).astype(
        np.uint8
    )


def write_slide(path: Path, *, downsamples: tuple[int, ...] = ()) -> Path:
    write_pyramid(path, picture(), mpp=0.5, downsamples=downsamples)
    return path


def set_resolution(path: Path, per_unit: tuple[int, int], unit: int) -> Path:
    """Patch the resolution tags of the first directory: 1 no unit, 2 inch, 3 centimetre."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[0].tags
        for name in ("XResolution", "YResolution"):
            tags[name].overwrite(per_unit)
        tags["ResolutionUnit"].overwrite(unit)
    return path


def spoil_tile(path: Path, index: int, *, level: int = 0) -> None:
    """Overwrite the JPEG stream of one tile with zeros."""
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[level].dataoffsets[index], tiff.pages[level].databytecounts[index]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes(count))


@pytest.mark.parametrize(
    ("name", "size", "levels", "mpp"),
    [
        (CMU, (2220, 2967), 1, 0.499),
        ("slides/TCGA-CR-7395-01A-01-TS1.svs", (4443, 3567), 2, None),
        ("slides/dicom_camelyon_jpeg2000.dcm", (1696, 812), 1, 28.97),
        ("slides/hamamatsu_test3-DAPI.ndpi", (3968, 4864), 7, 0.228),
        ("slides/ome_OS-1-detail_HE.ome.tif", (1101, 1101), 1, 0.2271),
    ],
)
def test_the_geometry_of_real_slides_is_what_their_sources_say(
    data_dir: Path, name: str, size: tuple[int, int], levels: int, mpp: float | None
) -> None:
    with open_slide(data_dir / name) as slide:
        geometry = slide.geometry
    assert (geometry.width_px, geometry.height_px) == size
    assert len(geometry.level_downsamples) == levels
    assert geometry.mpp is None if mpp is None else geometry.mpp == pytest.approx((mpp, mpp), rel=2e-3)


@pytest.mark.parametrize(
    ("per_unit", "unit"),
    [((1, 1), 1), ((1, 0), 3), ((0, 1), 3), ((0, 0), 3), ((72, 1), 2)],
    ids=["no unit", "mpp 0", "mpp infinite", "mpp NaN", "72 dpi: mpp 352.8"],
)
def test_an_unusable_resolution_is_refused_with_the_manifest_column(
    tmp_path: Path, per_unit: tuple[int, int], unit: int
) -> None:
    path = set_resolution(write_slide(tmp_path / "s.tif"), per_unit, unit)
    with (
        open_slide(path) as slide,
        pytest.raises(
            (MissingMppError, BadMppError), match=r"s\.tif: .*give the right value in the manifest's column mpp"
        ),
    ):
        plan_reading(slide.geometry, TilingSettings(), slide.path.name)


def test_a_decimal_comma_in_a_vendors_field_is_left_to_openslide(data_dir: Path, tmp_path: Path) -> None:
    content = (data_dir / CMU).read_bytes()
    assert content.count(b"MPP = 0.4990") > 0
    path = tmp_path / "comma.svs"
    path.write_bytes(content.replace(b"MPP = 0.4990", b"MPP = 0,4990"))
    with openslide.OpenSlide(path) as reference:
        said = reference.properties.get("openslide.mpp-x")
    with open_slide(path) as slide:
        if said is None:
            with pytest.raises(MissingMppError, match="no microns-per-pixel in the metadata"):
                slide.geometry.checked_mpp(path.name)
        else:
            assert slide.geometry.mpp == pytest.approx((float(said), float(said)))


@pytest.mark.parametrize("mpp", [0.0, math.nan, math.inf, -0.5, 352.8, 0.049, 10.1])
def test_an_absurd_override_is_refused_like_absurd_metadata(tmp_path: Path, mpp: float) -> None:
    with (
        open_slide(write_slide(tmp_path / "s.tif"), mpp=mpp) as slide,
        pytest.raises(
            BadMppError,
            match=r"(outside 0\.05-10\.0|coarser than 10\.0); .*give the right value in the manifest's column mpp",
        ),
    ):
        plan_reading(slide.geometry, TilingSettings(), slide.path.name)


def test_the_manifest_overrides_a_missing_resolution(data_dir: Path) -> None:
    with open_slide(data_dir / "slides/TCGA-CR-7395-01A-01-TS1.svs", mpp=0.25) as slide:
        assert slide.geometry.checked_mpp("slide") == (0.25, 0.25)


@pytest.mark.parametrize("mpp", [0.05, 10.0])
def test_the_ends_of_the_plausible_range_are_accepted(mpp: float) -> None:
    assert SlideGeometry(100, 100, (1.0,), (mpp, mpp)).checked_mpp("slide") == (mpp, mpp)


def test_outside_the_slide_is_background_and_not_present(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "s.tif")) as slide:
        region = slide.read_region((850, -20), 0, (100, 60))
    assert region.present is not None
    expected = np.zeros((60, 100), dtype=bool)
    expected[20:, :50] = True
    np.testing.assert_array_equal(region.present, expected)
    assert (region.pixels[~expected] == 255).all()
    np.testing.assert_allclose(region.pixels[expected], picture()[:40, 850:].reshape(-1, 3), atol=8)


def test_what_is_covered_in_part_is_laid_on_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 128], [200, 100, 0, 0]]], dtype=np.uint8)
    monkeypatch.setattr(openslide.OpenSlide, "read_region", lambda *_: rgba)
    slide = OpenSlideSlide(write_slide(tmp_path / "s.tif"))
    region = slide.read_region((0, 0), 0, (3, 1))
    slide.close()
    assert region.pixels.tolist() == [[[200, 100, 0], [227, 177, 127], [255, 255, 255]]]
    assert region.present is not None
    assert region.present.tolist() == [[True, True, False]]


def test_inside_the_slide_everything_is_present(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "s.tif")) as slide:
        region = slide.read_region((100, 200), 0, (300, 250))
    assert region.present is None
    np.testing.assert_allclose(region.pixels.astype(int), picture()[200:450, 100:400], atol=8)


def test_a_tile_that_was_never_scanned_is_background_and_not_present(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        counts = list(tiff.pages[0].databytecounts)
        counts[1] = 0
        tiff.pages[0].tags["TileByteCounts"].overwrite(counts)
    with open_slide(path) as slide:
        region = slide.read_region((TILE_PX - 10, 0), 0, (20, 20))
    assert region.present is not None
    np.testing.assert_array_equal(region.present, np.repeat([[True] * 10 + [False] * 10], 20, axis=0))
    assert (region.pixels[~region.present] == 255).all()


def test_a_damaged_tile_is_lost_alone(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif")
    corners = [(x, y) for y in range(0, 700, TILE_PX) for x in range(0, 900, TILE_PX)]
    with open_slide(path) as slide:
        before = [slide.read_region(corner, 0, (TILE_PX, TILE_PX)).pixels for corner in corners]
    spoil_tile(path, 5)
    with open_slide(path) as slide:
        for index, corner in enumerate(corners):
            if index == 5:
                with pytest.raises(
                    DamagedSlideError,
                    match=r"s\.tif: (tile at \(256, 256\)|stored tile 5 of level 0)",
                ):
                    slide.read_region(corner, 0, (TILE_PX, TILE_PX))
            else:
                after = slide.read_region(corner, 0, (TILE_PX, TILE_PX)).pixels
                np.testing.assert_array_equal(after, before[index])


def test_metadata_hold_the_allow_list_and_nothing_else(data_dir: Path) -> None:
    with open_slide(data_dir / CMU) as slide:
        assert slide.metadata == {
            "vendor": "aperio", "objective_power": "20", "codec": "JPEG", "tier": "native tiles",
        }  # fmt: skip


def identifying_values(path: Path) -> list[str]:
    """Every property but the allowed ones, where it is long enough not to occur by chance."""
    with openslide.OpenSlide(path) as slide:
        values = {key: value for key, value in slide.properties.items() if key not in ALLOWED}
        sizes = {str(number) for number in slide.dimensions}
    return [value for value in values.values() if len(value) >= 5 and value not in sizes and value not in {"0.499"}]


def extracted_files(data_dir: Path, folder: Path) -> dict[str, bytes]:
    recipe = Recipe(
        ClassicalTissueSettings(), TilingSettings(min_tissue_share=0.99), Lite0Settings(), ExtractSettings(workers=0)
    )
    outcomes = extract_archive([SlideEntry("canary", data_dir / CMU, "P1", None, 2)], recipe, folder)
    assert [(one.status, one.code) for one in outcomes] == [("done", "")]
    return {path.name: path.read_bytes() for path in folder.rglob("*.*")}


def test_no_identifying_property_reaches_the_bag_or_the_ledger(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: openslide.OpenSlide) -> None:
        raise AssertionError("the label or macro image was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(refuse))
    values = identifying_values(data_dir / CMU)
    assert {"CPAPERIOCS", "b414003d-95c6-48b0-9369-8010ed517ba7"} & set(values), (
        "the canary slide has lost its canaries"
    )
    files = extracted_files(data_dir, tmp_path / "bags")
    assert set(files) == {"canary.h5", "ledger.jsonl", "metrics.jsonl", "canary.png"}
    for value in [*values, "CMU-1", "Filename"]:
        assert not [name for name, content in files.items() if value.encode() in content], value


def test_a_level_of_another_shape_is_not_taken_for_the_slide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    sizes = ((1024, 1536), (512, 768), (256, 256), (128, 192))
    with tifffile.TiffWriter(tmp_path / "odd.tif") as tiff:
        for number, size in enumerate(sizes):
            pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            tiff.write(pixels, tile=(128, 128), photometric="rgb", compression="jpeg", subfiletype=int(number > 0))
    for opened in (OpenSlideSlide(tmp_path / "odd.tif", mpp=0.5), open_slide(tmp_path / "odd.tif", mpp=0.5)):
        with opened as slide:
            assert slide.geometry.level_downsamples == (1.0, 2.0)
    assert "level 2 of 256 x 256 px has another shape" in caplog.text
