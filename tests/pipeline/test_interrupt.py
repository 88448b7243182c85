"""Ctrl-C, and a scheduler's way of pressing it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pathoml.bags import read_bag

pytestmark = [pytest.mark.xdist_group("small_cohort"), pytest.mark.slow]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_that_it_can_go_on_and_leaves_only_whole_bags(
    number: signal.Signals, copy_of_cohort: Callable[[], Path]
):
    folder = copy_of_cohort()
    command = [sys.executable, "-m", "pathoml", "run", "study.yaml"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((folder / "bags").glob("*.h5")):
        time.sleep(0.05)
    process.send_signal(number)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 3, message
    assert "the same command goes on where it stopped" in message
    assert "Traceback" not in message
    for bag in (folder / "bags").glob("*.h5"):
        read_bag(bag)
    assert not (folder / "run" / "predictions.csv").exists()
