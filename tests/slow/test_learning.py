"""Aggregators find planted witness tiles: the benchmark's own claims for the quick heads, as a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_attention_finds_witnesses_and_the_mean_does_not() -> None:
    script = Path(__file__).parents[2] / "scripts" / "bench" / "witness.py"
    done = subprocess.run(
        [sys.executable, str(script), "--heads", "mean,abmil,clam"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert len(figures) == 5
    assert all(one["ok"] for one in figures.values())
