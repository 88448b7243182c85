"""Processes that decode slides into shared memory, each supervised: one that dies or hangs costs its slide alone."""

import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from pathoml.cohort import SlideEntry
from pathoml.decoding.ring import LaneWriter, RingReader, RingShape
from pathoml.decoding.slide_tiles import SlideTiles, TileSink, decode_slide
from pathoml.errors import (
    InputError,
    OutOfMemoryError,
    PathomlError,
    SlideError,
    UnforeseenSlideError,
    UnreadableSlideError,
    WorkerLostError,
)
from pathoml.extract_settings import Recipe
from pathoml.processes import NEEDS_MAIN_GUARD, end_with, is_running, private_bytes, require_main_guard
from pathoml.units import FloatArray, RgbImage

logger = logging.getLogger(__name__)

_WEIGH_EVERY_S, _GB = 0.05, 1_000_000_000
_START_S = 300.0
"""In which a process has to begin with a slide: it loads libraries first, from a disk that others may be busy with."""


@dataclass
class Decoding:
    """A slide that is being decoded.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    lane : int
        Where its pages come.
    future : Future of SlideTiles
        What it gives at the end.
    begun_at : float
        When it was handed to the pool.
    busy_s, looked_at : float
        Seconds of work, waiting for a process and for the reader left out, and when they were last counted.
    weighed_at : float
        When the memory of its process was last looked at.
    given_up : SlideError or None
        Why its process was ended.
    """

    entry: SlideEntry
    lane: int
    future: "Future[SlideTiles]"
    begun_at: float = field(default_factory=time.monotonic)
    busy_s: float = 0.0
    looked_at: float = 0.0
    weighed_at: float = 0.0
    given_up: SlideError | None = None


class DecodingPool:
    """Decoding processes and the pages that they fill.

    Parameters
    ----------
    recipe : Recipe
        How slides are decoded.
    workers, page_tiles : int
        Processes, and tiles of a page.
    sheets : Path or None
        Folder for contact sheets, one a slide.
    device : str
        Where a segmentation network runs, if the recipe names one.

    Raises
    ------
    OutputError
        If there is not enough shared memory.
    """

    def __init__(self, recipe: Recipe, workers: int, page_tiles: int, sheets: Path | None, device: str) -> None:
        require_main_guard()
        self._recipe, self._sheets, self._device = recipe, sheets, device
        self._ring = RingReader(RingShape(workers, page_tiles, recipe.tiling.tile_px))
        self._pool = ProcessPool(
            max_workers=workers,
            context=multiprocessing.get_context("spawn"),
            initializer=end_with,
            initargs=[os.getpid()],
        )
        self._idle, self._tickets = list(range(workers)), count(1)
        self._leaving: dict[int, int] = {}  # lane -> process that was told to go

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._pool.close()  # type: ignore[no-untyped-call]
        else:
            self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._ring.close()

    def free_lanes(self) -> int:
        """Return how many slides can begin.

        Returns
        -------
        int
            Lanes that nobody writes to.
        """
        for lane, process in list(self._leaving.items()):
            if not is_running(process):
                del self._leaving[lane]
                self._idle.append(lane)
        return len(self._idle)

    def begin(self, entry: SlideEntry, *, page_tiles: int | None = None) -> Decoding:
        """Let a process decode a slide.

        Parameters
        ----------
        entry : SlideEntry
            The slide; there has to be room.
        page_tiles : int, optional
            Tiles that are decoded at a time; by default a whole page.

        Returns
        -------
        Decoding
            To be looked at until it is done.
        """
        lane = self._idle.pop(0)
        ticket = next(self._tickets)
        self._ring.reset(lane, ticket)
        sheet = None if self._sheets is None else self._sheets / f"{entry.slide_id}.png"
        place = _Place(self._ring.name, self._ring.shape, lane, ticket, page_tiles)
        future: Future[SlideTiles] = self._pool.schedule(
            _decode_into_lane, args=[entry, self._recipe, place, sheet, self._device]
        )
        return Decoding(entry, lane, future, looked_at=time.monotonic())

    def colours(self, one: Decoding) -> FloatArray | None:
        """Return a slide's fitted colours; see `RingReader.colours`.

        Parameters
        ----------
        one : Decoding
            The slide, of which a page has come.

        Returns
        -------
        ndarray of float64, or None
            None where the recipe fits none.
        """
        return self._ring.colours(one.lane)

    def pages(self, one: Decoding) -> Iterator[tuple[RgbImage, NDArray[np.int64]]]:
        """Give the pages that are there; each goes back when the next is asked for.

        Parameters
        ----------
        one : Decoding
            The slide.

        Yields
        ------
        pixels : ndarray of uint8, shape (tiles, side, side, 3)
            To be copied.
        rows : ndarray of int64
            Their rows of the slide's grid.
        """
        while (page := self._ring.full_page(one.lane)) is not None:
            yield page
            self._ring.free_page(one.lane)

    def supervise(self, one: Decoding, *, not_looking_s: float = 0.0) -> None:
        """Give up a slide whose process works on it for too long or holds too much memory.

        Parameters
        ----------
        one : Decoding
            The slide. Waiting for its reader does not count as work.
        not_looking_s : float, optional
            Since the last look, the time in which the reader was held up elsewhere and could not see who waits for whom.
        """
        now, settings, name = time.monotonic(), self._recipe.extract, one.entry.path.name
        if self._ring.writer(one.lane) == 0:
            one.looked_at = now
            if now - one.begun_at > settings.slide_timeout_s + _START_S:
                limit = f"no process began with it in {_START_S:.0f} s and extract.slide_timeout_s: {settings.slide_timeout_s:g}"
                _give_up(one, WorkerLostError(f"{name}: {limit}; is the machine out of memory, or its disk too slow?"))
            return
        if not self._ring.is_waiting(one.lane):
            one.busy_s += max(0.0, now - one.looked_at - not_looking_s)
        one.looked_at = now
        if one.busy_s > settings.slide_timeout_s:
            limit = f"took more than {settings.slide_timeout_s:g} s (extract.slide_timeout_s)"
            _give_up(one, WorkerLostError(f"{name}: {limit} and was given up; is its share slow, or the slide broken?"))
        if now - one.weighed_at > _WEIGH_EVERY_S:
            one.weighed_at = now
            held = private_bytes(self._ring.writer(one.lane)) or 0
            if held > settings.worker_memory_gb * _GB:
                limit = f"took {held / _GB:.1f} GB of memory, more than extract.worker_memory_gb: {settings.worker_memory_gb:g}"
                _give_up(
                    one,
                    OutOfMemoryError(
                        f"{name}: {limit}; raise it, with fewer extract.workers if the machine has no more"
                    ),
                )

    def end(self, one: Decoding) -> SlideTiles:
        """Return what a slide gave, and make room for another.

        Parameters
        ----------
        one : Decoding
            Whose future is done and whose pages were taken.

        Returns
        -------
        SlideTiles
            Of the delivered tiles.

        Raises
        ------
        SlideError
            Whatever is wrong with the slide; `WorkerLostError` if its process died or took too long, `OutOfMemoryError` if it
            held too much memory.
        InputError
            If no process could begin at all.
        """
        writer = self._ring.revoke(one.lane)
        if one.future.cancelled() and writer and is_running(writer):
            self._leaving[one.lane] = writer
        else:
            self._idle.append(one.lane)
        try:
            return one.future.result()
        except CancelledError as error:
            assert one.given_up is not None  # nobody else cancels
            raise one.given_up from error
        except BrokenProcessPool as error:
            raise InputError(f"no worker process could begin ({error}); {NEEDS_MAIN_GUARD}") from error
        except ProcessExpired as error:
            raise WorkerLostError(
                f"{one.entry.path.name}: the process that read it died ({error}); it may need more memory, or be broken"
            ) from error


def _give_up(one: Decoding, why: SlideError) -> None:
    if one.future.cancel():
        one.given_up = why


def decode_here(entry: SlideEntry, recipe: Recipe, sink: TileSink, sheet: Path | None, device: str) -> SlideTiles:
    """Decode a slide; what the operating system says of its file, and what nobody foresaw, becomes an error of the slide.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    recipe : Recipe
        How.
    sink : TileSink
        Receives the tiles.
    sheet : Path or None
        Contact sheet.
    device : str
        For a segmentation network.

    Returns
    -------
    SlideTiles
        Of the delivered tiles.

    Raises
    ------
    SlideError
        Whatever is wrong with the slide.
    OutputError
        If its contact sheet cannot be written.
    """
    try:
        return decode_slide(entry, recipe, sink, sheet=sheet, device=device)
    except MemoryError as error:
        raise OutOfMemoryError(f"{entry.path.name}: more memory than there is was needed to read it") from error
    except OSError as error:
        if isinstance(error, PathomlError):
            raise
        raise UnreadableSlideError(
            f"{entry.path.name}: cannot be read ({error}); is the share there, are you allowed to?"
        ) from error
    except PathomlError:
        raise
    except Exception as error:  # as the death of its process, a fault costs one slide of an archive, not all
        logger.exception("%s: not foreseen", entry.path.name)
        raise UnforeseenSlideError(
            f"{entry.path.name}: {type(error).__name__}: {error} (at {_place(error)}); this is a fault of pathoml or of a library,"
            " not of yours: please report it with this line and the slide's format"
        ) from error


def _place(error: BaseException) -> str:
    """Return file and line of the innermost step of pathoml that led to an error; no path of this machine."""
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if "pathoml" in Path(step.filename).parts] or steps
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"


@dataclass(frozen=True)
class _Place:
    """Where a slide's tiles go."""

    ring: str
    shape: RingShape
    lane: int
    ticket: int
    page_tiles: int | None


def _decode_into_lane(
    entry: SlideEntry, recipe: Recipe, place: _Place, sheet: Path | None, device: str
) -> SlideTiles:  # fmt: skip
    writer = LaneWriter(_attached(place.ring), place.shape, place.lane, place.ticket, place.page_tiles)
    return decode_here(entry, recipe, writer, sheet, device)


@lru_cache(maxsize=1)
def _attached(ring: str) -> SharedMemory:
    """Open the ring's memory once in a process; it stays open as long as arrays lie over it."""
    return SharedMemory(name=ring)
