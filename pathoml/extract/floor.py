"""Slides in work: one by one in this process, or many between decoding processes, encoder threads and a writer."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from pathoml.cohort import SlideEntry
from pathoml.contact_sheets import sheet_path
from pathoml.decoding.workers import Decoding, DecodingPool, decode_here
from pathoml.errors import OutOfMemoryError, SlideError, WorkerLostError
from pathoml.extract.line import Line, Work
from pathoml.extract.outcomes import SlideOutcome
from pathoml.extract.slide import PAGE_TILES, StreamSink
from pathoml.stain import stain_change

logger = logging.getLogger(__name__)

_PAUSE_S = 0.003


def one_by_one(line: Line, todo: deque[SlideEntry]) -> Iterator[SlideOutcome]:
    """Decode and encode in this very process.

    Parameters
    ----------
    line : Line
        What the slides share.
    todo : deque of SlideEntry
        The slides.

    Yields
    ------
    SlideOutcome
        One a slide.
    """
    for entry in _with_freed(line, todo):
        claimed = line.claim(entry)
        if not claimed:
            continue
        if isinstance(claimed, SlideOutcome):
            yield claimed
            continue
        work = line.work(entry)
        sink = StreamSink(line.recipe, [(job.stream, features) for job, features in work.parts])
        try:
            near = line.source.fetch(entry).result()
            work.tiles = decode_here(near, line.recipe, sink, sheet_path(line.folder, entry.slide_id), line.device)
        except SlideError as error:
            yield line.lose(entry, error)
            continue
        finally:
            line.source.release(entry)
        line.flush()
        line.collect(wait=True)
        yield line.write(work)
    yield from line.left_to_others()


def _with_freed(line: Line, todo: deque[SlideEntry]) -> Iterator[SlideEntry]:
    """Give all slides, then those whose owner has died meanwhile."""
    while todo:
        yield todo.popleft()
        if not todo:
            todo.extend(line.freed())


def in_parallel(line: Line, todo: deque[SlideEntry]) -> Iterator[SlideOutcome | None]:
    """Decode in processes, encode in threads, write in another; this thread only hands things on.

    Parameters
    ----------
    line : Line
        What the slides share.
    todo : deque of SlideEntry
        The slides; emptied.

    Yields
    ------
    SlideOutcome or None
        One a slide; None between, so that the caller can look at the clock.
    """
    workers = min(line.recipe.extract.workers, len(todo))
    sheets = sheet_path(line.folder, "any").parent
    with ExitStack() as stack:
        pool = stack.enter_context(DecodingPool(line.recipe, workers, PAGE_TILES, sheets, line.device))
        writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
        floor = _Floor(line, pool, writer, todo)
        while floor.is_busy():
            ended, moved = floor.turn()
            yield from ended
            yield None
            if not moved and not ended:
                time.sleep(_PAUSE_S)
    yield from line.left_to_others()


class _Floor:
    """The slides in work between fetching, decoding, encoding and writing."""

    def __init__(
        self, line: Line, pool: DecodingPool, writer: ThreadPoolExecutor, todo: deque[SlideEntry]
    ) -> None:  # fmt: skip
        self._line, self._pool, self._writer, self._todo = line, pool, writer, todo
        self._again: deque[SlideEntry] = deque()
        self._second: set[str] = set()
        self._fetching: deque[tuple[SlideEntry, Future[SlideEntry]]] = deque()
        self._decoding: list[tuple[Decoding, Work]] = []
        self._encoding: list[Work] = []
        self._writing: deque[Future[SlideOutcome]] = deque()

    def is_busy(self) -> bool:
        """Say whether anything is left to do; at the end, slides whose owner has died meanwhile are."""
        if not (self._has_slides_left() or self._decoding or self._encoding or self._writing):
            self._todo.extend(self._line.freed())
        return self._has_slides_left() or bool(self._decoding or self._encoding or self._writing)

    def _has_slides_left(self) -> bool:
        return bool(self._todo or self._again or self._fetching)

    def turn(self) -> tuple[list[SlideOutcome], bool]:
        """Hand everything on by one step; return which slides ended, and whether any tile moved."""
        ended = self._fetch() + self._begin()
        moved = self._take_pages()
        ended += self._end_decoding()
        if not self._decoding and not self._has_slides_left():
            self._line.flush()
        moved |= self._line.collect()
        for work in [one for one in self._encoding if one.is_whole()]:
            self._encoding.remove(work)
            self._writing.append(self._writer.submit(self._line.write, work))
        while self._writing and self._writing[0].done():
            ended.append(self._writing.popleft().result())
        return ended, moved

    def _fetch(self) -> list[SlideOutcome]:
        """Claim the next slides and have them brought near: as many as can begin, and a few ahead where that takes time."""
        ended = []
        while self._todo and len(self._fetching) < max(self._line.source.ahead, self._pool.free_lanes()):
            entry = self._todo.popleft()
            claimed = self._line.claim(entry)
            if isinstance(claimed, SlideOutcome):
                ended.append(claimed)
            elif claimed:
                self._fetching.append((entry, self._line.source.fetch(entry)))
        # A second attempt has the machine's memory for itself.
        if self._again and not (self._todo or self._fetching or self._decoding) and self._pool.free_lanes():
            entry = self._again.popleft()
            self._fetching.append((entry, self._line.source.fetch(entry)))
        return ended

    def _begin(self) -> list[SlideOutcome]:
        """Have the slides decoded that are near."""
        ended = []
        for entry, future in [one for one in self._fetching if one[1].done()][: self._pool.free_lanes()]:
            self._fetching.remove((entry, future))
            try:
                near = future.result()
            except SlideError as error:
                ended.append(self._line.lose(entry, error))
                continue
            self._decoding.append((self._pool.begin(near), self._line.work(entry)))
        return ended

    def _take_pages(self) -> bool:
        moved, encoding_s = False, 0.0
        for decoding, work in self._decoding:
            for tiles, rows in self._pool.pages(decoding):
                started = time.monotonic()
                for job, features in work.parts:
                    if features.tiles == 0:
                        features.change = stain_change(job.recipe.stain, self._pool.colours(decoding))
                    job.stream.add(features, tiles, rows)
                encoding_s += time.monotonic() - started
                moved = True
        for decoding, _ in self._decoding:
            self._pool.supervise(decoding, not_looking_s=encoding_s)
        return moved

    def _end_decoding(self) -> list[SlideOutcome]:
        ended = []
        for decoding, work in [one for one in self._decoding if one[0].future.done()]:
            self._take_pages()  # what came between the last look and the end
            self._decoding.remove((decoding, work))
            self._line.source.release(work.entry)
            try:
                work.tiles = self._pool.end(decoding)
            except (WorkerLostError, OutOfMemoryError) as error:
                if work.entry.slide_id in self._second:
                    ended.append(self._line.lose(work.entry, error))
                else:
                    logger.warning("%s; trying once more, alone", error)
                    self._second.add(work.entry.slide_id)
                    self._again.append(work.entry)
                continue
            except SlideError as error:
                ended.append(self._line.lose(work.entry, error))
                continue
            self._encoding.append(work)
        return ended
