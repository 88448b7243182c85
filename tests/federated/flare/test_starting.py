"""Processes of participants are started once, kept going, and ended by their number."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.flare import starting
from pathoml.federated.flare.kits import Role, write_kit
from pathoml.processes import is_running
from tests.federated.flare.kits import kit_at

pytest.importorskip("nvflare")

WAITS = """
import sys
from pathlib import Path
from pathoml.federated.flare import starting
from pathoml.federated.flare.kits import read_kit
child = "import os, time; open('child', 'w').write(str(os.getpid())); time.sleep(600)"
starting._command = lambda kit: [sys.executable, "-c", child]
starting.run(read_kit(Path(sys.argv[1])))
"""


def test_a_participant_runs_once_and_ends_with_what_it_started(tmp_path: Path):
    kit = kit_at(tmp_path / "kit")
    write_kit(kit)
    assert starting.running_process(kit) is None
    assert not starting.stop(kit)
    process = subprocess.Popen([sys.executable, "-c", WAITS, str(kit.folder)], cwd=tmp_path)
    try:
        while not (tmp_path / "child").is_file() or not (tmp_path / "child").read_text():
            time.sleep(0.05)
            assert process.poll() is None
        child = int((tmp_path / "child").read_text())
        assert starting.running_process(kit) == process.pid
        with pytest.raises(ConfigError, match=f"runs already as process {process.pid}"):
            starting.run_in_background(kit)
        assert starting.stop(kit)
        assert process.wait() == 0
        assert not is_running(child)
        assert starting.running_process(kit) is None
    finally:
        process.kill()
        process.wait()


def test_what_dies_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(starting, "_PAUSE_S", 0.0)
    monkeypatch.setattr(starting, "_command", lambda kit: [sys.executable, "-c", "raise SystemExit(7)"])
    kit = kit_at(tmp_path / "kit")
    with pytest.raises(FederationError, match=r"north: ended 6 times within 5 minutes \(last exit code 7\)"):
        starting.run(kit)
    assert starting.running_process(kit) is None


def test_the_operators_kit_starts_no_process(tmp_path: Path):
    with pytest.raises(ConfigError, match="starts the run, not a process"):
        starting.run(kit_at(tmp_path / "kit", Role.OPERATOR))


@pytest.mark.parametrize(
    ("role", "name"), [(Role.SITE, "client.key"), (Role.SITE, "rootCA.pem"), (Role.COORDINATOR, "server.crt")]
)
def test_a_kit_without_a_key_is_not_started(tmp_path: Path, role: Role, name: str):
    kit = kit_at(tmp_path / "kit", role)
    (kit.folder / "startup" / name).unlink()
    for start in (starting.run, starting.run_in_background):
        with pytest.raises(ConfigError, match=f"{name}: is not there or cannot be read by this account"):
            start(kit)
