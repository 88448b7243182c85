"""What the viewer is told of a run, a manifest, a folder and a slide."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pathoml.bags import read_bag
from pathoml.errors import InputError
from pathoml.packages import load_package
from pathoml.pipeline.viewing import open_library
from pathoml.predictions import read_predictions
from pathoml.splits import read_folds
from pathoml.tile_scores import score_tiles
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")


def test_a_run_shows_every_slide_with_the_risk_of_the_model_that_has_not_seen_the_patient(
    finished: FinishedRun,
) -> None:
    folder = finished.result.folder
    library = open_library(folder.root)
    rows = read_predictions(folder.predictions).select(model="model", scheme="kfold", role="test")
    folds = {fold.name: fold for fold in read_folds(folder.folds) if fold.scheme == "kfold"}
    by_name = {slide.name: slide for slide in library.slides}
    for row in rows.table.itertuples():
        member = load_package(folder.members / folds[row.fold].folder_name).members[0]
        shown = [slide for slide in by_name.values() if slide.patient == row.patient_id]
        assert shown
        for slide in shown:
            assert slide.risk == pytest.approx((row.risk - member.risk_centre) / member.risk_scale)
            assert (slide.time_days, slide.event, slide.risk_group) == (row.time_days, row.event, row.risk_group)
    curve = library.patient_curves[rows.table["patient_id"].iloc[0]]
    np.testing.assert_array_equal(curve.survival, rows.survival[0])
    assert [one.name.split(" (")[0] for one in library.cohort_curves] == [
        "whole cohort", "predicted low risk", "predicted high risk",
    ]  # fmt: skip


def test_maps_of_a_run_are_those_of_the_unseen_fold_on_the_cohorts_scale(finished: FinishedRun) -> None:
    folder = finished.result.folder
    library = open_library(folder.root)
    assert library.maps_of is not None
    maps = library.maps_of(0)
    slide = library.slides[0]
    (fold,) = [one for one in read_folds(folder.folds) if one.scheme == "kfold" and slide.patient in one.test]
    package = load_package(folder.members / fold.folder_name)
    scores = score_tiles(package.members, package, read_bag(finished.folder / "bags" / f"{slide.name}.h5"))
    np.testing.assert_allclose(maps.values["contribution"], scores.contribution * len(scores.contribution))
    assert maps.scales_of("contribution") == ("raw", "percentile", "cohort")
    assert maps.cohort_ends == load_package(folder.package).summary["map_ends"]


def test_opening_a_run_loads_no_torch(finished: FinishedRun) -> None:
    code = (
        "import sys; from pathlib import Path; from pathoml.pipeline.viewing import open_library;"
        f"print(len(open_library(Path({str(finished.result.folder.root)!r})).slides)); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_folder_and_a_slide_are_shown_by_their_names(finished: FinishedRun) -> None:
    slides = sorted((finished.folder / "slides").glob("*.tif"))
    library = open_library(finished.folder / "slides")
    assert [slide.name for slide in library.slides] == [path.stem for path in slides]
    assert library.maps_of is None
    assert [slide.path for slide in open_library(slides[0]).slides] == [slides[0]]


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        open_library(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_library(tmp_path / "gone.svs")


def test_a_port_that_is_taken_is_named() -> None:
    import socket

    from pathoml.viewer.library import Library
    from pathoml.viewer.serving import serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of this machine is taken"):
            serve(Library("", ()), port=port, on_start=lambda *_: pytest.fail("it must not start"))


def test_of_a_patient_with_a_pseudonym_no_slide_is_called_by_its_own_name(tmp_path: Path) -> None:
    rows = ["Mustermann_1,a.tif,Mustermann,S-1", "Mustermann_2,b.tif,Mustermann,", "plain,c.tif,P2,"]
    table = tmp_path / "slides.csv"
    table.write_text("\n".join(["slide_id,path,patient_id,pseudonym", *rows]))
    for name in "abc":
        (tmp_path / f"{name}.tif").touch()
    shown = [(slide.name, slide.patient) for slide in open_library(table).slides]
    assert shown == [
        ("S-1", "patient of S-1"), ("patient of S-1, slide 2", "patient of S-1"), ("plain", "P2"),
    ]  # fmt: skip
