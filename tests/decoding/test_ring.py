"""Pages in shared memory: nothing lost, nothing doubled, nobody left waiting for a dead process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from pathoml.decoding.ring import LaneWriter, RevokedError, RingReader, RingShape
from pathoml.errors import OutputError

SHAPE, TICKET = RingShape(lanes=2, page_tiles=3, tile_px=8), 5


@pytest.fixture
def ring():
    reader = RingReader(SHAPE)
    yield reader
    reader.close()


def fill(name: str, lane: int, tiles: int) -> None:
    writer = LaneWriter(SharedMemory(name=name), SHAPE, lane, TICKET)
    writer.stain(np.array([lane, 0.5]))
    for start in range(0, tiles, 3):
        rows = np.arange(start, min(tiles, start + 3))
        page = writer.page()
        page[: len(rows)] = (rows % 251)[:, None, None, None]
        writer.deliver(rows)
    os._exit(0)  # like a worker: the memory stays open until the process ends


def drained(ring: RingReader, lane: int, tiles: int) -> list[int]:
    seen: list[int] = []
    deadline = time.monotonic() + 60
    while len(seen) < tiles and time.monotonic() < deadline:
        page = ring.full_page(lane)
        if page is None:
            time.sleep(0.001)
            continue
        pixels, rows = page
        assert (pixels == (rows % 251)[:, None, None, None]).all()
        seen += rows.tolist()
        del page, pixels
        ring.free_page(lane)
    return seen


def test_two_processes_fill_their_lanes_and_everything_comes_once_and_in_order(ring: RingReader) -> None:
    context = multiprocessing.get_context("spawn")
    ring.reset(0, TICKET)
    ring.reset(1, TICKET)
    processes = [context.Process(target=fill, args=(ring.name, lane, 500 + lane)) for lane in (0, 1)]
    for one in processes:
        one.start()
    assert drained(ring, 0, 500) == list(range(500))
    deadline = time.monotonic() + 60
    while not ring.is_waiting(1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ring.is_waiting(1), "the other lane is full and waits for its reader"
    assert ring.writer(1) == processes[1].pid
    assert drained(ring, 1, 501) == list(range(501))
    np.testing.assert_array_equal(ring.colours(1), [1, 0.5])
    for one in processes:
        one.join(30)
    ring.reset(1, TICKET)
    assert ring.colours(1) is None
    assert ring.full_page(1) is None


def test_a_process_killed_in_the_middle_leaves_whole_pages_and_a_usable_lane(ring: RingReader) -> None:
    context = multiprocessing.get_context("spawn")
    ring.reset(0, TICKET)
    victim = context.Process(target=fill, args=(ring.name, 0, 10_000))
    victim.start()
    assert drained(ring, 0, 30)[:30] == list(range(30))
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(30)
    ring.reset(0, TICKET)
    next_one = context.Process(target=fill, args=(ring.name, 0, 20))
    next_one.start()
    assert drained(ring, 0, 20) == list(range(20))
    next_one.join(30)


def test_a_writer_may_be_told_to_use_less_of_its_pages(ring: RingReader) -> None:
    memory = SharedMemory(name=ring.name)
    ring.reset(0, TICKET)
    assert len(LaneWriter(memory, SHAPE, 0, TICKET).page()) == 3
    writer = LaneWriter(memory, SHAPE, 0, TICKET, page_tiles=2)
    writer.page()[:] = 7
    writer.deliver(np.array([4, 5]))
    pixels, rows = ring.full_page(0)
    assert (pixels == 7).all()
    assert rows.tolist() == [4, 5]


def test_who_was_given_up_before_it_began_writes_nothing(ring: RingReader) -> None:
    """Its lane is another's by then, whose tiles would be mixed with its own."""
    memory = SharedMemory(name=ring.name)
    ring.reset(0, TICKET)
    assert ring.revoke(0) == 0
    ring.reset(0, TICKET + 1)
    with pytest.raises(RevokedError, match="given up before it began"):
        LaneWriter(memory, SHAPE, 0, TICKET)
    assert ring.writer(0) == 0, "the lane's owner is who begins with its ticket"
    LaneWriter(memory, SHAPE, 0, TICKET + 1)
    assert ring.revoke(0) == os.getpid(), "who has begun is waited for"


def test_too_little_shared_memory_is_said_before_anything_is_touched() -> None:
    with pytest.raises(OutputError, match=r"are needed for tiles and .* MB are free in /dev/shm"):
        RingReader(RingShape(lanes=100_000, page_tiles=64, tile_px=1024))


def test_decoding_loads_no_torch() -> None:
    code = "import pathoml.decoding.workers, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
