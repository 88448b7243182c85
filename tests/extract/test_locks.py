"""FAULTS row 29: one owner a slide, whoever works; a dead owner's lock is taken over."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pathoml.extract.locks import STALE_S, Locks, sweep_locks
from pathoml.processes import ProcessIdentity, this_process
from tests.ended import dead_process


@pytest.fixture
def locks(tmp_path: Path):
    one = Locks(tmp_path)
    yield one
    one.close()


ELSEWHERE = ProcessIdentity("elsewhere", "0" * 16, 1, 1)


def write_lock(folder: Path, slide_id: str, owner: ProcessIdentity) -> Path:
    path = folder / "locks" / f"{slide_id}.lock"
    path.write_text(json.dumps({**asdict(owner), "token": "other"}), encoding="ascii")
    return path


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
    write_lock(tmp_path, "a", dead_process())
    assert locks.acquire("a")


def test_a_later_process_of_the_same_number_is_not_taken_for_the_owner(locks: Locks, tmp_path: Path) -> None:
    here = this_process()
    write_lock(tmp_path, "a", replace(here, started=here.started - 1))
    assert locks.acquire("a")
    write_lock(tmp_path, "b", here)  # as long as it lives, whoever it is
    assert not locks.acquire("b")


@pytest.mark.parametrize("number", [1, 2**22 + 1], ids=["lives here", "does not"])
def test_after_a_restart_a_lock_goes_by_its_age_whatever_lives_now(locks: Locks, tmp_path: Path, number: int) -> None:
    """A machine of the same name that was started at another time may be another machine, and its owner alive."""
    before = replace(this_process(), machine="f" * 16, number=number)
    path = write_lock(tmp_path, "a", before)
    assert not locks.acquire("a")
    os.utime(path, (time.time() - STALE_S - 5,) * 2)
    assert locks.acquire("a")


def test_an_owner_that_was_held_up_leaves_the_lock_of_its_successor_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pathoml.extract.locks.HEARTBEAT_S", 0.05)
    slow = Locks(tmp_path)
    assert slow.acquire("a")
    path = write_lock(tmp_path, "a", ELSEWHERE)
    os.utime(path, (1000, 1000))
    deadline = time.monotonic() + 30
    while "was taken away" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "another process may do the same slide" in caplog.text
    assert path.stat().st_mtime == 1000, "not kept alive for another"
    slow.release("a")
    assert path.exists()
    os.utime(path)
    slow.close()
    assert path.exists()


def test_the_lock_of_another_machine_holds_as_long_as_it_is_touched(locks: Locks, tmp_path: Path) -> None:
    path = write_lock(tmp_path, "a", ELSEWHERE)
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
    write_lock(tmp_path, "a", dead_process())
    (tmp_path / "locks" / ".clock-1").touch()
    sweep_locks(tmp_path)
    assert not (tmp_path / "locks").exists()
    (tmp_path / "locks").mkdir()
    write_lock(tmp_path, "b", ELSEWHERE)
    sweep_locks(tmp_path)
    assert (tmp_path / "locks" / "b.lock").exists(), "another machine's owner is alive as long as it touches its lock"


MAKER = """
import sys
from pathlib import Path
from pathoml.extract.locks import Locks
locks = Locks(Path(sys.argv[1]))
for _ in range(1500):
    assert locks.acquire("a")
    locks.release("a")
"""


def test_a_lock_is_never_seen_without_its_owner(tmp_path: Path) -> None:
    """One that was killed between making its lock and writing its name would hold the slide for minutes."""
    maker = subprocess.Popen([sys.executable, "-c", MAKER, str(tmp_path)])
    path, seen = tmp_path / "locks" / "a.lock", set()
    while maker.poll() is None:
        try:
            seen.add(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            continue
    assert maker.returncode == 0
    assert seen, "some were seen"
    assert {json.loads(content)["number"] for content in seen} == {maker.pid}


@pytest.mark.parametrize("deaths", [1, 2])
def test_one_who_died_while_taking_over_holds_nothing_up(locks: Locks, tmp_path: Path, deaths: int) -> None:
    path = write_lock(tmp_path, "a", dead_process())
    for _ in range(deaths):
        content = path.read_text(encoding="ascii")
        path = path.with_name(f"{path.name}.takeover")
        path.write_text(content, encoding="ascii")
    assert locks.acquire("a")
    assert [one.name for one in (tmp_path / "locks").iterdir()] == ["a.lock"]


def test_one_who_is_taking_over_is_not_disturbed(locks: Locks, tmp_path: Path) -> None:
    path = write_lock(tmp_path, "a", dead_process())
    write_lock(tmp_path, "a.lock", ELSEWHERE).rename(path.with_name("a.lock.takeover"))
    assert not locks.acquire("a")


def test_shares_without_hard_links_have_one_owner_a_slide_too(
    locks: Locks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    other = Locks(tmp_path)
    assert locks.acquire("a")
    assert not other.acquire("a")
    other.close()
    assert [one.name for one in (tmp_path / "locks").iterdir()] == ["a.lock"]


FORKED = """
import os, sys, time
from pathlib import Path
from pathoml.extract.locks import Locks  # once for all of them: it takes longer than what they do
folder, processes = Path(sys.argv[1]), int(sys.argv[2])
is_child = any(os.fork() == 0 for _ in range(processes - 1))
locks = Locks(folder)
def done(*found):
    os.write(1, (" ".join(map(str, found)) + chr(10)).encode())
    if is_child:
        os._exit(0)
    for _ in range(processes - 1):
        os.wait()
"""
"""Several processes of one script: the first waits for the others."""

RACE = f"""{FORKED}
while not (folder / "go").exists():
    time.sleep(0.001)
won = sum(locks.acquire(str(number)) for number in range(200))
(folder / str(os.getpid())).touch()
while len([one for one in folder.iterdir() if one.name.isdecimal()]) < processes:  # whose owner has ended is anybody's
    time.sleep(0.001)
done(won)
"""


def forked(script: str, folder: Path, processes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(processes)], stdout=subprocess.PIPE, text=True
    )


def test_of_processes_that_race_for_slides_each_slide_has_one(tmp_path: Path) -> None:
    dead = dead_process()
    (tmp_path / "locks").mkdir()
    for number in range(0, 200, 2):  # every second one has a stale lock to fight over
        write_lock(tmp_path, str(number), dead)
    racers = forked(RACE, tmp_path, 3)
    (tmp_path / "go").touch()
    won = [int(line) for line in racers.communicate(timeout=120)[0].split()]
    assert len(won) == 3
    assert sum(won) == 200


@pytest.mark.parametrize("content", [b"\0" * 40, b"[]", b"{", b"", b'{"host": "a", "pid": 1}'])
def test_a_lock_that_says_nothing_goes_by_its_age(locks: Locks, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "locks" / "a.lock"
    path.write_bytes(content)
    assert not locks.acquire("a")
    os.utime(path, (time.time() - 2 * STALE_S,) * 2)
    assert locks.acquire("a")


STRESS = f"""{FORKED}
until, held, broken = time.monotonic() + 2, 0, 0
while time.monotonic() < until:
    if not locks.acquire("a"):
        continue
    held += 1
    try:
        (folder / "in_use").touch(exist_ok=False)
    except FileExistsError:
        broken += 1
    else:
        (folder / "in_use").unlink()
    locks.release("a")
done(held, broken)
"""


def test_of_processes_that_take_and_give_back_one_slide_never_two_have_it(tmp_path: Path) -> None:
    """A lock that vanished between two looks is not a dead owner's: taking it over removed what a third had just made."""
    told = forked(STRESS, tmp_path, 4).communicate(timeout=120)[0]
    counts = [tuple(map(int, line.split())) for line in told.splitlines()]
    assert sum(held for held, _ in counts) > 100
    assert [broken for _, broken in counts] == [0, 0, 0, 0]


def test_sweeping_up_leaves_those_who_are_taking_over_alone(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    path = tmp_path / "locks" / "a.lock.takeover"
    write_lock(tmp_path, "a", this_process()).rename(path)
    sweep_locks(tmp_path)
    assert path.exists()
    write_lock(tmp_path, "b", dead_process()).rename(path)
    sweep_locks(tmp_path)
    assert not (tmp_path / "locks").exists()


def test_a_link_that_succeeded_though_its_answer_was_lost_counts(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems ask again, and are told that the name is taken: by themselves."""
    link = os.link

    def ask_twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr("os.link", ask_twice)
    assert locks.acquire("a")
