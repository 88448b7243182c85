"""Slides in work: one by one in this process, or many between decoding processes, encoder threads and a writer."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

from pathoml.cohort import SlideEntry
from pathoml.contact_sheets import sheet_path
from pathoml.decoding.workers import Decoding, DecodingPool, decode_here
from pathoml.errors import OutOfMemoryError, SlideError, WorkerLostError
from pathoml.extract.line import Line, Work
from pathoml.extract.outcomes import SlideOutcome
from pathoml.extract.slide import FEW_TILES, PAGE_TILES, StreamSink
from pathoml.stain import stain_change

_PAUSE_S = 0.003
_Fetching = deque[tuple[SlideEntry, "Future[SlideEntry]"]]


def one_by_one(line: Line, todo: deque[SlideEntry]) -> Iterator[SlideOutcome]:
    """Decode and encode in this very process; where slides are copied near, the next ones are meanwhile.

    Parameters
    ----------
    line : Line
        What the slides share.
    todo : deque of SlideEntry
        The slides; emptied.

    Yields
    ------
    SlideOutcome
        One a slide.
    """
    near: _Fetching = deque()
    while True:
        yield from _fetch(line, todo, near, max(1, line.source.ahead))
        if near:
            yield _decode_and_write(line, *_first_near(near))
        elif not todo:
            todo.extend(line.freed())
            if not todo:
                break
    yield from line.left_to_others()


def _fetch(line: Line, todo: deque[SlideEntry], near: "_Fetching", most: int) -> Iterator[SlideOutcome]:
    """Claim the next slides and have them brought near; give the outcomes of those that are done already."""
    while todo and len(near) < most:
        entry = todo.popleft()
        claimed = line.claim(entry)
        if isinstance(claimed, SlideOutcome):
            yield claimed
        elif claimed:
            near.append((entry, line.source.fetch(entry)))


def _first_near(near: _Fetching) -> tuple[SlideEntry, "Future[SlideEntry]"]:
    """Take a slide that is near already; any, since others may wait for the room that it takes."""
    wait([future for _, future in near], return_when=FIRST_COMPLETED)
    first = next(one for one in near if one[1].done())
    near.remove(first)
    return first


def _decode_and_write(line: Line, entry: SlideEntry, fetched: "Future[SlideEntry]") -> SlideOutcome:
    attempt = 1
    try:
        near = fetched.result()
        try:
            work = _decode(line, entry, near, attempt)
        except OutOfMemoryError as error:
            line.try_again(entry, error)
            attempt = 2
            work = _decode(line, entry, near, attempt)
    except SlideError as error:
        return line.lose(entry, error, attempt=attempt)
    finally:
        line.source.release(entry)
    line.flush()
    line.collect(wait=True)
    return line.write(work)


def _decode(line: Line, entry: SlideEntry, near: SlideEntry, attempt: int) -> Work:
    work = line.work(entry, attempt)
    parts = [(job.stream, features) for job, features in work.parts]
    sink = StreamSink(line.recipe, parts, PAGE_TILES if attempt == 1 else FEW_TILES)
    work.tiles = decode_here(near, line.recipe, sink, sheet_path(line.folder, entry.slide_id), line.device)
    return work


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
        self._fetching: _Fetching = deque()
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
        """Have the next slides brought near: as many as can begin, and a few ahead where that takes time."""
        most = max(self._line.source.ahead, self._pool.free_lanes())
        ended = list(_fetch(self._line, self._todo, self._fetching, most))
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
            again = entry.slide_id in self._second
            decoding = self._pool.begin(near, page_tiles=FEW_TILES if again else None)
            self._decoding.append((decoding, self._line.work(entry, 2 if again else 1)))
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
                work.require_all_tiles()
            except SlideError as error:
                work.tiles = None
                again = work.attempt == 1 and isinstance(error, WorkerLostError | OutOfMemoryError)
                if again:
                    self._line.try_again(work.entry, error)
                    self._second.add(work.entry.slide_id)
                    self._again.append(work.entry)
                else:
                    ended.append(self._line.lose(work.entry, error, attempt=work.attempt))
                continue
            self._encoding.append(work)
        return ended
