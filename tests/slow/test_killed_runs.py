"""`pathoml run` killed without warning and started again ends in the same predictions, bit for bit."""

import random
import re
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
    leftovers = [path.name for path in folder.rglob("*") if re.search(r"\.tmp$", path.name)]
    visible = [name for name in leftovers if not name.startswith(".")]
    assert visible == []


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
