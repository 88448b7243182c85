"""Where the tissue is: held against what was drawn, against glass, ink, and two real slides."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from pathoml.artefacts import Absorption, QualitySettings, find_ink
from pathoml.slides import open_slide, whole_slide_image
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.artefacts import PEN_COLOURS
from pathoml.testing.design import HOSPITALS, Hospital
from pathoml.tissue import ClassicalTissueSettings, find_tissue

MPP = 8.0
PLAN = TissuePlan(
    seed=(7, 0), width_um=1200.0, height_um=960.0, tissue_area_mm2=0.55, necrosis=0.2, lymphocytes=0.2,
    tumour=0.5, glands=0.3,
)  # fmt: skip
PALE = dataclasses.replace(HOSPITALS[3].stain, haematoxylin=(0.22, 0.26, 0.13), eosin=(0.02, 0.17, 0.12))


def draw(path: Path, hospital: Hospital = HOSPITALS[3], **changes: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the slide at `MPP` and the drawn tissue, both on the same pixels (`MPP` is that of the truth)."""
    spec = SlideSpec("s", PLAN, hospital.mpp, hospital.stain)
    truth = draw_slide(path, dataclasses.replace(spec, **changes))
    with open_slide(path) as slide:
        return whole_slide_image(slide, MPP), truth.composition.sum(axis=-1) > 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    return draw(tmp_path_factory.mktemp("tissue") / "s.tif")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@dataclasses.dataclass(frozen=True)
class Found:
    tissue: np.ndarray
    pen: np.ndarray


def find(picture: np.ndarray, mpp: float = MPP, **changes: float) -> Found:
    ink = find_ink(Absorption(picture, mpp), QualitySettings())
    return Found(find_tissue(picture, mpp, ClassicalTissueSettings(**changes), hidden=ink) & ~ink, ink)


@pytest.mark.parametrize("grey", [255, 243, 200, 128])
def test_plain_glass_holds_no_tissue(grey: int) -> None:
    mask = find(np.full((120, 150, 3), grey, dtype=np.uint8))
    assert not mask.tissue.any()
    assert not mask.pen.any()


def test_noise_and_vignetting_of_glass_are_no_tissue() -> None:
    rng = np.random.default_rng(5)
    light = np.linspace(250, 225, 200)[None, :, None] + rng.normal(0, 3, (160, 200, 3))
    mask = find(np.clip(light, 0, 255).astype(np.uint8))
    assert not mask.tissue.any()
    assert not mask.pen.any()


@pytest.mark.parametrize("hospital", HOSPITALS, ids=lambda one: one.name)
def test_the_drawn_tissue_is_found_at_every_hospital(tmp_path: Path, hospital: Hospital) -> None:
    picture, truth = draw(tmp_path / "s.tif", hospital)
    mask = find(picture)
    assert dice(mask.tissue, truth) > 0.95
    assert not mask.pen.any(), "no ink was drawn"


def test_a_pale_stain_is_still_found(tmp_path: Path) -> None:
    picture, truth = draw(tmp_path / "s.tif", dataclasses.replace(HOSPITALS[3], stain=PALE))
    assert dice(find(picture).tissue, truth) > 0.9


@pytest.mark.parametrize("colour", list(PEN_COLOURS))
def test_ink_is_cut_out_and_flagged(tmp_path: Path, drawn: tuple[np.ndarray, np.ndarray], colour: str) -> None:
    clean, truth = drawn
    picture, _ = draw(tmp_path / "s.tif", pen=colour)
    ink = np.abs(picture.astype(int) - clean).max(axis=-1) > 60
    assert ink.mean() > 0.03, "the stroke must be there to be found"
    mask = find(picture)
    assert (mask.pen & ink).sum() > 0.9 * ink.sum()
    assert not (mask.tissue & mask.pen).any()
    near_ink = cv2.dilate(ink.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    assert not (mask.pen & ~near_ink).any(), "nothing is called ink 50 um from it"
    assert dice(mask.tissue & ~near_ink, truth & ~near_ink) > 0.95


def test_ink_is_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    picture, _ = draw(tmp_path / "s.tif", pen="green")
    kept, cut = find_tissue(picture, MPP, ClassicalTissueSettings()), find(picture).tissue
    assert kept.sum() > cut.sum()


@pytest.mark.parametrize("mpp", [4.0, 6.0, 16.0])
def test_the_mask_hardly_depends_on_its_resolution(tmp_path: Path, mpp: float) -> None:
    picture, _ = draw(tmp_path / "s.tif")
    with open_slide(tmp_path / "s.tif") as slide:
        other = find(whole_slide_image(slide, mpp), mpp).tissue
    same = find(picture).tissue
    resized = cv2.resize(other.astype(np.uint8), same.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert dice(resized, same) > 0.96


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_the_mask_turns_with_the_slide(drawn: tuple[np.ndarray, np.ndarray], turn: int) -> None:
    upright = find(drawn[0]).tissue
    turned = find(np.ascontiguousarray(np.rot90(drawn[0], turn))).tissue
    assert dice(np.rot90(turned, -turn), upright) > 0.995


def test_more_glass_around_changes_nothing(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    picture = drawn[0]
    glass = tuple(int(value) for value in np.median(picture[:5].reshape(-1, 3), axis=0))
    framed = cv2.copyMakeBorder(picture, 200, 200, 300, 300, cv2.BORDER_CONSTANT, value=glass)
    mask = find(framed).tissue
    assert dice(mask[200:-200, 300:-300], find(picture).tissue) > 0.97
    assert mask.sum() == mask[200:-200, 300:-300].sum()


def spots(radius_um: float) -> np.ndarray:
    """Pink on white: one disc of a radius in the middle."""
    picture = np.full((200, 200, 3), 245, dtype=np.uint8)
    return np.asarray(cv2.circle(picture, (100, 100), round(radius_um / MPP), (200, 110, 160), -1))


@pytest.mark.parametrize(("radius_um", "found"), [(60, False), (100, True)])
def test_pieces_below_the_least_area_are_dropped(radius_um: float, found: bool) -> None:
    assert find(spots(radius_um), min_area_um2=20_000).tissue.any() == found


def test_a_strand_counts_with_the_piece_it_hangs_on_and_not_by_itself() -> None:
    alone = np.full((200, 200, 3), 245, dtype=np.uint8)
    alone[99:101, 100:180] = (200, 110, 160)  # 16 um wide
    assert not find(alone).tissue.any()
    hanging = spots(200)
    hanging[99:101, 100:180] = (200, 110, 160)
    assert find(hanging).tissue[99, 100:178].all()


def test_tissue_is_followed_to_where_it_is_pale_and_pale_parts_alone_are_not_taken() -> None:
    picture = spots(200)
    pale = np.s_[90:110, 125:150]
    picture[pale] = (243, 212, 225)  # a saturation of 0.13; Otsu's threshold is capped at 0.15
    picture[150:170, 20:45] = (243, 212, 225)
    tissue = find(picture).tissue
    assert tissue[pale][:, :-2].mean() > 0.9
    assert not tissue[148:172, 18:47].any()


@pytest.mark.parametrize(("hole_um2", "filled"), [(5_000, False), (60_000, True)])
def test_holes_up_to_the_limit_are_filled(hole_um2: float, filled: bool) -> None:
    picture = cv2.circle(spots(600), (100, 100), round(100 / MPP), (245, 245, 245), -1)
    assert find(np.asarray(picture), max_hole_um2=hole_um2).tissue[100, 100] == filled


def test_a_slide_full_of_tissue_is_all_tissue() -> None:
    rng = np.random.default_rng(2)
    picture = np.clip(np.array([190, 110, 160]) + rng.normal(0, 15, (150, 150, 3)), 0, 255).astype(np.uint8)
    picture[:, :75] = np.clip(picture[:, :75].astype(int) - [60, 40, 10], 0, 255)
    assert find(picture).tissue.mean() > 0.98


def test_the_real_skin_slide_is_found_where_the_eye_sees_it(data_dir: Path) -> None:
    """Bounds read off the picture: a strip of skin on white, no pen, with a strand of 30 um; flakes beside it may go."""
    with open_slide(data_dir / "slides/CMU-1-Small-Region.svs") as slide:
        picture = whole_slide_image(slide, MPP)
    mask = find(picture)
    dark = cv2.GaussianBlur(picture, (0, 0), 2).min(axis=-1)
    assert 0.30 < mask.tissue.mean() < 0.40
    assert not mask.pen.any()
    assert mask.tissue[dark < 190].mean() > 0.87
    assert mask.tissue[dark > 235].mean() < 0.02
    assert mask.tissue[62:72, 15:50].any(axis=0).all(), "the strand, to near its end"
    assert mask.tissue[80:95, 82:86].mean() > 0.7, "fragments in the follicle's cavity"


def test_the_real_tumour_slide_is_found_without_its_stitching_frame(data_dir: Path) -> None:
    with open_slide(data_dir / "slides/TCGA-CR-7395-01A-01-TS1.svs", mpp=0.5) as slide:
        picture = whole_slide_image(slide, MPP)
    mask = find(picture)
    assert 0.58 < mask.tissue.mean() < 0.70
    assert not mask.pen.any()
    assert not mask.tissue[190:, :60].any(), "white and grey glass in the lower left corner"
    assert mask.tissue[60:90, 40:100].all(), "solid tumour"
    assert mask.tissue[103:112, 270:277].mean() > 0.5, "the hook on its right side"


@pytest.mark.parametrize("glass", [(1, 0.98, 0.86), (1, 0.98, 0.84), (1, 0.86, 0.97), (0.97, 0.97, 1)])
def test_tinted_glass_is_no_tissue(drawn: tuple[np.ndarray, np.ndarray], glass: tuple[float, float, float]) -> None:
    picture, truth = drawn
    tinted = np.rint(picture * np.array(glass)).astype(np.uint8)
    assert dice(find(tinted).tissue, truth) > 0.94
    assert not find(tinted).pen.any()
