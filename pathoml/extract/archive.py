"""Archive of slides -> bags: what is missing is made, what is there is kept, what fails is said."""

import logging
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch

from pathoml.bags import read_bag, write_bag
from pathoml.cohort import SlideEntry
from pathoml.contact_sheets import sheet_path
from pathoml.decoding.slide_tiles import SlideTiles, regions_digest
from pathoml.decoding.workers import Decoding, DecodingPool, decode_here
from pathoml.encoders.build import build_encoder
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import EncoderSettings
from pathoml.errors import BagError, OutOfMemoryError, SlideError, WorkerLostError
from pathoml.extract.locks import Locks, sweep_locks
from pathoml.extract.outcomes import SlideOutcome, append_to_ledger, failed
from pathoml.extract.slide import PAGE_TILES, StreamSink, make_bag, stream_of
from pathoml.extract.status import StatusKeeper, Watch
from pathoml.extract.stream import PRECISIONS, BatchStream, SlideFeatures
from pathoml.extract_settings import Recipe
from pathoml.files import make_folder
from pathoml.progress import Progress, silent
from pathoml.slides import slide_fingerprint
from pathoml.stain import stain_change

logger = logging.getLogger(__name__)

_PAUSE_S = 0.003


def extract_archive(
    entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, *, device: str = "cpu", progress: Progress = silent,
    watch: Watch | None = None,
) -> list[SlideOutcome]:  # fmt: skip
    """Make a bag of every slide that has no valid one yet.

    Slides are decoded by supervised processes, their tiles encoded in one stream of batches, their bags written by a
    thread; so the encoder does not wait where a slide ends. A slide that fails is recorded and the others go on; one
    whose process died is tried once more, alone. Several processes may fill the same folder. Each outcome is appended to
    ``ledger.jsonl`` in the folder, the pace to ``metrics.jsonl``. With ``extract.also``, the same decoded tiles go through
    further encoders, whose bags lie in folders beside (`folder_beside`).

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    recipe : Recipe
        What their bags hold.
    folder : Path
        Where ``<slide_id>.h5`` are kept.
    device : str, optional
        ``cpu`` or ``cuda``.
    progress : Progress, optional
        Told after every slide.
    watch : callable, optional
        Told every few seconds how far it is.

    Returns
    -------
    list of SlideOutcome
        In the order of the entries.

    Raises
    ------
    EncoderError
        If the encoder cannot be had or does not take tiles of this size and resolution; nothing is written.
    OutputError
        If the folder cannot be written to.
    """
    outcomes: dict[str, SlideOutcome] = {}
    todo: deque[SlideEntry] = deque()
    for entry in entries:
        kept = _all_kept(entry, _recipes(recipe, folder))
        if kept is None:
            todo.append(entry)
        else:
            outcomes[entry.slide_id] = kept
    progress("extract", len(outcomes), len(entries))
    sweep_locks(folder)  # of a process that was killed when its last bag was written
    if todo:
        keeper = StatusKeeper(folder, len(entries), _calls_at_once(recipe, device), watch)
        for one in outcomes.values():
            keeper.count(one)
        for outcome in _extract_all(todo, recipe, folder, device, keeper):
            outcomes[outcome.slide_id] = outcome
            progress("extract", len(outcomes), len(entries))
    return [outcomes[entry.slide_id] for entry in entries]


def _extract_all(
    todo: deque[SlideEntry], recipe: Recipe, folder: Path, device: str, keeper: StatusKeeper
) -> Iterator[SlideOutcome]:
    encoders = [built_encoder(one.encoder, one.extract.precision, device) for one in _recipes(recipe, folder).values()]
    for encoder in encoders:
        encoder.check_tiles(target_mpp=recipe.tiling.target_mpp, tile_px=recipe.tiling.tile_px)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.extract.threads_per_worker)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        locks = Locks(folder)
        stack.callback(locks.close)
        jobs = []
        for (place, own), encoder in zip(_recipes(recipe, folder).items(), encoders, strict=True):
            make_folder(place)
            stream = stream_of(own, encoder, device=device, at_once=_calls_at_once(recipe, device))
            jobs.append(_Job(own, place, encoder, stack.enter_context(stream)))
        line = _Line(jobs, device, locks)
        stream = jobs[0].stream
        keeper.tell(stream, now=True)
        for outcome in _one_by_one(line, todo) if recipe.extract.workers == 0 else _in_parallel(line, todo):
            if outcome is not None:
                if outcome.status != "kept":
                    append_to_ledger(folder, outcome)
                keeper.count(outcome)
                yield outcome
            keeper.tell(stream)
        keeper.tell(stream, now=True)


def _calls_at_once(recipe: Recipe, device: str) -> int:
    return 1 if device.startswith("cuda") or recipe.extract.workers == 0 else recipe.extract.cpu_encoders


@dataclass(frozen=True)
class _Job:
    """One encoder's part: what its bags hold, where they go, and the stream of its batches."""

    recipe: Recipe
    folder: Path
    encoder: Encoder
    stream: BatchStream


@dataclass
class _Work:
    """A slide on its way: what has come of it so far."""

    entry: SlideEntry
    parts: list[tuple[_Job, SlideFeatures]]
    tiles: SlideTiles | None = None
    began: float = field(default_factory=time.monotonic)

    def is_whole(self) -> bool:
        """Say whether it is decoded and every encoder has given its features."""
        tiles = self.tiles
        return tiles is not None and all(features.is_whole(len(tiles)) for _, features in self.parts)


class _Line:
    """What all slides of one call share, and the steps that each goes through."""

    def __init__(self, jobs: Sequence[_Job], device: str, locks: Locks) -> None:
        self.jobs, self.device = jobs, device
        self.recipe, self.folder = jobs[0].recipe, jobs[0].folder
        self._recipes = {job.folder: job.recipe for job in jobs}
        self._locks = locks
        self._busy_elsewhere: list[SlideEntry] = []

    def work(self, entry: SlideEntry) -> _Work:
        """Begin with a slide: with the encoders whose bags it lacks."""
        lacking = [job for job in self.jobs if _kept(entry, job.folder, job.recipe) is None]
        return _Work(entry, [(job, SlideFeatures()) for job in lacking])

    def flush(self) -> None:
        """Have every batch encoded as it is."""
        for job in self.jobs:
            job.stream.flush()

    def collect(self, *, wait: bool = False) -> bool:
        """Bring features to their slides; say whether any came."""
        return sum(job.stream.collect(wait=wait) for job in self.jobs) > 0

    def claim(self, entry: SlideEntry) -> bool | SlideOutcome:
        """Become the owner of a slide; its outcome if another process has just made its bag."""
        if not self._locks.acquire(entry.slide_id):
            self._busy_elsewhere.append(entry)
            return False
        kept = _all_kept(entry, self._recipes)
        if kept is not None:
            self._locks.release(entry.slide_id)
        return kept or True

    def write(self, work: _Work) -> SlideOutcome:
        """Write the bag of a slide whose tiles all have their features."""
        assert work.tiles is not None  # only whole slides come here
        try:
            for job, features in work.parts:
                bag = make_bag(work.entry.path.name, job.recipe, job.encoder, work.tiles, features)
                write_bag(job.folder / f"{work.entry.slide_id}.h5", bag)
        except SlideError as error:
            return self.lose(work.entry, error)
        self._locks.release(work.entry.slide_id)
        seconds = round(time.monotonic() - work.began, 3)
        return SlideOutcome(work.entry.slide_id, "done", tiles=len(work.tiles), seconds=seconds)

    def lose(self, entry: SlideEntry, error: SlideError) -> SlideOutcome:
        """Give up a slide."""
        self._locks.release(entry.slide_id)
        return failed(entry.slide_id, error)

    def left_to_others(self) -> Iterator[SlideOutcome]:
        """Say of slides that others own whether they are done by now."""
        for entry in self._busy_elsewhere:
            owner = self._locks.owner(entry.slide_id)
            kept = _all_kept(entry, self._recipes)
            message = (
                f"{entry.path.name}: {owner} is at work on it; the same command, given later, sees that it is done"
            )
            yield kept or SlideOutcome(entry.slide_id, "skipped", "IN_WORK", message)


def _one_by_one(line: _Line, todo: deque[SlideEntry]) -> Iterator[SlideOutcome]:
    """Decode and encode in this very process."""
    for entry in todo:
        claimed = line.claim(entry)
        if not claimed:
            continue
        if isinstance(claimed, SlideOutcome):
            yield claimed
            continue
        work = line.work(entry)
        sink = StreamSink(line.recipe, [(job.stream, features) for job, features in work.parts])
        try:
            work.tiles = decode_here(entry, line.recipe, sink, sheet_path(line.folder, entry.slide_id), line.device)
        except SlideError as error:
            yield line.lose(entry, error)
            continue
        line.flush()
        line.collect(wait=True)
        yield line.write(work)
    yield from line.left_to_others()


def _in_parallel(line: _Line, todo: deque[SlideEntry]) -> Iterator[SlideOutcome | None]:
    """Decode in processes, encode in threads, write in another; this thread only hands things on, and yields None between."""
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
    """The slides in work between decoding, encoding and writing."""

    def __init__(
        self, line: _Line, pool: DecodingPool, writer: ThreadPoolExecutor, todo: deque[SlideEntry]
    ) -> None:  # fmt: skip
        self._line, self._pool, self._writer, self._todo = line, pool, writer, todo
        self._again: deque[SlideEntry] = deque()
        self._second: set[str] = set()
        self._decoding: list[tuple[Decoding, _Work]] = []
        self._encoding: list[_Work] = []
        self._writing: deque[Future[SlideOutcome]] = deque()

    def is_busy(self) -> bool:
        """Say whether anything is left to do."""
        return bool(self._todo or self._again or self._decoding or self._encoding or self._writing)

    def turn(self) -> tuple[list[SlideOutcome], bool]:
        """Hand everything on by one step; return which slides ended, and whether any tile moved."""
        ended = self._begin()
        moved = self._take_pages()
        ended += self._end_decoding()
        if not (self._decoding or self._todo or self._again):
            self._line.flush()
        moved |= self._line.collect()
        for work in [one for one in self._encoding if one.is_whole()]:
            self._encoding.remove(work)
            self._writing.append(self._writer.submit(self._line.write, work))
        while self._writing and self._writing[0].done():
            ended.append(self._writing.popleft().result())
        return ended, moved

    def _begin(self) -> list[SlideOutcome]:
        ended = []
        while self._todo and self._pool.has_room():
            entry = self._todo.popleft()
            claimed = self._line.claim(entry)
            if isinstance(claimed, SlideOutcome):
                ended.append(claimed)
            elif claimed:
                self._decoding.append((self._pool.begin(entry), self._line.work(entry)))
        # A second attempt has the machine's memory for itself.
        if self._again and not self._todo and not self._decoding and self._pool.has_room():
            entry = self._again.popleft()
            self._decoding.append((self._pool.begin(entry), self._line.work(entry)))
        return ended

    def _take_pages(self) -> bool:
        moved = False
        for decoding, work in self._decoding:
            for tiles, rows in self._pool.pages(decoding):
                for job, features in work.parts:
                    if features.tiles == 0:
                        features.change = stain_change(job.recipe.stain, self._pool.colours(decoding))
                    job.stream.add(features, tiles, rows)
                moved = True
            self._pool.supervise(decoding)
        return moved

    def _end_decoding(self) -> list[SlideOutcome]:
        ended = []
        for decoding, work in [one for one in self._decoding if one[0].future.done()]:
            self._take_pages()  # what came between the last look and the end
            self._decoding.remove((decoding, work))
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


@lru_cache(maxsize=2)
def built_encoder(settings: EncoderSettings, precision: str, device: str) -> Encoder:
    """Build an encoder on a device, once in a process.

    Parameters
    ----------
    settings : EncoderSettings
        Which.
    precision : str
        ``float32`` or ``bfloat16``.
    device : str
        ``cpu`` or ``cuda``.

    Returns
    -------
    Encoder
        Ready to encode.

    Raises
    ------
    EncoderError
        If it cannot be had.
    """
    if precision == "float32":
        # Without this a GPU rounds the inputs of convolutions to 10 bits and still calls it float32.
        torch.backends.cudnn.allow_tf32 = False
    encoder = build_encoder(settings)
    encoder.module.to(device=device, dtype=PRECISIONS[precision])
    return encoder


def folder_beside(folder: Path, encoder: EncoderSettings) -> Path:
    """Return where the bags of a further encoder lie.

    Parameters
    ----------
    folder : Path
        Of the first encoder's bags.
    encoder : EncoderSettings
        One of ``extract.also``.

    Returns
    -------
    Path
        ``<folder>-<encoder>``, beside it.
    """
    name = getattr(encoder, "name", None) or getattr(encoder, "architecture", None) or getattr(encoder, "features", "")
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{encoder.kind}-{name}")
    return folder.with_name(f"{folder.name}-{plain}")


def _recipes(recipe: Recipe, folder: Path) -> dict[Path, Recipe]:
    """Return what is to be made by folder: the recipe's own bags, and those of further encoders."""
    further = {folder_beside(folder, one): replace(recipe, encoder=one) for one in recipe.extract.also}
    return {folder: recipe, **further}


def _all_kept(entry: SlideEntry, recipes: Mapping[Path, Recipe]) -> SlideOutcome | None:
    """Return the outcome of a slide all of whose bags are whole and up to date."""
    kept = [_kept(entry, folder, recipe) for folder, recipe in recipes.items()]
    return kept[0] if all(kept) else None


def _kept(entry: SlideEntry, folder: Path, recipe: Recipe) -> SlideOutcome | None:
    """Return the outcome of a slide whose bag is whole and up to date."""
    path = folder / f"{entry.slide_id}.h5"
    if not path.is_file() or not entry.path.is_file():
        return None
    try:
        bag = read_bag(path)
        fingerprint = slide_fingerprint(entry.path)
    except (BagError, OSError) as error:
        logger.warning("extracting slide %s again: %s", entry.slide_id, error)
        return None
    header = bag.header
    same_mpp = header.mpp_from == "metadata" if entry.mpp is None else header.slide_mpp == (entry.mpp, entry.mpp)
    same = header.settings_digest == recipe.digest and header.slide_fingerprint == fingerprint
    same &= header.regions_digest == regions_digest(recipe.tissue, entry.slide_id)
    if not same or not same_mpp:
        logger.info("extracting slide %s again: the slide or the settings changed", entry.slide_id)
        return None
    return SlideOutcome(entry.slide_id, "kept", tiles=len(bag.features))
