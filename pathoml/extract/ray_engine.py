"""Extraction spread over a Ray cluster: the same archive function, one slide a task."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathoml.cohort import SlideEntry
from pathoml.errors import InputError, WorkerLostError
from pathoml.extract.archive import extract_archive
from pathoml.extract.outcomes import SlideOutcome, append_to_ledger, failed
from pathoml.extract_settings import Recipe
from pathoml.progress import Progress, silent


def extract_with_ray(
    entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, *, device: str = "cpu", address: str | None = None,
    progress: Progress = silent,
) -> list[SlideOutcome]:  # fmt: skip
    """Make a bag of every slide that has no valid one yet, on every machine of a Ray cluster.

    Slides and folder have to lie where every machine sees them under the same path. Each task is `extract_archive` of one
    slide, so that bags are the same whoever makes them.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    recipe : Recipe
        What their bags hold.
    folder : Path
        Where ``<slide_id>.h5`` are kept.
    device : str, optional
        ``cpu`` or ``cuda``; each task asks for one GPU, or for as many CPUs as its encoder has threads.
    address : str, optional
        Of the cluster, for example ``auto``; without, Ray is started on this machine for as long as it takes.
    progress : Progress, optional
        Told after every slide.

    Returns
    -------
    list of SlideOutcome
        In the order of the entries.

    Raises
    ------
    InputError
        If Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what is run here
    try:
        import ray
    except ImportError as error:
        raise InputError('the engine ray is not installed; pip install "pathoml[ray]"') from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"Ray at {address or 'this machine'} cannot be reached ({error})") from error
    try:
        return _run(entries, recipe, folder, device, progress)
    finally:
        if started:
            ray.shutdown()


def _run(
    entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, device: str, progress: Progress
) -> list[SlideOutcome]:  # fmt: skip
    import ray

    needs = {"num_gpus": 1} if device.startswith("cuda") else {"num_cpus": recipe.extract.threads_per_worker}
    remote: Any = ray.remote  # whose types cannot take options from a dict
    task = remote(max_retries=1, **needs)(extract_one)
    where = "cuda" if device.startswith("cuda") else device  # Ray shows each task the one GPU that it was given
    running = {task.remote(entry, recipe, folder, where): entry for entry in entries}
    outcomes: dict[str, SlideOutcome] = {}
    progress("extract", 0, len(entries))
    while running:
        done, _ = ray.wait(list(running))
        for one in done:
            entry = running.pop(one)
            try:
                outcomes[entry.slide_id] = ray.get(one)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error  # type: ignore[no-untyped-call]
            except ray.exceptions.RayError as error:  # its process or machine died, or had no memory, twice
                lost = WorkerLostError(f"{entry.path.name}: the process that read it died twice ({error})")
                outcomes[entry.slide_id] = failed(entry.slide_id, lost)
                append_to_ledger(folder, outcomes[entry.slide_id])
            progress("extract", len(outcomes), len(entries))
    return [outcomes[entry.slide_id] for entry in entries]


def extract_one(entry: SlideEntry, recipe: Recipe, folder: Path, device: str) -> SlideOutcome:
    """Make the bag of one slide in this process: the body of a Ray task.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    recipe : Recipe
        What its bag holds.
    folder : Path
        Where it is kept.
    device : str
        ``cpu`` or ``cuda``.

    Returns
    -------
    SlideOutcome
        What became of it.
    """
    extract = recipe.extract.model_copy(update={"workers": 0})
    alone = Recipe(recipe.tissue, recipe.tiling, recipe.encoder, extract, recipe.quality, recipe.stain)
    return extract_archive([entry], alone, folder, device=device)[0]
