"""The scripts over whole archives do what their first lines say."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from pathoml.bags import read_bag
from pathoml.testing.pyramid import write_pyramid
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Here:
    """Runs scripts in this process, which has loaded already what each process would take seconds to load."""

    def __init__(self, captured: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._captured, self._monkeypatch = captured, monkeypatch

    def __call__(self, name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [str(SCRIPTS / name), *map(str, arguments)]
        self._monkeypatch.setattr(sys, "argv", command)
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(command[0], run_name="__main__")
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), *self._captured.readouterr())


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(capfd, monkeypatch)


@pytest.fixture
def archive(finished: FinishedRun, tmp_path: Path) -> Path:
    """Three slides in folders, and a file that is none."""
    for number, path in enumerate(sorted((finished.folder / "slides").glob("*.tif"))[:3]):
        (tmp_path / "archive" / f"year{number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "archive" / f"year{number % 2}" / path.name).symlink_to(path)
    return tmp_path / "archive"


@pytest.mark.slow
def test_a_folder_of_slides_becomes_bags_that_predict(finished: FinishedRun, archive: Path, tmp_path: Path) -> None:
    (archive / "broken.tif").write_text("no slide", encoding="ascii")
    first = script("extract_archive.py", archive, tmp_path / "bags", "--config", finished.folder / "study.yaml")
    assert first.returncode == 1, first.stderr
    assert "broken: TEXT: " in first.stderr
    assert "slides: 3 with a bag, 1 without" in first.stdout
    rows = [line.replace("│", " ").split() for line in first.stdout.splitlines()]
    assert ["failed:", "TEXT", "1", "0"] in rows
    assert any(row[:2] == ["done", "3"] and int(row[2]) > 0 for row in rows if len(row) == 3)
    names = sorted(path.stem for path in (tmp_path / "bags").glob("*.h5"))
    assert all(name.startswith(("year0--", "year1--")) for name in names)
    original = finished.folder / "bags" / f"{names[0].partition('--')[2]}.h5"
    assert (read_bag(tmp_path / "bags" / f"{names[0]}.h5").features == read_bag(original).features).all()
    quality = pd.read_csv(tmp_path / "bags" / "quality.csv", dtype=str, keep_default_na=False).set_index("slide_id")
    assert quality.loc["broken", "code"] == "TEXT"
    assert set(quality.index) == {*names, "broken"}
    counts = [column for column in quality if column.endswith("tiles") or column.startswith(("rejected_", "flagged_"))]
    assert quality.loc[names, counts].map(str.isdigit).all(axis=None), (
        "whole numbers, in spite of the slide without any"
    )
    assert "contact_sheets.html" in first.stdout
    assert "broken" in (tmp_path / "bags" / "contact_sheets.html").read_text(encoding="utf-8")
    (archive / "broken.tif").unlink()
    again = script("extract_archive.py", archive, tmp_path / "bags", "--config", finished.folder / "study.yaml")
    assert again.returncode == 0, again.stderr

    package = finished.folder / "run" / "package"
    done = script(
        "predict_archive.py", package, tmp_path / "bags", tmp_path / "out", "--impute-covariates", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(pd.read_csv(tmp_path / "out" / "predictions.csv", dtype=str)["patient_id"]) == names


def test_mpp_is_for_slides_that_do_not_say_it(archive: Path, finished: FinishedRun, tmp_path: Path, here: Here) -> None:
    first, *others = sorted(path for path in archive.rglob("*.tif"))
    for other in others:
        other.unlink()
    silent = archive / "silent.tif"
    silent.write_bytes(first.read_bytes())
    with tifffile.TiffFile(silent, mode="r+") as tiff:
        tiff.pages[0].tags["ResolutionUnit"].overwrite(1)
    done = here(
        "extract_archive.py", archive, tmp_path / "bags", "--config", finished.folder / "study.yaml", "--mpp", 0.4
    )
    assert done.returncode == 0, done.stderr
    header = read_bag(tmp_path / "bags" / "silent.h5").header
    assert (header.slide_mpp, header.mpp_from) == ((0.4, 0.4), "manifest")
    stated = read_bag(next((tmp_path / "bags").glob("year*.h5"))).header
    original = read_bag(finished.folder / "bags" / f"{first.stem}.h5").header
    assert (stated.slide_mpp, stated.mpp_from) == (original.slide_mpp, "metadata")


def test_without_a_network_the_example_slide_is_said_to_be_out_of_reach(finished: FinishedRun, tmp_path: Path) -> None:
    """No package index is asked, in the way pip itself is told so."""
    command = [
        sys.executable,
        str(SCRIPTS / "try_real_slide.py"),
        str(finished.folder / "run" / "package"),
        str(tmp_path),
    ]
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr
    assert f"pathoml heatmap {finished.folder / 'run' / 'package'} your_slide.svs" in done.stderr
    assert "Traceback" not in done.stderr


def test_shards_of_a_folder_share_it(archive: Path, finished: FinishedRun, tmp_path: Path, here: Here) -> None:
    for number in (1, 2):
        done = here(
            "extract_archive.py", archive, tmp_path / "bags", "--config", finished.folder / "study.yaml",
            "--shard", f"{number}/2",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "bags").glob("*.h5"))) == 3


EXTRACT, PREDICT = "extract_archive.py", "predict_archive.py"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        (EXTRACT, ("nowhere", "bags"), "no slide below it"),
        (EXTRACT, (".", "bags", "--shard", "0/2"), "expected I/N"),
        (EXTRACT, ("twice", "bags"), "two slides would be called a; narrow --pattern"),
        (PREDICT, ("package", "twice", "out"), "no bag (.h5) in it"),
        (PREDICT, ("package", "slides.csv", "out"), "package"),
    ],
    ids=["no slide", "no shard", "two of a name", "no bags", "no package"],
)
def test_wrong_usage_exits_2_with_a_sentence(
    name: str, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice").mkdir()
    for ending in ("svs", "tif"):
        (tmp_path / "twice" / f"a.{ending}").touch()
    done = here(name, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_slide_without_tissue_is_said_and_leaves_code_0_one_that_fails_leaves_1(
    finished: FinishedRun, tmp_path: Path, here: Here
) -> None:
    good = next(iter(sorted((finished.folder / "slides").glob("*.tif"))))
    write_pyramid(tmp_path / "white.tif", np.full((900, 900, 3), 244, np.uint8), mpp=0.5)
    (tmp_path / "broken.tif").write_text("no slide", encoding="ascii")
    rows = {"good": good, "white": tmp_path / "white.tif", "broken": tmp_path / "broken.tif"}
    for names, code in ((("good", "white"), 0), (("good", "broken"), 1)):
        lines = [f"{name},{rows[name]},{name}" for name in names]
        (tmp_path / "slides.csv").write_text("\n".join(["slide_id,path,patient_id", *lines]), encoding="utf-8")
        done = here(
            PREDICT, finished.folder / "run" / "package", tmp_path / "slides.csv", tmp_path / "out",
            "--impute-covariates", "--device", "cpu",
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert f"{names[1]}: {'TEXT' if code else 'NO_TISSUE'}: " in done.stderr


HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert not ended.code
assert not {"torch", "numpy", "pandas", "pydantic"} & set(sys.modules)
"""


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*_archive.py")))
def test_help_comes_at_once(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, str(SCRIPTS / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
