"""Artefacts on drawn pictures whose truth is known; on real tissue they are held in tests/slow/test_artefacts.py."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pathoml.artefacts import (
    MAPPED_ARTEFACTS,
    Absorption,
    QualitySettings,
    TileFlag,
    find_blood_or_pigment,
    find_bubbles,
    find_folds,
    find_ink,
    flag_name,
    sharp_share,
)
from pathoml.slides import open_slide, overview_of
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiles import Look, judge_tiles, lay_tiles, see_slide
from pathoml.tiling import TilingSettings
from tests.physical_artefacts import INKS, Specimen, bubble, disc_blur, fold, light, pen, shown

SETTINGS = QualitySettings()
MPP = 8.0


def SHARP(x: float, y: float, half: float) -> float:
    """Detail of a slide that is in focus everywhere."""
    return 0.3


def tissue_picture(side: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A pink disc with soft texture on bright glass, at 8 um a pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    tissue = np.hypot(y - side / 2, x - side / 2) < 0.4 * side
    texture = cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), 1.5)
    amount = np.where(tissue, 1 + 0.5 * texture, 0)[..., None]
    picture = 243 * 10 ** (-amount * np.array([0.15, 0.35, 0.2]))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), tissue


def specimen() -> Specimen:
    picture, tissue = tissue_picture()
    return Specimen(picture, MPP, tissue)


def test_clean_tissue_has_no_artefact() -> None:
    picture, tissue = tissue_picture()
    assert not find_ink(Absorption(picture, MPP), SETTINGS).any()
    assert not find_bubbles(Absorption(picture, MPP), SETTINGS, SHARP).any()
    assert not find_folds(Absorption(picture, MPP), tissue, SETTINGS).any()
    assert not find_blood_or_pigment(Absorption(picture, MPP), tissue, SETTINGS).any()


@pytest.mark.parametrize("ink", list(INKS))
def test_every_ink_is_found_on_tissue_and_on_glass(ink: str) -> None:
    picture, where, _ = pen(specimen(), np.random.default_rng(1), ink)
    found = find_ink(Absorption(picture, MPP), SETTINGS)
    _, tissue = tissue_picture()
    for ground in (tissue, ~tissue):
        assert (found & where & ground).sum() > 0.9 * (where & ground).sum()
    near = cv2.dilate(where.astype(np.uint8), np.ones((9, 9))) > 0
    assert not (found & ~near).any()


@pytest.mark.parametrize(
    "colour", [(60, 60, 200), (40, 170, 220), (255, 140, 0), (250, 235, 40), (0, 90, 160)],
    ids=["royal blue", "cyan", "orange", "yellow", "petrol"],
)  # fmt: skip
def test_thin_strokes_of_other_inks_are_found(colour: tuple[int, int, int]) -> None:
    picture, tissue = tissue_picture()
    stroke = np.zeros(tissue.shape, dtype=bool)
    stroke[96:104, 20:180] = True  # 64 um wide
    picture = np.where(stroke[..., None], picture / 255 * np.array(colour), picture).astype(np.uint8)
    found = find_ink(Absorption(picture, MPP), SETTINGS)
    assert (found & stroke).sum() > 0.9 * stroke.sum()
    near = cv2.dilate(stroke.astype(np.uint8), np.ones((9, 9))) > 0
    assert not (found & ~near).any()


def test_a_fold_at_the_end_of_the_picture_is_found() -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (200, 200)), (0, 0), 1.5)[..., None]
    amount = 1 + 0.5 * texture
    amount[:, 192:] *= 3
    picture = np.clip(np.rint(243 * 10 ** (-amount * np.array([0.15, 0.35, 0.2]))), 0, 255).astype(np.uint8)
    found = find_folds(Absorption(picture, MPP), np.ones((200, 200), dtype=bool), SETTINGS)
    assert found[:, 193:].mean() > 0.7
    assert found[:, :185].mean() < 0.01


def test_a_bubble_is_found_whole() -> None:
    picture, where, _ = bubble(specimen(), np.random.default_rng(3))
    middle = np.argwhere(where).mean(axis=0)

    def blurred_within(x: float, y: float, half: float) -> float:
        return 0.02 if where[int(y), int(x)] else 0.3

    found = find_bubbles(Absorption(picture, MPP), SETTINGS, blurred_within)
    assert (found & where).sum() > 0.85 * where.sum()
    assert (found & ~where).sum() < 0.15 * where.sum()
    assert found[tuple(middle.astype(int))]


@pytest.mark.parametrize("inside", [0.3, 0.1, float("nan")], ids=["sharp", "as blurred as all around it", "plain"])
def test_a_ring_whose_inside_is_no_more_blurred_than_its_surroundings_is_no_bubble(inside: float) -> None:
    picture, _, _ = bubble(specimen(), np.random.default_rng(3))
    assert not find_bubbles(Absorption(picture, MPP), SETTINGS, lambda x, y, half: inside).any()


def test_what_is_found_does_not_depend_on_the_blocks_it_is_looked_for_in(monkeypatch: pytest.MonkeyPatch) -> None:
    one = specimen()
    folded, _, _ = fold(one, np.random.default_rng(5))
    inked, _, _ = pen(one, np.random.default_rng(1), "blue")
    ringed, where, _ = bubble(one, np.random.default_rng(3))

    def blurred_within(x: float, y: float, half: float) -> float:
        return 0.02 if 0 <= x < 200 and 0 <= y < 200 and where[int(y), int(x)] else 0.3

    def all_found() -> list[np.ndarray]:
        return [
            find_folds(Absorption(folded, MPP), one.tissue, SETTINGS), find_ink(Absorption(inked, MPP), SETTINGS),
            find_bubbles(Absorption(ringed, MPP), SETTINGS, blurred_within),
        ]  # fmt: skip

    whole = all_found()
    monkeypatch.setattr("pathoml.artefacts.blocks.BLOCK_PX", 70)
    for once, in_parts in zip(whole, all_found(), strict=True):
        assert once.any()
        assert (once != in_parts).sum() <= 0.03 * once.sum()


def test_a_fold_is_found_and_a_nuclei_rich_band_is_not() -> None:
    one = specimen()
    picture, where, _ = fold(one, np.random.default_rng(5))
    found = find_folds(Absorption(picture, MPP), one.tissue, SETTINGS)
    assert (found & where).sum() > 0.5 * where.sum()
    blue = one.picture.copy()
    band = np.zeros(one.tissue.shape, dtype=bool)
    band[96:103] = one.tissue[96:103]
    blue[band] = np.clip(243 * 10 ** -np.array([0.75, 0.8, 0.33]), 0, 255).astype(np.uint8)
    assert not find_folds(Absorption(blue, MPP), one.tissue, SETTINGS).any()


def test_a_lake_of_blood_and_a_patch_of_brown_pigment_are_found() -> None:
    picture, tissue = tissue_picture()
    for colour in ((190, 60, 55), (110, 75, 40)):
        stained = picture.copy()
        stained[90:104, 90:104] = colour
        found = find_blood_or_pigment(Absorption(stained, MPP), tissue, SETTINGS)
        assert found[92:102, 92:102].all()
        assert not found[:80].any()


def sharp_tiles(count: int = 3, side: int = 224) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (side * count, side)), (0, 0), 1.2)
    grey = 150 + 60 * noise / noise.std()
    tiles = np.repeat(np.clip(grey, 20, 240)[..., None], 3, axis=-1).astype(np.uint8)
    return tiles.reshape(count, side, side, 3)


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_focus_does_not_depend_on_the_strength_of_the_stain(contrast: float) -> None:
    sharp = sharp_tiles()
    blurred = np.stack([shown(disc_blur(light(tile), 9)) for tile in sharp])
    pale, pale_blurred = (
        np.rint(200 + contrast * (tiles.astype(float) - 200)).clip(0, 255).astype(np.uint8)
        for tiles in (sharp, blurred)
    )
    assert (sharp_share(pale, 0.5, SETTINGS) == 1).all()
    assert (sharp_share(pale_blurred, 0.5, SETTINGS) < 0.2).all()


def test_half_a_tile_out_of_focus_is_half() -> None:
    tiles = sharp_tiles(1)
    blurred = shown(disc_blur(light(tiles[0]), 9))
    tiles[0, :, 112:] = blurred[:, 112:]
    assert sharp_share(tiles, 0.5, SETTINGS)[0] == pytest.approx(0.5, abs=0.13)


def test_plain_tiles_and_coarse_resolutions_are_not_judged() -> None:
    assert sharp_share(np.full((2, 224, 224, 3), 220, np.uint8), 0.5, SETTINGS).tolist() == [1, 1]
    blurred = np.stack([shown(disc_blur(light(tile), 9)) for tile in sharp_tiles()])
    assert (sharp_share(blurred, 4.0, SETTINGS) == 1).all()


def test_what_is_dropped_is_named_like_the_flags() -> None:
    settings = QualitySettings(drop=("pen", "out_of_focus"))
    assert settings.drops(TileFlag.PEN)
    assert settings.drops(TileFlag.OUT_OF_FOCUS)
    assert not settings.drops(TileFlag.FOLD)


@pytest.mark.slow
def test_drawn_tissue_with_glands_and_lymphocytes_has_hardly_an_artefact(tmp_path: Path) -> None:
    found, tissue = dict.fromkeys(MAPPED_ARTEFACTS, 0), 0
    for number in range(8):
        plan = TissuePlan(
            seed=(31, number), width_um=1400.0, height_um=1120.0, tissue_area_mm2=0.9, necrosis=0.15, lymphocytes=0.3,
            tumour=0.4, glands=0.4,
        )  # fmt: skip
        draw_slide(tmp_path / "s.tif", SlideSpec("s", plan, 0.5, HOSPITALS[number % len(HOSPITALS)].stain))
        with open_slide(tmp_path / "s.tif") as slide:
            mask = see_slide(slide, overview_of(slide, MPP), Look())
        tissue += int(mask.tissue.sum())
        for artefact in MAPPED_ARTEFACTS:
            found[artefact] += int((mask.of(artefact) & mask.tissue).sum())
    # Rings around glands were taken for bubbles: 0.30 of the tissue before their focus was looked at.
    assert {flag_name(one): found[one] / tissue for one in found if found[one] > 0.005 * tissue} == {}


@pytest.mark.parametrize("mpp", [8.0, 28.97], ids=["taken for finer than it is", "as it is"])
def test_a_dark_lymph_node_of_a_scanner_that_shows_haematoxylin_as_violet_is_no_pen(mpp: float, data_dir: Path) -> None:
    """A real slide with blue ink on its upper edge; dense lymphoid tissue was dropped as violet pen."""
    with open_slide(data_dir / "slides/dicom_camelyon_jpeg2000.dcm") as slide:
        picture = slide.read_region((0, 0), 0, (slide.geometry.width_px, slide.geometry.height_px)).pixels
    ink = find_ink(Absorption(picture, mpp), SETTINGS)
    assert ink[5:20, 180:235].any(), "the blue ink"
    assert ink[350:500, 500:640].mean() < 0.01, "the dark part of the left piece"
    assert ink[350:500, 1400:1560].mean() < 0.01, "and of the right one"


def test_violet_ink_is_found_on_a_real_slide_whose_tissue_is_as_violet_and_pale(data_dir: Path) -> None:
    """Without glass its blue over green density seems .25, and that of the ink is .23: they differ in density alone."""
    with open_slide(data_dir / "slides/ome_OS-1-detail_HE.ome.tif") as slide:
        picture = slide.read_region((0, 0), 0, (slide.geometry.width_px, slide.geometry.height_px)).pixels
    picture = np.tile(cv2.resize(picture, (500, 500), interpolation=cv2.INTER_AREA), (3, 3, 1))
    one = Specimen(picture, 0.5, np.ones(picture.shape[:2], dtype=bool))
    for turn in range(3):
        inked, where, trace = pen(one, np.random.default_rng([turn, 3]), "violet")
        small = cv2.resize(inked, None, fx=0.5 / MPP, fy=0.5 / MPP, interpolation=cv2.INTER_AREA)
        found = find_ink(Absorption(small, MPP), SETTINGS)
        shares = [
            cv2.resize(one.astype(np.float32), found.shape[::-1], interpolation=cv2.INTER_AREA)
            for one in (where, trace)
        ]
        assert found[shares[0] > 0.9].mean() > 0.95
        assert found[shares[1] == 0].mean() < 0.02


@pytest.mark.parametrize("tile_px", [96, 128, 224])
def test_small_tiles_of_a_sharp_slide_are_not_called_blurred(tmp_path: Path, tile_px: int) -> None:
    plan = TissuePlan(
        seed=(20260, 11), width_um=1100.0, height_um=1100.0, tissue_area_mm2=0.8, necrosis=0.15, lymphocytes=0.2,
        tumour=0.5, glands=0.4,
    )  # fmt: skip
    draw_slide(tmp_path / "sharp.tif", SlideSpec("sharp", plan, 0.5, HOSPITALS[3].stain))
    with open_slide(tmp_path / "sharp.tif") as slide:
        laid = lay_tiles(slide, Look(), TilingSettings(tile_px=tile_px))
        read = judge_tiles(slide, laid.grid, QualitySettings())
    assert len(laid.grid) > 50
    assert ((read.flags & TileFlag.OUT_OF_FOCUS) > 0).mean() <= 0.02
