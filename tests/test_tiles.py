"""The pixels of one tile: the area average of its rectangle, alike at every scanner's resolution."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pathoml.artefacts import TileFlag
from pathoml.errors import MissingMppError, NotBrightfieldError, NoTissueError
from pathoml.slides import ReadPlan, Slide, SlideGeometry, TileState, open_slide
from pathoml.slides.tiff_layout import tiled_images
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiles import Look, judge_tiles, lay_tiles, tissue_grid
from pathoml.tiling import Rejection, TilingSettings, make_grid, plan_reading
from pathoml.tissue import TissueMask

PLAN = TissuePlan(
    seed=(7, 0), width_um=560.0, height_um=448.0, tissue_area_mm2=0.12, necrosis=0.2, lymphocytes=0.2,
    tumour=0.5, glands=0.3,
)  # fmt: skip


def read_tile(slide: Slide, corner: tuple[int, int], plan: ReadPlan) -> np.ndarray:
    out = np.empty((1, plan.tile_px, plan.tile_px, 3), dtype=np.uint8)
    assert slide.tile_reader([corner], plan).read(0, 1, out)[0] != TileState.LOST
    return out[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tissue scanned at three resolutions."""
    folder = tmp_path_factory.mktemp("tiles")
    for mpp in (0.25, 0.5, 1.0):
        draw_slide(folder / f"{mpp}.tif", SlideSpec("s", PLAN, mpp, HOSPITALS[3].stain))
    return folder


def tiles_of(path: Path) -> dict[tuple[int, int], np.ndarray]:
    with open_slide(path) as slide:
        grid = tissue_grid(slide, Look(), TilingSettings(max_enlargement=2))
        where = [tuple(one) for one in grid.grid.tolist()]
        return {at: read_tile(slide, (x, y), grid.plan) for at, (x, y) in zip(where, grid.coords.tolist(), strict=True)}


def test_a_tile_of_a_finer_slide_is_the_area_average_of_its_rectangle(folder: Path) -> None:
    with open_slide(folder / "0.25.tif") as slide:
        plan = plan_reading(slide.geometry, TilingSettings())
        tile = read_tile(slide, (901, 453), plan)
        rectangle = slide.read_region((901, 453), 0, (448, 448)).pixels
    average = rectangle.astype(float).reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
    assert average.std() > 10, "a tile of plain glass would prove nothing"
    np.testing.assert_allclose(tile, average, atol=0.51)


def test_a_tile_at_native_resolution_is_the_stored_pixels(folder: Path) -> None:
    with open_slide(folder / "0.5.tif") as slide:
        tile = read_tile(slide, (451, 227), plan_reading(slide.geometry, TilingSettings()))
        np.testing.assert_array_equal(tile, slide.read_region((451, 227), 0, (224, 224)).pixels)


def test_the_same_tissue_scanned_finer_gives_similar_tiles(folder: Path) -> None:
    fine, coarse = tiles_of(folder / "0.25.tif"), tiles_of(folder / "0.5.tif")
    shared = sorted(fine.keys() & coarse.keys())
    assert len(shared) >= 6
    for where in shared:
        one, other = (cv2.GaussianBlur(tiles[where], (0, 0), 2).ravel().astype(float) for tiles in (fine, coarse))
        assert np.corrcoef(one, other)[0, 1] > 0.95, where
        assert abs(one.mean() - other.mean()) < 3, where


def test_neighbouring_tiles_are_not_similar(folder: Path) -> None:
    """What the test above would say of two tiles that do not show the same place."""
    tiles = tiles_of(folder / "0.5.tif")
    first, *others = (cv2.GaussianBlur(tile, (0, 0), 2).ravel().astype(float) for tile in tiles.values())
    assert max(np.corrcoef(first, other)[0, 1] for other in others) < 0.8


def test_a_coarser_slide_is_enlarged_and_keeps_its_place(folder: Path) -> None:
    enlarged, native = tiles_of(folder / "1.0.tif"), tiles_of(folder / "0.5.tif")
    for where in enlarged.keys() & native.keys():
        one, other = (cv2.GaussianBlur(tiles[where], (0, 0), 4).ravel().astype(float) for tiles in (enlarged, native))
        assert enlarged[where].shape == (224, 224, 3)
        assert np.corrcoef(one, other)[0, 1] > 0.9, where


def test_a_tile_over_the_edge_is_padded_with_background(folder: Path) -> None:
    with open_slide(folder / "0.5.tif") as slide:
        tile = read_tile(slide, (1120 - 100, 0), plan_reading(slide.geometry, TilingSettings()))
    assert (tile[:, 100:] == 255).all()
    assert (tile[:, :100] < 255).any()


def spoiled(path: Path, target: Path, levels: tuple[int, ...]) -> Path:
    """Damage the middle stored tile of some levels."""
    data = bytearray(path.read_bytes())
    images = tiled_images(path)
    for level in levels:
        image = images[level]
        middle = image.rows // 2 * image.columns + image.columns // 2
        start = int(image.offsets[middle]) + int(image.counts[middle]) // 3
        data[start : start + 40] = b"\xff\xd8" * 20
    target.write_bytes(data)
    return target


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tissue of 4 mm with glass around it and three levels, so that the coarsest has few stored tiles."""
    rng = np.random.default_rng(4)
    picture = np.full((3600, 4400, 3), 243, dtype=np.uint8)
    picture[400:-400, 400:-400] = rng.normal((205, 120, 170), 12, (2800, 3600, 3)).clip(0, 255)
    path = tmp_path_factory.mktemp("pyramid") / "whole.tif"
    write_pyramid(path, picture, mpp=1.0, downsamples=(2, 8))
    return path


@pytest.mark.parametrize("levels", [(2,), (1,), (1, 2)])
def test_a_damaged_tile_of_an_overview_level_costs_no_tile(
    pyramid: Path, tmp_path: Path, levels: tuple[int, ...]
) -> None:
    tiling, look = TilingSettings(target_mpp=1.0), Look()
    with open_slide(pyramid) as whole, open_slide(spoiled(pyramid, tmp_path / "bad.tif", levels)) as bad:
        expected, laid = lay_tiles(whole, look, tiling).grid, lay_tiles(bad, look, tiling).grid
        assert not judge_tiles(bad, laid, look.quality).lost.any()
    np.testing.assert_array_equal(laid.grid, expected.grid)
    np.testing.assert_allclose(laid.tissue_share, expected.tissue_share, atol=0.02)


def test_what_is_damaged_at_every_level_is_tried_lost_and_counted(pyramid: Path, tmp_path: Path) -> None:
    tiling, look = TilingSettings(target_mpp=1.0), Look()
    with open_slide(pyramid) as whole, open_slide(spoiled(pyramid, tmp_path / "bad.tif", (0, 1, 2))) as bad:
        expected, laid = lay_tiles(whole, look, tiling).grid, lay_tiles(bad, look, tiling).grid
        lost = judge_tiles(bad, laid, look.quality).lost
    np.testing.assert_array_equal(laid.grid, expected.grid)
    assert 1 <= lost.sum() <= 9, "those that touch one stored tile of 256 px"


def overlapping_grid(slide: Slide) -> np.ndarray:
    return tissue_grid(slide, Look(), TilingSettings(overlap=0.5)).tissue_share


def test_every_tile_of_a_grid_holds_the_least_share_of_tissue(folder: Path) -> None:
    with open_slide(folder / "0.5.tif") as slide:
        shares = overlapping_grid(slide)
    assert len(shares) > 20
    assert shares.min() >= 0.5


def test_a_white_slide_has_no_tissue(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "white.tif", np.full((900, 900, 3), 244, dtype=np.uint8), mpp=0.5)
    with (
        open_slide(tmp_path / "white.tif") as slide,
        pytest.raises(NoTissueError, match=r"white\.tif: no tile holds 50% tissue; .*lower tissue\.min_saturation"),
    ):
        tissue_grid(slide, Look(), TilingSettings())


def test_a_slide_without_resolution_is_refused_before_it_is_searched(data_dir: Path) -> None:
    with (
        open_slide(data_dir / "slides/TCGA-CR-7395-01A-01-TS1.svs") as slide,
        pytest.raises(MissingMppError, match=r"TCGA-CR-7395-01A-01-TS1\.svs: no microns-per-pixel .*column mpp"),
    ):
        tissue_grid(slide, Look(), TilingSettings())


def test_the_real_skin_slide_gives_a_third_of_its_grid(data_dir: Path) -> None:
    with open_slide(data_dir / "slides/CMU-1-Small-Region.svs") as slide:
        grid = tissue_grid(slide, Look(), TilingSettings())
    assert 40 <= len(grid) <= 48, "14 x 10 tiles cover the slide, 34 % of it is tissue"


def test_a_fluorescence_slide_is_refused_as_such(data_dir: Path) -> None:
    with (
        open_slide(data_dir / "slides" / "hamamatsu_test3-DAPI.ndpi") as slide,
        pytest.raises(NotBrightfieldError, match=r"dark all over, as in fluorescence"),
    ):
        tissue_grid(slide, Look(), TilingSettings())


def test_black_that_was_never_scanned_is_no_fluorescence(tmp_path: Path) -> None:
    picture = np.full((600, 600, 3), 240, dtype=np.uint8)
    picture[:, :330] = 0
    picture[200:500, 400:580] = (200, 120, 170)
    Image.fromarray(picture).save(tmp_path / "half.png")
    with open_slide(tmp_path / "half.png", mpp=4.0) as slide:
        laid = lay_tiles(slide, Look(), TilingSettings(target_mpp=4.0, tile_px=60))
    assert len(laid.grid) > 0


def test_an_artefact_that_is_not_dropped_is_no_reason() -> None:
    tissue, bubble = np.zeros((100, 100), dtype=bool), np.zeros((100, 100), dtype=bool)
    tissue[:, :30] = True
    bubble[:, 20:90] = True
    geometry = SlideGeometry(1600, 1600, (1.0,), (0.5, 0.5))
    grid = make_grid(geometry, TissueMask(tissue, {TileFlag.BUBBLE: bubble}), TilingSettings())
    assert set(grid.reasons.tolist()) <= {Rejection.LITTLE_TISSUE, Rejection.EDGE, Rejection.NO_TISSUE}
