"""FAULTS rows 19 and 32: an extraction killed 200 times at random moments leaves no partial bag and resumes to the same bytes."""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest

import pathoml.encoders.build  # noqa: F401  (loaded before processes are copied)
from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings
from tests.counts import EXTRACTION_KILLS, KILL_SEED

pytestmark = pytest.mark.slow

SETTINGS = ExtractSettings(workers=2, cpu_encoders=2)
RECIPE = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), SETTINGS)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[SlideEntry]:
    folder = tmp_path_factory.mktemp("slides")
    for index in range(8):
        plan = TissuePlan(
            seed=(23, index), width_um=520.0, height_um=420.0, tissue_area_mm2=0.13, necrosis=0.2, lymphocytes=0.2,
            tumour=0.5, glands=0.3,
        )  # fmt: skip
        draw_slide(folder / f"s{index}.tif", SlideSpec(f"s{index}", plan, 0.5, HOSPITALS[index % 4].stain))
    return [SlideEntry(path.stem, path, "P", None, 2) for path in sorted(folder.glob("*.tif"))]


def begin(entries: list[SlideEntry], folder: Path) -> int:
    """Extract in a copy of this process, which has loaded everything but used no thread."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            outcomes = extract_archive(entries, RECIPE, folder)
            lost = [one for one in outcomes if one.status not in {"done", "kept"}]
            print(*lost, sep="\n", file=sys.stderr, flush=True)
            code = int(bool(lost))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return process


def descendants(process: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                found += [int(child), *descendants(int(child))]
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_after(process: int, seconds: float) -> tuple[bool, list[int]]:
    """Kill a process at a moment; say whether it was at work still, and which processes it had."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            assert status == 0
            return False, []
        time.sleep(0.005)
    others = descendants(process)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True, others


def bags(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.h5")}


def test_killed_at_random_moments_it_resumes_to_the_same_bags(entries: list[SlideEntry], tmp_path: Path) -> None:
    started = time.monotonic()
    process = begin(entries, tmp_path / "undisturbed")
    assert os.waitpid(process, 0)[1] == 0
    whole_s = time.monotonic() - started
    expected = bags(tmp_path / "undisturbed")
    assert len(expected) == len(entries)
    random_moment = random.Random(KILL_SEED)
    kills, finished, folder = 0, 0, tmp_path / "killed"
    left: set[int] = set()
    while kills < EXTRACTION_KILLS:
        process = begin(entries, folder)
        killed, others = kill_after(process, random_moment.uniform(0, whole_s))
        left.update(others)
        for path in folder.glob("*.h5"):
            read_bag(path)  # whole, with every checksum
            assert path.read_bytes() == expected[path.name]
        kills += killed
        if not killed:
            finished += 1
            assert bags(folder) == expected
            visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
            assert visible == {*expected, "ledger.jsonl", "metrics.jsonl", "contact_sheets"}
            shutil.rmtree(folder)
    assert finished >= EXTRACTION_KILLS // 20, "some of the killed extractions came to their end"
    deadline = time.monotonic() + 60
    while any(is_alive(one) for one in left) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [one for one in left if is_alive(one)], "decoding processes outlived who they worked for"
