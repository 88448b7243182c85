"""Processes: told apart from later ones of the same number, weighed, and ended with those they work for."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pathoml.processes import is_running, private_bytes, this_process
from tests.ended import dead_process

ROOT = Path(__file__).parents[1]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_process_is_itself_and_no_other_of_its_number() -> None:
    here = this_process()
    assert here.number == os.getpid()
    assert here == this_process()
    assert here.has_ended() is False
    assert replace(here, started=here.started - 1).has_ended() is True
    assert dead_process() != here


def test_of_another_machine_or_another_start_nothing_is_known() -> None:
    here = this_process()
    assert replace(here, machine="0" * 16).has_ended() is None
    assert replace(here, machine="", number=2**22 + 1).has_ended() is None


@pytest.mark.parametrize("number", [0, -1, 2**22 + 1, 2**80])
def test_a_number_that_names_no_process_does_not_run(number: int) -> None:
    assert not is_running(number)
    assert private_bytes(number) is None


def test_memory_of_its_own_is_weighed() -> None:
    # mapped, not asked of the allocator: that may give memory which the process holds since an earlier test
    with mmap.mmap(-1, 200_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        before = private_bytes(os.getpid())
        for start in range(0, len(held), mmap.PAGESIZE):
            held[start] = 1
        grown = private_bytes(os.getpid()) - before
    assert 190_000_000 < grown < 260_000_000


def test_memory_shared_with_others_is_not_weighed() -> None:
    with mmap.mmap(-1, 200_000_000) as shared:
        before = private_bytes(os.getpid())
        for start in range(0, len(shared), mmap.PAGESIZE):
            shared[start] = 1
        grown = private_bytes(os.getpid()) - before
    assert grown < 50_000_000


CHILD = """
import os, sys, time
from pathoml.processes import end_with
end_with(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())]).wait()
"""


def test_a_process_ends_with_the_one_it_works_for() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    assert wait_for(lambda: not is_running(child))


EXTRACTING = """
import sys
from pathlib import Path
from tests.lethal_paths import Hanging
from tests.test_faults import entry, recipe, toy
import pathoml.extract.archive as archive
if __name__ == "__main__":
    archive.built_encoder = lambda *_: toy()
    archive.extract_archive([entry(Hanging(sys.argv[1]), name="hangs")], recipe(workers=2), Path(sys.argv[2]))
"""


def children(process: int) -> list[int]:
    text = "".join(path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children"))
    return [int(one) for one in text.split()]


@pytest.mark.slow
def test_decoding_processes_that_hang_end_when_the_extraction_is_killed(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tif"
    slide.touch()
    script = tmp_path / "run.py"
    script.write_text(EXTRACTING, encoding="ascii")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), str(slide), str(tmp_path / "bags")], env=environment)
    started = f"{slide}.hangs"
    assert wait_for(lambda: Path(started).exists() or parent.poll() is not None, 120)
    workers = children(parent.pid)
    assert workers
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not any(is_running(one) for one in workers))


UNGUARDED = """
import sys
from pathlib import Path
from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

slide, bags = Path(sys.argv[1]), Path(sys.argv[2])
recipe = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(workers=1))
extract_archive([SlideEntry("slide", slide, "P1", 0.5, 2)], recipe, bags)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_to_have_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    Image.new("RGB", (600, 600), (200, 120, 160)).save(tmp_path / "slide.png")
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "slide.png", tmp_path / "bags"], capture_output=True, text=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert ended.returncode == 1
    assert 'put its calls of pathoml under `if __name__ == "__main__":`' in ended.stderr
