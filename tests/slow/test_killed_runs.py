"""`pathoml run` killed without warning and started again ends in the same predictions, bit for bit."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.counts import KILL_SEED, RANDOM_KILLS
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.slow

WRITERS = 3
"""Files that can be in the writing at one moment: one of each worker of the extraction, and the run's own."""

STAGE_MARKS: dict[str, Callable[[Path], bool]] = {
    "extract": lambda folder: len(list((folder / "bags").glob("*.h5"))) >= 3,
    "train": lambda folder: len(list((folder / "run" / "folds").glob("*/model.json"))) >= 2,
    "evaluate": lambda folder: (folder / "run" / "package" / "model.json").is_file(),
    "heatmaps": lambda folder: any((folder / "run" / "heatmaps").glob("*.png")),
    "report": lambda folder: (folder / "run" / "heatmaps" / "index.json").is_file(),
}


def start(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pathoml", "run", "study.yaml"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(folder: Path, is_time: Callable[[], bool]) -> bool:
    """Start a run and kill it at a moment; return whether it was still running then."""
    process = start(folder)
    while process.poll() is None and not is_time():
        time.sleep(0.01)
    was_running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return was_running


def finish(folder: Path) -> None:
    assert start(folder).wait(timeout=600) == 0


def assert_same_results(folder: Path, finished: FinishedRun) -> None:
    for name in ("predictions.csv", "evaluation.json", "package/model.safetensors", "package/model.json", "folds.csv"):
        assert (folder / "run" / name).read_bytes() == (finished.folder / "run" / name).read_bytes(), name
    for bag in (finished.folder / "bags").glob("*.h5"):
        assert (folder / "bags" / bag.name).read_bytes() == bag.read_bytes(), bag.name
    assert_nothing_half_done(folder, finished.folder)


def assert_nothing_half_done(folder: Path, undisturbed: Path) -> None:
    """Ask for the files of an undisturbed run and no others, but for hidden scraps of what was being written at the kill."""
    for part in ("bags", "run"):
        assert visible_files(folder / part) == visible_files(undisturbed / part), part
    every = hidden(folder)
    scraps = sorted(path for path in every if every.isdisjoint(path.parents))
    assert all(re.fullmatch(r"\..+\.(tmp|old)", path.name) for path in scraps), scraps
    assert len(scraps) <= WRITERS, scraps


def hidden(folder: Path) -> set[Path]:
    return {path for part in ("bags", "run") for path in (folder / part).rglob(".*")}


def visible_files(folder: Path) -> set[str]:
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path) for path in paths if not any(part.startswith(".") for part in path.parts)}


@pytest.mark.parametrize(
    "scrap", ["bags/P001-1.h5.tmp", "run/package.old/model.json", "run/.x.csv", "run/heatmaps/z.png"]
)
def test_a_scrap_in_the_way_is_noticed(scrap: str, finished: FinishedRun, tmp_path: Path):
    for part in ("bags", "run"):
        shutil.copytree(finished.folder / part, tmp_path / part)
    assert_nothing_half_done(tmp_path, finished.folder)
    (tmp_path / scrap).parent.mkdir(exist_ok=True)
    (tmp_path / scrap).touch()
    with pytest.raises(AssertionError, match=Path(scrap).name):
        assert_nothing_half_done(tmp_path, finished.folder)


def test_more_scraps_than_could_be_in_work_are_noticed(finished: FinishedRun, tmp_path: Path):
    for part in ("bags", "run"):
        shutil.copytree(finished.folder / part, tmp_path / part)
    for number in range(WRITERS + 1):
        (tmp_path / "bags" / f".P001-1.h5.{number}.tmp").touch()
    with pytest.raises(AssertionError, match=f"{WRITERS + 1} <= {WRITERS}"):
        assert_nothing_half_done(tmp_path, finished.folder)


@pytest.mark.parametrize("stage", STAGE_MARKS)
def test_killed_inside_a_stage_and_started_again_gives_the_same(
    stage: str, copy_of_cohort: Callable[[], Path], finished: FinishedRun
):
    folder = copy_of_cohort()
    assert kill_when(folder, lambda: STAGE_MARKS[stage](folder)), f"the run was over before {stage} began"
    finish(folder)
    assert_same_results(folder, finished)


@pytest.mark.parametrize("repeat", range(RANDOM_KILLS))
def test_killed_at_random_moments_and_started_again_gives_the_same(
    repeat: int, copy_of_cohort: Callable[[], Path], finished: FinishedRun, whole_run_s: float
):
    folder = copy_of_cohort()
    moment = random.Random(KILL_SEED + repeat).uniform(0.02, 0.98) * whole_run_s
    started = time.monotonic()
    kill_when(folder, lambda: time.monotonic() - started >= moment)
    finish(folder)
    assert_same_results(folder, finished)


@pytest.fixture(scope="module")
def whole_run_s(drawn_cohort: Path, tmp_path_factory: pytest.TempPathFactory, finished: FinishedRun) -> float:
    """Seconds that an undisturbed run takes here and now."""
    folder = tmp_path_factory.mktemp("timed")
    for name in ("cohort.csv", "slides.csv", "study.yaml"):
        (folder / name).write_bytes((drawn_cohort / name).read_bytes())
    (folder / "slides").symlink_to(drawn_cohort / "slides")
    started = time.monotonic()
    finish(folder)
    return time.monotonic() - started
