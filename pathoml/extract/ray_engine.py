"""Extraction spread over a Ray cluster: the same archive function, a few slides a task."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathoml.cohort import SlideEntry
from pathoml.errors import InputError, OutOfMemoryError, SlideError, WorkerLostError
from pathoml.extract.archive import extract_archive
from pathoml.extract.outcomes import SlideOutcome, append_to_ledger, failed
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.extras import install_words
from pathoml.progress import Progress, silent

_MOST_SLIDES, _TASKS_A_PLACE = 16, 4
"""Slides of a task, which go through one stream of batches; and tasks for each place, so that all end at about one time."""


def extract_with_ray(
    entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, *, device: str = "cpu", address: str | None = None,
    progress: Progress = silent,
) -> list[SlideOutcome]:  # fmt: skip
    """Make a bag of every slide that has no valid one yet, on every machine of a Ray cluster.

    Slides and folder have to lie where every machine sees them under the same path. Each task is `extract_archive` of a
    few slides, decoded by supervised processes as on one machine; so bags are the same whoever makes them, and a slide
    that crashes, hangs or takes too much memory is lost alone and for the same reason. Where the task's own process dies
    twice, each of its slides becomes a task of its own.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    recipe : Recipe
        What their bags hold.
    folder : Path
        Where ``<slide_id>.h5`` are kept.
    device : str, optional
        ``cpu`` or ``cuda``; see `needs_of_a_task`.
    address : str, optional
        Of the cluster, for example ``auto``; without, Ray is started on this machine for as long as it takes.
    progress : Progress, optional
        Told after every task.

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
        raise InputError(f"the engine ray is not there; {install_words('ray')}") from error
    started, needs = not ray.is_initialized(), needs_of_a_task(recipe.extract, device)
    if started:
        try:
            cores = None if address else max(os.cpu_count() or 1, needs["num_cpus"])
            ray.init(
                address=address, num_cpus=cores, include_dashboard=False, log_to_driver=False, configure_logging=False
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"Ray at {address or 'this machine'} cannot be reached ({error})") from error
    try:
        return _run(entries, recipe, folder, device, progress)
    finally:
        if started:
            ray.shutdown()


def needs_of_a_task(extract: ExtractSettings, device: str) -> dict[str, int]:
    """Return what Ray has to know of a task, as options of ``ray.remote``.

    Parameters
    ----------
    extract : ExtractSettings
        Its threads and decoding processes.
    device : str
        ``cpu`` or ``cuda``.

    Returns
    -------
    dict of str to int
        CPUs, and one GPU if the device is one. Also, that a process is used for any number of tasks (Ray ends those with a
        GPU after each, and the encoder with them), and that a task whose process died is tried once more.
    """
    kept = {"max_calls": 0, "max_retries": 1}
    if device.startswith("cuda"):
        return {"num_gpus": 1, "num_cpus": max(1, extract.workers) + 1, **kept}
    return {"num_cpus": extract.threads_per_worker + 1, **kept}  # one for the process that decodes


def _run(
    entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, device: str, progress: Progress
) -> list[SlideOutcome]:  # fmt: skip
    import ray

    needs = needs_of_a_task(recipe.extract, device)
    remote: Any = ray.remote  # whose types cannot take options from a dict
    task = remote(**needs)(extract_some)
    where = "cuda" if device.startswith("cuda") else device  # Ray shows each task the one GPU that it was given
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    shares = _shared_out(entries, needs, cluster)
    running = {task.remote(share, recipe, folder, where): share for share in shares}
    outcomes: dict[str, SlideOutcome] = {}
    progress("extract", 0, len(entries))
    while running:
        done, _ = ray.wait(list(running))
        for one in done:
            share = running.pop(one)
            try:
                outcomes.update((found.slide_id, found) for found in ray.get(one))
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error  # type: ignore[no-untyped-call]
            except ray.exceptions.RayError as error:  # its process or machine died, or had no memory, twice
                if len(share) > 1:  # which slide it was is found by giving each a task
                    running |= {task.remote([entry], recipe, folder, where): [entry] for entry in share}
                    continue
                lost = failed(share[0].slide_id, _as_slide_error(share[0], error))
                outcomes[lost.slide_id] = lost
                append_to_ledger(folder, lost, recipe.digest)
            progress("extract", len(outcomes), len(entries))
    return [outcomes[entry.slide_id] for entry in entries]


def _shared_out(
    entries: Sequence[SlideEntry], needs: Mapping[str, int], cluster: Mapping[str, float]
) -> list[list[SlideEntry]]:
    """Cut the slides into tasks: several for each place of the cluster, of few slides each."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    places = max(1, int(min(cluster.get(names[one], 0) // needs[one] for one in names if one in needs)))
    size = max(1, min(_MOST_SLIDES, len(entries) // (places * _TASKS_A_PLACE)))
    return [list(entries[start : start + size]) for start in range(0, len(entries), size)]


def _as_slide_error(entry: SlideEntry, error: Exception) -> SlideError:
    """Return the error that the slide would have had on one machine."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return OutOfMemoryError(f"{entry.path.name}: its machine had no memory left, twice ({error})")
    return WorkerLostError(f"{entry.path.name}: the process that worked on it died twice ({error})")


def extract_some(entries: Sequence[SlideEntry], recipe: Recipe, folder: Path, device: str) -> list[SlideOutcome]:
    """Make the bags of some slides: the body of a Ray task.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    recipe : Recipe
        What their bags hold.
    folder : Path
        Where they are kept.
    device : str
        ``cpu`` or ``cuda``.

    Returns
    -------
    list of SlideOutcome
        What became of them. They are decoded in processes of their own, whatever ``extract.workers`` says, so that Ray's
        outlives them; where there is no GPU in one, beside one encoder.
    """
    workers = max(1, recipe.extract.workers) if device.startswith("cuda") else 1
    extract = recipe.extract.model_copy(update={"workers": workers, "cpu_encoders": 1})
    return extract_archive(entries, replace(recipe, extract=extract), folder, device=device)
