"""Strings and pixels planted in a hospital's files, and every byte that left it, as it was spelt."""

from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pathoml.bags import Bag, BagHeader, write_bag
from pathoml.cli import app
from pathoml.federated.coordinator import run_federation
from pathoml.federated.messages import from_bytes
from pathoml.federated.site import site_of
from pathoml.federated.site_data import examine_site
from pathoml.federated.site_settings import read_site
from tests.federated.networks import CANARY, FEATURES, Recorder, plan_of

DIM, TILES = 48, 6
SPEC = {**{name: value for name, value in FEATURES.items() if name != "dim"}}


def planted_pixels(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """A tile's pixels as an encoder that hides nothing would give them: every number is one of the slide's own bytes."""
    return np.random.default_rng(seed).integers(1, 255, size=(TILES, DIM), dtype=np.uint8)


def write_hospital(home: Path, name: str, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    (home / "bags").mkdir(parents=True)
    rows, manifest = ["patient_id,days,dead,age,surname"], ["slide_id,path,patient_id"]
    grid = np.column_stack([np.zeros(TILES), np.arange(TILES)]).astype(np.int32)
    for number in range(80):
        patient, slide = f"{CANARY}-{name}-{number}", f"slide-{CANARY}-{name}-{number}"
        rows.append(f"{patient},{rng.integers(100, 2900)},{int(number % 2)},{rng.normal(60, 10):.3f},{CANARY}mann")
        manifest.append(f"{slide},/archive/{CANARY}/{slide}.svs,{patient}")
        header = BagHeader(
            slide_id=slide, slide_fingerprint="a" * 64, slide_digest="b" * 64, width_px=8000, height_px=448, slide_mpp=(0.25, 0.25),
            mpp_from="metadata", mpp_read=(0.5, 0.5), footprint_level0_px=(448.0, 448.0), stride_level0_px=(448.0, 448.0),
            origin_level0_px=(0.0, 0.0), precision_used="float32", batch_tiles=8, batch_used=8, reader="native tiles",
            decode="exact", lost_tiles=0, rejected={}, regions_digest="", stain="none", optical_density={}, pathoml_version="0.1.0",
            **SPEC,  # type: ignore[arg-type]
        )  # fmt: skip
        pixels = planted_pixels(1000 * seed + number).astype(np.float16)
        bag = Bag(header, pixels, grid[:, ::-1] * 448, grid, np.ones(TILES, np.float32), np.zeros(TILES, np.uint8))
        write_bag(home / "bags" / f"{slide}.h5", bag)
    (home / "cohort.csv").write_text("\n".join(rows) + "\n")
    (home / "slides.csv").write_text("\n".join(manifest) + "\n")
    settings = {
        "name": name, "device": "cpu", "cohort": {"table": "cohort.csv", "time": "days", "time_unit": "days", "event": "dead"},
        "slides": {"manifest": "slides.csv", "bags": "bags"},
    }  # fmt: skip
    with (home / "site.yaml").open("w") as stream:
        YAML().dump(settings, stream)
    return home / "site.yaml"


@pytest.mark.parametrize("scaling", ["network", "site"])
def test_no_planted_string_and_no_planted_pixel_is_in_anything_that_left(tmp_path: Path, scaling: str) -> None:
    plan = plan_of(
        covariates=[{"kind": "numeric", "column": "age"}], features={**SPEC, "dim": DIM, "scaling": scaling},
        model={"tile_components": 3}, method={"kind": "rounds", "rounds": 2, "personal_epochs": 1}, membership=True,
    )  # fmt: skip
    paths = {name: write_hospital(tmp_path / CANARY / name, name, seed) for seed, name in enumerate(plan.sites)}
    recorder = Recorder({name: site_of(read_site(path), lambda _: plan) for name, path in paths.items()})
    result = run_federation(plan, recorder, tmp_path / "out")
    assert len(result.history) == 2
    kinds = {from_bytes(content).kind for _, content in recorder.left}
    assert {"values", "tiles", "times", "newton", "train", "evaluate", "personal", "calibrate", "membership"} <= kinds
    left = b"".join(content for _, content in recorder.left)
    for word in (CANARY, "mann", "archive", ".svs", ".h5", "cohort.csv", "surname", str(tmp_path)):
        assert word.encode() not in left, word
    for seed in range(len(plan.sites)):
        for number in range(0, 80, 5):
            for row in planted_pixels(1000 * seed + number):
                run = row[:8]  # eight neighbouring numbers of one tile
                for kind in (np.uint8, np.float16, np.float32, np.float64, np.int64):
                    assert run.astype(kind).tobytes() not in left


def test_the_search_would_find_them() -> None:
    row = planted_pixels(0)[0]
    assert row[:8].astype(np.float64).tobytes() in np.concatenate([[1.5], row.astype(np.float64)]).tobytes()


def test_slides_without_a_bag_are_pointed_out_at_the_site(tmp_path: Path) -> None:
    path = write_hospital(tmp_path, "north", 0)
    plan = plan_of(
        ("north",), covariates=[{"kind": "numeric", "column": "age"}], features={**SPEC, "dim": DIM, "scaling": "site"}
    )
    assert not [one for one in examine_site(read_site(path), plan).warnings if "no bag" in str(one)]
    removed = sorted(tmp_path.rglob("*.h5"))[:2]
    for one in removed:
        one.unlink()
    (warning,) = [str(one) for one in examine_site(read_site(path), plan).warnings if "no bag" in str(one)]
    assert "2 of 80 slides have no bag" in warning
    assert all(one.stem in warning for one in removed)
    assert "2 patient(s) are left with none" in warning


def test_what_inspect_shows_of_bags_is_what_a_plan_takes(tmp_path: Path) -> None:
    path = write_hospital(tmp_path, "north", 0)
    shown = CliRunner().invoke(app, ["bags", "inspect", str(next(tmp_path.rglob("*.h5")))])
    assert shown.exit_code == 0, shown.output
    block = YAML(typ="safe").load(shown.output.split("in a federated plan:")[1])
    plan = plan_of(("north",), covariates=[{"kind": "numeric", "column": "age"}], features=block["features"])
    assert not examine_site(read_site(path), plan).problems
