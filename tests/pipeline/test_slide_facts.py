"""What `slide info` and `slide thumbnail` say and show of one slide."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from pathoml.artefacts import QualitySettings
from pathoml.cli.root import app
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import SlideError
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.geojson import mask_of_features, read_features
from pathoml.looks import look_at
from pathoml.pipeline.slide_facts import slide_facts, write_regions_of, write_sheet_of
from pathoml.slides import open_slide, whole_slide_image
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiles import Look, TissueFinder, lay_tiles
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings, GeojsonTissueSettings, ModelTissueSettings


def test_a_real_slide_is_described_with_tier_codec_and_speed(data_dir: Path) -> None:
    facts = dict(slide_facts(data_dir / "slides/CMU-1-Small-Region.svs"))
    assert facts["size"] == "2220 x 2967 px"
    assert facts["microns per pixel"] == "0.499 x 0.499"
    assert facts["stored tiles"] == "240 x 240 px"
    assert (facts["vendor"], facts["codec"], facts["tier"]) == ("aperio", "JPEG", "native tiles")
    assert facts["reading speed"].endswith("tiles/s of 256 px at 0.5 microns per pixel on one thread")


def test_a_slide_without_resolution_is_described_and_told_what_to_fill_in(data_dir: Path) -> None:
    path = data_dir / "slides/TCGA-CR-7395-01A-01-TS1.svs"
    facts = dict(slide_facts(path))
    assert "manifest's column mpp" in facts["microns per pixel"]
    assert facts["usable"].startswith("no, NO_MPP")
    assert facts["reading speed"].endswith("tiles/s of 256 px at the resolution that is stored on one thread")
    assert dict(slide_facts(path, mpp=0.25))["reading speed"].endswith("at 0.5 microns per pixel on one thread")


@pytest.mark.parametrize(
    ("name", "codec", "code"),
    [("dicom_camelyon_jpeg2000.dcm", "JPEG 2000", "BAD_MPP"), ("hamamatsu_test3-DAPI.ndpi", "JPEG", "NOT_BRIGHTFIELD")],
)
def test_codec_and_speed_are_said_of_slides_that_openslide_reads_usable_or_not(
    data_dir: Path, name: str, codec: str, code: str
) -> None:
    facts = dict(slide_facts(data_dir / "slides" / name))
    assert (facts["tier"], facts["codec"]) == ("openslide", codec)
    assert facts["usable"].startswith(f"no, {code}")
    assert "tiles/s of 256 px" in facts["reading speed"]


def test_a_contact_sheet_is_written_or_the_reason_raised(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "slides/TCGA-CR-7395-01A-01-TS1.svs"
    write_sheet_of(path, tmp_path / "sheet.png", mpp=0.25)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1100
    with pytest.raises(SlideError, match="column mpp"):
        write_sheet_of(path, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_command_draws_tissue_and_tiles_unless_it_is_asked_for_the_picture_alone(
    data_dir: Path, tmp_path: Path
) -> None:
    path, sheet, plain = data_dir / "slides/CMU-1-Small-Region.svs", tmp_path / "sheet.png", tmp_path / "plain.png"
    write_sheet_of(path, tmp_path / "expected.png")
    assert CliRunner().invoke(app, ["slide", "thumbnail", str(path), "-o", str(sheet)]).exit_code == 0
    assert sheet.read_bytes() == (tmp_path / "expected.png").read_bytes()
    options = ["--plain", "--picture-mpp", "4", "-o", str(plain)]
    assert CliRunner().invoke(app, ["slide", "thumbnail", str(path), *options]).exit_code == 0
    with open_slide(path) as slide:
        picture = whole_slide_image(slide, 4)
    np.testing.assert_array_equal(cv2.imread(str(plain))[..., ::-1], picture)


def test_regions_of_a_real_slide_come_back_as_the_mask_and_the_tiles_they_were(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "slides/TCGA-CR-7395-01A-01-TS1.svs"
    tiles = write_regions_of(path, tmp_path / "regions.geojson", mpp=0.25)
    with open_slide(path, mpp=0.25) as slide:
        laid, geometry = lay_tiles(slide, Look(), TilingSettings()), slide.geometry
    features = read_features(tmp_path / "regions.geojson")
    by_class = {}
    for feature in features:
        by_class.setdefault(feature["properties"]["classification"]["name"], []).append(feature)
    assert len(by_class["Tile"]) == tiles == len(laid.grid) > 10
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in by_class["Tile"]])
    np.testing.assert_array_equal(rings.min(axis=1), laid.grid.coords)
    np.testing.assert_allclose(
        rings.max(axis=1) - rings.min(axis=1), np.tile(laid.grid.footprint_level0_px, (tiles, 1)), rtol=1e-12
    )
    measured = [feature["properties"]["measurements"] for feature in by_class["Tile"]]
    np.testing.assert_array_equal([(one["row"], one["column"]) for one in measured], laid.grid.grid)
    np.testing.assert_array_equal(np.float32([one["tissue share"] for one in measured]), laid.grid.tissue_share)
    mask = mask_of_features(by_class["Tissue"], geometry, laid.mask.tissue.shape)
    np.testing.assert_array_equal(mask, laid.mask.tissue)


def test_regions_that_the_command_wrote_are_read_as_the_tissue_of_the_same_tiles(
    data_dir: Path, tmp_path: Path
) -> None:
    path = data_dir / "slides/CMU-1-Small-Region.svs"
    tissue = GeojsonTissueSettings(folder=tmp_path, mask_mpp=8.0)
    tiling = TilingSettings(tile_px=128, min_tissue_share=0.3)
    recipe = Recipe(ClassicalTissueSettings(), tiling, Lite0Settings(), ExtractSettings())
    write_regions_of(path, tmp_path / "one.geojson", recipe=recipe)
    with open_slide(path) as slide:
        drawn = lay_tiles(slide, Look(), tiling)
        read = lay_tiles(slide, look_at(tissue, QualitySettings(), "one", _no_network), tiling)
    assert len(drawn.grid) > 80
    np.testing.assert_array_equal(read.mask.tissue, drawn.mask.tissue)
    np.testing.assert_array_equal(read.grid.coords, drawn.grid.coords)
    np.testing.assert_array_equal(read.grid.reasons, drawn.grid.reasons)


def _no_network(settings: ModelTissueSettings) -> TissueFinder:
    raise AssertionError("no network is asked for")


def test_a_slide_whose_tiles_cannot_be_read_is_not_called_usable(tmp_path: Path) -> None:
    """Its directory is whole, so that it opens: all tiles zeroed, and all below the first third."""
    path = tmp_path / "slide.tif"
    write_pyramid(
        path, np.random.default_rng(0).integers(90, 250, (1800, 900, 3), dtype=np.uint8), mpp=0.5, downsamples=()
    )
    with tifffile.TiffFile(path) as tiff:
        places = list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))
    whole = path.read_bytes()
    for first, told in ((0, "no, DAMAGED: none of"), (len(places) // 3, "yes, but ")):
        data = bytearray(whole)
        for offset, count in places[first:]:
            data[offset + 2 : offset + count] = bytes(count - 2)
        path.write_bytes(bytes(data))
        facts = dict(slide_facts(path))
        assert facts["usable"].startswith(told), facts["usable"]
        assert ("unknown" in facts["reading speed"]) == (first == 0)
