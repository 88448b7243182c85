"""Pages of decoded tiles in shared memory: written by one process each, read by one, without a lock.

A lane is a handful of pages that one decoding process fills in turn. A page is free or full, and only its one writer
makes it full, only its one reader free; so that a process that is killed at any moment leaves nothing locked behind.
Who may write to a lane has its ticket: a slide that was given up before its process began begins no more.
"""

import os
import shutil
import time
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathoml.errors import OutputError, PathomlError
from pathoml.units import FloatArray, RgbImage

_PAGES = 4
_WORDS, _STAIN_NUMBERS = 8, 32
_WAITING, _PID, _STAINED, _TICKET = 0, 1, 2, 3
"""Words of a lane: is its writer waiting for a free page, who writes, how many numbers the slide's colours take, and who may."""
_FREE, _FULL = 0, 1
_PAUSE_S, _ORPHAN_CHECK_S = 0.0005, 1.0
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class RingShape:
    """How large a ring is.

    Parameters
    ----------
    lanes : int
        Processes that write at once.
    page_tiles : int
        Tiles of a page.
    tile_px : int
        Side of a tile.
    """

    lanes: int
    page_tiles: int
    tile_px: int

    @property
    def page_bytes(self) -> int:
        """Bytes of a page's pixels."""
        return self.page_tiles * self.tile_px * self.tile_px * 3

    @property
    def head_bytes(self) -> int:
        """Bytes of a lane before its pages: words, states, counts, rows, colours."""
        return 8 * (_WORDS + _PAGES * (2 + self.page_tiles) + _STAIN_NUMBERS)

    @property
    def lane_bytes(self) -> int:
        """Bytes of a lane."""
        return self.head_bytes + _PAGES * self.page_bytes


class _Lane:
    """One lane as arrays over shared memory."""

    def __init__(self, memory: SharedMemory, shape: RingShape, number: int) -> None:
        at, side = number * shape.lane_bytes, shape.tile_px
        count = _WORDS + _PAGES * (2 + shape.page_tiles)
        integers: NDArray[np.int64] = np.ndarray((count,), np.int64, memory.buf, at)
        self.words = integers[:_WORDS]
        self.states, self.counts = integers[_WORDS : _WORDS + _PAGES], integers[_WORDS + _PAGES : _WORDS + 2 * _PAGES]
        self.rows = integers[_WORDS + 2 * _PAGES :].reshape(_PAGES, shape.page_tiles)
        at += integers.nbytes
        self.stain: NDArray[np.float64] = np.ndarray((_STAIN_NUMBERS,), np.float64, memory.buf, at)
        at += self.stain.nbytes
        self.pages: NDArray[np.uint8] = np.ndarray((_PAGES, shape.page_tiles, side, side, 3), np.uint8, memory.buf, at)

    def reset(self) -> None:
        self.words[:] = 0
        self.states[:] = _FREE


class RingReader:
    """The reading end, which owns the memory.

    Parameters
    ----------
    shape : RingShape
        Its size.

    Raises
    ------
    OutputError
        If there is not enough shared memory.
    """

    def __init__(self, shape: RingShape) -> None:
        size = shape.lanes * shape.lane_bytes
        free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else size
        if free < size:
            raise OutputError(
                f"shared memory: {size / 1e6:.0f} MB are needed for tiles and {free / 1e6:.0f} MB are free in "
                f"{_SHARED_MEMORY}; set extract.workers lower, or give the container more (docker run --shm-size)"
            )
        self.shape = shape
        self._memory = SharedMemory(create=True, size=size)
        self._lanes = [_Lane(self._memory, shape, number) for number in range(shape.lanes)]
        self._next = [0] * shape.lanes

    @property
    def name(self) -> str:
        """Of the shared memory, for `LaneWriter`."""
        return self._memory.name

    def reset(self, lane: int, ticket: int) -> None:
        """Make a lane ready for another slide.

        Parameters
        ----------
        lane : int
            Which nobody writes to.
        ticket : int
            Of who may write to it from here on; above 0, and another every time.
        """
        self._lanes[lane].reset()
        self._next[lane] = 0
        self._lanes[lane].words[_TICKET] = ticket

    def revoke(self, lane: int) -> int:
        """Let nobody begin to write to a lane any more.

        Parameters
        ----------
        lane : int
            Which.

        Returns
        -------
        int
            Number of the process that has begun already, and goes on until it ends; 0 if none has.
        """
        self._lanes[lane].words[_TICKET] = 0
        return self.writer(lane)

    def is_waiting(self, lane: int) -> bool:
        """Say whether a lane's writer waits for its reader.

        Parameters
        ----------
        lane : int
            Which.

        Returns
        -------
        bool
            True if all its pages are full.
        """
        return bool(self._lanes[lane].words[_WAITING])

    def writer(self, lane: int) -> int:
        """Return who writes to a lane.

        Parameters
        ----------
        lane : int
            Which.

        Returns
        -------
        int
            Process number; 0 before the slide has begun.
        """
        return int(self._lanes[lane].words[_PID])

    def colours(self, lane: int) -> FloatArray | None:
        """Return the fitted colours of a lane's slide.

        Parameters
        ----------
        lane : int
            Which.

        Returns
        -------
        ndarray of float64, or None
            As its writer gave them; None if it gave none.
        """
        count = int(self._lanes[lane].words[_STAINED])
        return self._lanes[lane].stain[:count].copy() if count else None

    def full_page(self, lane: int) -> tuple[RgbImage, NDArray[np.int64]] | None:
        """Return a lane's next page, which stays the reader's until it is freed.

        Parameters
        ----------
        lane : int
            Which.

        Returns
        -------
        pixels : ndarray of uint8, shape (tiles, side, side, 3)
            In shared memory.
        rows : ndarray of int64, shape (tiles,)
            Their rows of the slide's grid.
        """
        own, number = self._lanes[lane], self._next[lane]
        if own.states[number] != _FULL:
            return None
        count = int(own.counts[number])
        return own.pages[number, :count], own.rows[number, :count].copy()

    def free_page(self, lane: int) -> None:
        """Give the page that was last returned back to its writer.

        Parameters
        ----------
        lane : int
            Which.
        """
        self._lanes[lane].states[self._next[lane]] = _FREE
        self._next[lane] = (self._next[lane] + 1) % _PAGES

    def close(self) -> None:
        """Give the memory back."""
        self._lanes.clear()
        self._memory.close()
        self._memory.unlink()


class RevokedError(PathomlError):
    """A slide was given up before its process began with it; nobody waits for what it gives."""


class LaneWriter:
    """The writing end of one lane: a `TileSink` in a decoding process.

    Parameters
    ----------
    memory : SharedMemory
        The ring's, opened by name.
    shape : RingShape
        Its size.
    lane : int
        Which lane.
    ticket : int
        With which the lane was made ready for it.
    page_tiles : int, optional
        Tiles of a page that are used; by default all.

    Raises
    ------
    RevokedError
        If the lane is another's by now.
    """

    def __init__(
        self, memory: SharedMemory, shape: RingShape, lane: int, ticket: int, page_tiles: int | None = None
    ) -> None:  # fmt: skip
        self._memory = memory  # the arrays of a lane do not keep it open
        self._used = slice(page_tiles)
        self._lane = _Lane(memory, shape, lane)
        self._require(ticket)
        self._lane.words[_PID] = os.getpid()
        self._require(ticket)  # again: from here on whoever revokes it sees that somebody has begun
        self._next, self._parent = 0, os.getppid()

    def _require(self, ticket: int) -> None:
        if self._lane.words[_TICKET] != ticket:
            raise RevokedError("the slide was given up before it began")

    def stain(self, fitted: FloatArray) -> None:
        """Take a slide's own colours; see `TileSink.stain`.

        Parameters
        ----------
        fitted : ndarray of float64
            At most 32 numbers.
        """
        self._lane.stain[: len(fitted)] = fitted
        self._lane.words[_STAINED] = len(fitted)

    def page(self) -> RgbImage:
        """Return memory for the next tiles, waiting until the reader has freed some; see `TileSink.page`.

        Returns
        -------
        ndarray of uint8, shape (tiles, side, side, 3)
            In shared memory.
        """
        own, checked = self._lane, time.monotonic()
        while own.states[self._next] != _FREE:
            own.words[_WAITING] = 1
            time.sleep(_PAUSE_S)
            if time.monotonic() - checked > _ORPHAN_CHECK_S:
                checked = time.monotonic()
                if os.getppid() != self._parent:  # whoever would read was killed
                    raise SystemExit(1)
        own.words[_WAITING] = 0
        page: RgbImage = own.pages[self._next][self._used]
        return page

    def deliver(self, rows: NDArray[np.int64]) -> None:
        """Hand the page to the reader; see `TileSink.deliver`.

        Parameters
        ----------
        rows : ndarray of int64
            Rows of the slide's grid.
        """
        self._lane.counts[self._next] = len(rows)
        self._lane.rows[self._next, : len(rows)] = rows
        self._lane.states[self._next] = _FULL  # last: from here on the page is the reader's
        self._next = (self._next + 1) % _PAGES
