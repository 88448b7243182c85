"""FAULTS row 29: one owner a slide, whoever works; a dead owner's lock is taken over."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pathoml.extract.locks import STALE_S, Locks, sweep_locks


@pytest.fixture
def locks(tmp_path: Path):
    one = Locks(tmp_path)
    yield one
    one.close()


def write_lock(folder: Path, slide_id: str, **content: object) -> Path:
    path = folder / "locks" / f"{slide_id}.lock"
    path.write_text(json.dumps(content), encoding="ascii")
    return path


def ended_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_slide_has_one_owner_until_it_is_given_back(locks: Locks, tmp_path: Path) -> None:
    other = Locks(tmp_path)
    assert locks.acquire("a")
    assert not other.acquire("a")
    assert locks.owner("a") == f"process {os.getpid()} on {socket.gethostname()}"
    locks.release("a")
    assert other.acquire("a")
    other.close()
    assert locks.acquire("a"), "closing gives everything back"


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(locks: Locks, tmp_path: Path) -> None:
    write_lock(tmp_path, "a", host=socket.gethostname(), pid=ended_process())
    assert locks.acquire("a")


def test_the_lock_of_another_machine_holds_as_long_as_it_is_touched(locks: Locks, tmp_path: Path) -> None:
    path = write_lock(tmp_path, "a", host="elsewhere", pid=1)
    assert not locks.acquire("a")
    long_ago = time.time() - STALE_S - 5
    os.utime(path, (long_ago, long_ago))
    assert locks.acquire("a")


def test_an_owner_touches_its_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.extract.locks.HEARTBEAT_S", 0.05)
    locks = Locks(tmp_path)
    locks.acquire("a")
    path = tmp_path / "locks" / "a.lock"
    os.utime(path, (1000, 1000))
    for _ in range(100):
        if path.stat().st_mtime > 1000:
            break
        time.sleep(0.05)
    assert path.stat().st_mtime > 1000
    locks.close()


def test_what_a_killed_process_left_is_swept_up_though_nothing_is_left_to_do(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    write_lock(tmp_path, "a", host=socket.gethostname(), pid=ended_process())
    (tmp_path / "locks" / ".clock-1").touch()
    sweep_locks(tmp_path)
    assert not (tmp_path / "locks").exists()
    (tmp_path / "locks").mkdir()
    write_lock(tmp_path, "b", host="elsewhere", pid=1)
    sweep_locks(tmp_path)
    assert (tmp_path / "locks" / "b.lock").exists(), "another machine's owner is alive as long as it touches its lock"


RACE = """
import sys, time
from pathlib import Path
from pathoml.extract.locks import Locks
locks = Locks(Path(sys.argv[1]))
while not (Path(sys.argv[1]) / "go").exists():
    time.sleep(0.001)
print(sum(locks.acquire(str(number)) for number in range(200)), flush=True)
sys.stdin.read()
"""


def test_of_processes_that_race_for_slides_each_slide_has_one(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    time.sleep(1.5)
    for number in range(0, 200, 2):  # every second one has a stale lock to fight over
        (tmp_path / "locks").mkdir(exist_ok=True)
        write_lock(tmp_path, str(number), host=socket.gethostname(), pid=ended_process() if number == 0 else 2**22 + 1)
    (tmp_path / "go").touch()
    won = [int(one.stdout.readline()) for one in racers]
    for one in racers:
        one.communicate("", timeout=30)
    assert sum(won) == 200


@pytest.mark.parametrize("content", [b"\0" * 40, b"[]", b"{", b""])
def test_a_lock_that_says_nothing_goes_by_its_age(locks: Locks, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "locks" / "a.lock"
    path.write_bytes(content)
    assert not locks.acquire("a")
    os.utime(path, (time.time() - 2 * STALE_S,) * 2)
    assert locks.acquire("a")
