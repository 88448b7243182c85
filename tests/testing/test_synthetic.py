"""The synthetic cohort: its files are what they say, its pixels show its truth, its survival is designed."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import openslide
import pytest

from pathoml.errors import InputError
from pathoml.testing.design import CohortDesign, draw_outcomes, kind_shares, plan_cohort
from pathoml.testing.drawing import SlideSpec, draw_slide, read_truth
from pathoml.testing.histology import KINDS, TissuePlan, lay_out
from pathoml.testing.staining import StainProfile
from pathoml.testing.synthetic import DEMO_DESIGN, EVALUATION_SEEDS, SMALL_DESIGN, CohortPaths, make_cohort

STAIN = StainProfile(haematoxylin=(0.64, 0.70, 0.36), eosin=(0.06, 0.52, 0.34))
TINY_DESIGN = dataclasses.replace(SMALL_DESIGN, patients=5, tissue_area_mm2=0.12, two_slides=0.4)


def tissue(seed: int = 7, **changes: float) -> TissuePlan:
    plan = TissuePlan(
        seed=(seed, 0),
        width_um=560.0,
        height_um=448.0,
        tissue_area_mm2=0.12,
        necrosis=0.2,
        lymphocytes=0.2,
        tumour=0.5,
        glands=0.3,
    )
    return dataclasses.replace(plan, **changes)


def slide(mpp: float = 0.5, **changes: float) -> SlideSpec:
    return SlideSpec("P001-1", tissue(**changes), mpp, STAIN)


def tissue_pixels(path: Path) -> np.ndarray:
    """Level 0 of a slide without its glass: (pixel, 3)."""
    with openslide.OpenSlide(path) as opened:
        image = np.asarray(opened.read_region((0, 0), 0, opened.dimensions).convert("RGB"), dtype=np.int64)
    return image[image.min(axis=-1) < 225]


def dark_share(pixels: np.ndarray) -> float:
    """Share of pixels as dark in red as nuclei are."""
    return float((pixels[:, 0] < 110).mean())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortPaths:
    return make_cohort(tmp_path_factory.mktemp("cohort"), seed=3, design=TINY_DESIGN, workers=1)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_openslide_reads_resolution_and_levels(cohort: CohortPaths) -> None:
    for plan in plan_cohort(3, TINY_DESIGN):
        for spec in plan.slides:
            with openslide.OpenSlide(cohort.slides_csv.parent / "slides" / f"{spec.slide_id}.tif") as opened:
                assert opened.properties["openslide.vendor"] == "generic-tiff"
                assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(plan.hospital.mpp, rel=1e-6)
                assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(plan.hospital.mpp, rel=1e-6)
                assert [round(downsample) for downsample in opened.level_downsamples] == [1, 4, 16]
                assert opened.properties["openslide.level[0].tile-width"] == "256"


def test_the_same_specification_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, spec in (("a", slide()), ("b", slide()), ("c", slide(seed=8))):
        draw_slide(tmp_path / f"{name}.tif", spec)
    first, again, other = ((tmp_path / f"{name}.tif").read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_a_worker_process_draws_the_same_bytes(cohort: CohortPaths, tmp_path: Path) -> None:
    spec = plan_cohort(3, TINY_DESIGN)[0].slides[0]
    draw_slide(tmp_path / "here.tif", spec)
    drawn_there = cohort.slides_csv.parent / "slides" / f"{spec.slide_id}.tif"
    assert (tmp_path / "here.tif").read_bytes() == drawn_there.read_bytes()


def test_both_resolutions_show_the_same_tissue(tmp_path: Path) -> None:
    fine = draw_slide(tmp_path / "fine.tif", slide(mpp=0.25))
    coarse = draw_slide(tmp_path / "coarse.tif", slide(mpp=0.5))
    np.testing.assert_array_equal(fine.composition, coarse.composition)
    thumbnails = []
    for name in ("fine", "coarse"):
        with openslide.OpenSlide(tmp_path / f"{name}.tif") as opened:
            image = opened.read_region((0, 0), 0, opened.dimensions).convert("L").resize((70, 56))
        thumbnails.append(np.asarray(image, dtype=np.float64).ravel())
    assert np.corrcoef(*thumbnails)[0, 1] > 0.97


@pytest.mark.parametrize("pieces", [1, 2])
def test_composition_sums_to_255_in_tissue_and_to_nothing_outside(pieces: int) -> None:
    plan = dataclasses.replace(tissue(pieces=pieces), width_um=960.0, height_um=760.0, tissue_area_mm2=0.35)
    composition = lay_out(plan).composition()
    assert composition.shape == (95, 120, len(KINDS))
    sums = composition.sum(axis=-1, dtype=np.int64)
    assert set(np.unique(sums)) == {0, 255}
    assert (sums > 0).mean() * 0.960 * 0.760 == pytest.approx(0.35, rel=0.05)


def test_composition_has_the_planned_shares_in_coherent_regions() -> None:
    plan = next(patient.slides[0].tissue for patient in plan_cohort(1, DEMO_DESIGN))
    composition = lay_out(plan).composition()
    shares = dict(zip(KINDS, kind_shares([composition]), strict=True))
    assert shares["necrosis"] == pytest.approx(plan.necrosis, abs=0.02)
    assert shares["lymphocytes"] == pytest.approx(plan.lymphocytes, abs=0.02)
    tile = 14  # 112 um
    rows, cols = (side // tile * tile for side in composition.shape[:2])
    tiles = (
        composition[:rows, :cols].reshape(rows // tile, tile, cols // tile, tile, len(KINDS)).mean(axis=(1, 3)) / 255
    )
    covered = tiles[tiles.sum(axis=-1) > 0.8]
    assert len(covered) >= 50
    assert (covered.max(axis=-1) / covered.sum(axis=-1) > 0.7).mean() > 0.55


def test_more_lymphocytes_give_more_dark_pixels(tmp_path: Path) -> None:
    few, many = tmp_path / "few.tif", tmp_path / "many.tif"
    draw_slide(few, slide(lymphocytes=0.05))
    draw_slide(many, slide(lymphocytes=0.6))
    assert dark_share(tissue_pixels(many)) > 1.3 * dark_share(tissue_pixels(few))


def test_necrosis_is_pinker_and_has_fewer_nuclei_than_tumour(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead.tif", tmp_path / "alive.tif"
    draw_slide(dead, slide(necrosis=0.95, lymphocytes=0.0))
    draw_slide(alive, slide(necrosis=0.0, lymphocytes=0.0, tumour=0.95, glands=0.0))
    dead_pixels, alive_pixels = tissue_pixels(dead), tissue_pixels(alive)
    assert dark_share(dead_pixels) < 0.5 * dark_share(alive_pixels)

    def pinkness(pixels: np.ndarray) -> float:
        return float((pixels[:, 0] - pixels[:, 2]).mean())

    assert pinkness(dead_pixels) > pinkness(alive_pixels) + 10


def test_pen_and_blur_change_pixels_but_not_the_truth(tmp_path: Path) -> None:
    plain = slide()
    truths, contents = [], []
    for name, spec in (
        ("plain", plain),
        ("pen", dataclasses.replace(plain, pen="green")),
        ("blur", dataclasses.replace(plain, is_blurred=True)),
    ):
        truths.append(draw_slide(tmp_path / f"{name}.tif", spec).composition)
        contents.append((tmp_path / f"{name}.tif").read_bytes())
    assert len(set(contents)) == 3
    np.testing.assert_array_equal(truths[0], truths[1])
    np.testing.assert_array_equal(truths[0], truths[2])


def test_the_oracle_ranks_patients_as_well_as_designed() -> None:
    scores = [oracle_concordance(*drawn_from_planned_shares(seed, patients=800)) for seed in EVALUATION_SEEDS]
    assert 0.76 < min(scores) <= max(scores) < 0.84


def test_two_thirds_of_the_patients_have_an_event() -> None:
    shares = [drawn_from_planned_shares(seed, patients=DEMO_DESIGN.patients)[2].mean() for seed in range(20)]
    assert 0.6 < np.mean(shares) < 0.75
    assert 0.5 < min(shares) <= max(shares) < 0.85


def drawn_from_planned_shares(seed: int, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Survival of a cohort whose slides show exactly what was planned: log hazard, time, event."""
    design = dataclasses.replace(DEMO_DESIGN, patients=patients)
    plans = plan_cohort(seed, design)
    shares = np.zeros((patients, len(KINDS)))
    shares[:, KINDS.index("necrosis")] = [np.mean([s.tissue.necrosis for s in p.slides]) for p in plans]
    shares[:, KINDS.index("lymphocytes")] = [np.mean([s.tissue.lymphocytes for s in p.slides]) for p in plans]
    outcomes = draw_outcomes(seed, design, shares, np.array([p.age for p in plans]))
    return outcomes.log_hazard, outcomes.time_days, outcomes.event


def oracle_concordance(log_hazard: np.ndarray, time_days: np.ndarray, event: np.ndarray) -> float:
    """Share of comparable pairs in which the patient of the higher hazard dies first."""
    comparable = (time_days[:, None] < time_days[None, :]) & (event[:, None] == 1)
    return float((log_hazard[:, None] > log_hazard[None, :])[comparable].mean())


def test_the_tables_fit_each_other_and_keep_the_truth_apart(cohort: CohortPaths) -> None:
    slides, patients, truth = (
        rows_of(p) for p in (cohort.slides_csv, cohort.cohort_csv, cohort.truth / "patients.csv")
    )
    assert [row["patient_id"] for row in patients] == [f"P{k:03d}" for k in range(1, 6)]
    assert {row["patient_id"] for row in slides} == {row["patient_id"] for row in patients}
    assert all((cohort.slides_csv.parent / row["path"]).is_file() for row in slides)
    assert list(patients[0]) == ["patient_id", "site", "age", "sex", "time_days", "event"]
    for row in truth:
        own = [
            read_truth(cohort.truth / f"{s['slide_id']}.npz") for s in slides if s["patient_id"] == row["patient_id"]
        ]
        measured = kind_shares([t.composition for t in own])
        np.testing.assert_allclose([float(row[kind]) for kind in KINDS], measured, atol=1e-6)


def test_site_codes_keep_their_leading_zeros(cohort: CohortPaths) -> None:
    assert {row["site"] for row in rows_of(cohort.cohort_csv)} <= {"03", "05", "11", "27"}


def test_truth_is_plain_arrays(cohort: CohortPaths) -> None:
    with np.load(cohort.truth / "P001-1.npz", allow_pickle=False) as arrays:
        assert arrays["kinds"].tolist() == ["stroma", "tumour", "lymphocytes", "necrosis"]
        assert arrays["composition"].dtype == np.uint8
        assert arrays["um_per_px"] == 8.0


def test_an_interrupted_cohort_is_finished_with_the_same_bytes(cohort: CohortPaths) -> None:
    folder = cohort.slides_csv.parent
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / "slides" / "P002-1.tif").unlink()
    (folder / "truth" / "P004-1.npz").unlink()
    (folder / "cohort.csv").unlink()
    seen: list[tuple[int, int]] = []
    make_cohort(folder, seed=3, design=TINY_DESIGN, workers=2, on_slide=lambda done, total: seen.append((done, total)))
    after = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert before == after
    total = len(rows_of(cohort.slides_csv))
    assert seen == [(total - 2, total), (total - 1, total), (total, total)]


@pytest.mark.parametrize(
    ("seed", "design", "found"),
    [(4, TINY_DESIGN, "seed"), (3, dataclasses.replace(TINY_DESIGN, patients=6), "design")],
)
def test_a_folder_of_another_cohort_is_refused(
    cohort: CohortPaths, seed: int, design: CohortDesign, found: str
) -> None:
    with pytest.raises(InputError, match=f"synthetic cohort of another {found}"):
        make_cohort(cohort.slides_csv.parent, seed=seed, design=design)


def test_a_folder_with_foreign_slides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match="did not make"):
        make_cohort(tmp_path, seed=1, design=TINY_DESIGN)


def test_the_record_holds_the_whole_design(cohort: CohortPaths) -> None:
    record = json.loads((cohort.slides_csv.parent / "synthetic.json").read_text(encoding="utf-8"))
    assert record["seed"] == 3
    assert record["design"]["necrosis"] == {"mean": 0.15, "sd": 0.10, "log_hazard_per_sd": 1.2}
    assert [hospital["code"] for hospital in record["design"]["hospitals"]] == ["03", "05", "11", "27"]
