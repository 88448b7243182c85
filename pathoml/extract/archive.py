"""Archive of slides -> bags: what is missing is made, what is there is kept, what fails is said."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pathoml.cohort import SlideEntry
from pathoml.errors import InputError
from pathoml.extract.built import built_encoder
from pathoml.extract.floor import in_parallel, one_by_one
from pathoml.extract.kept import Wanted, all_kept, has_weights, wanted_by_folder
from pathoml.extract.line import Job, Line
from pathoml.extract.locks import Locks, sweep_locks
from pathoml.extract.outcomes import SlideOutcome, append_to_ledger
from pathoml.extract.slide import stream_of
from pathoml.extract.staging import InPlace, Staging
from pathoml.extract.status import StatusKeeper, Watch
from pathoml.extract.stream import EncodingPlace
from pathoml.extract_settings import Recipe
from pathoml.files import make_folder
from pathoml.manifest import remote_slides
from pathoml.progress import Progress, silent


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
        ``cpu``, ``cuda`` (every GPU of the machine; batches are shared out) or one of them, ``cuda:1``.
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
    InputError
        If slides lie in an object store and no folder is named for copies.
    OutputError
        If the folder cannot be written to.
    """
    if recipe.extract.staging is None and (remote := remote_slides(entries, "manifest")):
        raise InputError("slides do not lie on this machine", remote)
    wanted = wanted_by_folder(recipe, folder)
    outcomes = _kept(entries, wanted, progress)
    if len(outcomes) < len(entries) and any(one.weights_digest is None for one in wanted.values()):
        wanted = {place: _with_weights(one, device) for place, one in wanted.items()}
        outcomes = {name: kept for name, kept in outcomes.items() if has_weights(name, wanted)}
    todo = deque(entry for entry in entries if entry.slide_id not in outcomes)
    progress("extract", len(outcomes), len(entries))
    sweep_locks(folder)  # of a process that was killed when its last bag was written
    if todo:
        keeper = StatusKeeper(folder, len(entries), len(_places(recipe, device)), watch)
        for one in outcomes.values():
            keeper.count(one)
        for outcome in _extract_all(todo, {place: one.recipe for place, one in wanted.items()}, device, keeper):
            outcomes[outcome.slide_id] = outcome
            progress("extract", len(outcomes), len(entries))
    return [outcomes[entry.slide_id] for entry in entries]


def _kept(
    entries: Sequence[SlideEntry], wanted: Mapping[Path, Wanted], progress: Progress
) -> dict[str, SlideOutcome]:  # fmt: skip
    """Return the outcomes of the slides whose bags are there already, looking at several at once: each is read whole."""
    outcomes: dict[str, SlideOutcome] = {}
    threads = max(1, next(iter(wanted.values())).recipe.extract.workers)
    with ThreadPoolExecutor(threads, thread_name_prefix="kept") as pool:
        for entry, kept in zip(entries, pool.map(partial(all_kept, wanted=wanted), entries), strict=True):
            if kept is not None:
                outcomes[entry.slide_id] = kept
                progress("extract", len(outcomes), len(entries))
    return outcomes


def _with_weights(wanted: Wanted, device: str) -> Wanted:
    """Find out by building it which weights an encoder has; it is about to be needed anyway."""
    return replace(wanted, weights_digest=_encoding_places(wanted.recipe, device)[0].encoder.weights_digest)


def _extract_all(
    todo: deque[SlideEntry], recipes: Mapping[Path, Recipe], device: str, keeper: StatusKeeper
) -> Iterator[SlideOutcome]:
    folder, recipe = next(iter(recipes.items()))
    places = {place: _encoding_places(own, device) for place, own in recipes.items()}
    for encoder, _ in (one[0] for one in places.values()):
        encoder.check_tiles(target_mpp=recipe.tiling.target_mpp, tile_px=recipe.tiling.tile_px)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.extract.threads_per_worker)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        locks = Locks(folder)
        stack.callback(locks.close)
        staging = recipe.extract.staging
        source = InPlace() if staging is None else stack.enter_context(Staging(staging))
        jobs = []
        for place, own in recipes.items():
            make_folder(place)
            stream = stack.enter_context(stream_of(own, places[place]))
            jobs.append(Job(own, place, places[place][0].encoder, stream))
        line, stream = Line(jobs, device, locks, source), jobs[0].stream
        keeper.tell(stream, now=True)
        for outcome in one_by_one(line, todo) if recipe.extract.workers == 0 else in_parallel(line, todo):
            if outcome is not None:
                if outcome.status != "kept":
                    append_to_ledger(folder, outcome, recipe.digest)
                keeper.count(outcome)
                yield outcome
            keeper.tell(stream)
        keeper.tell(stream, now=True)


def _places(recipe: Recipe, device: str) -> list[str]:
    """Return where batches are encoded side by side: on every GPU, or several times on the CPU."""
    if device == "cuda":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device.startswith("cuda"):
        return [device]
    return ["cpu"] * (1 if recipe.extract.workers == 0 else recipe.extract.cpu_encoders)


def _encoding_places(recipe: Recipe, device: str) -> list[EncodingPlace]:
    return [
        EncodingPlace(built_encoder(recipe.encoder, recipe.extract, place), place) for place in _places(recipe, device)
    ]
