"""What a run would do, from a sample of slides. Writes nothing, loads no torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathoml.bags import read_bag_header
from pathoml.config import Config
from pathoml.encoders.weights_identity import known_weights_digest
from pathoml.errors import BagError, SlideError
from pathoml.files import read_lines
from pathoml.looks import look_at
from pathoml.pipeline.study import Study, is_imported, open_study
from pathoml.slides import open_slide
from pathoml.tiles import TissueFinder, classical_finder, tissue_grid
from pathoml.tissue import ClassicalTissueSettings, ModelTissueSettings

SAMPLED_SLIDES = 6
ASSUMED_TILES_PER_S = 60.0
"""Tiles a second and worker where no earlier extraction tells; measured with the small default encoder on one core."""
_BYTES_PER_TILE = 152 * 2 + 30


@dataclass(frozen=True)
class Plan:
    """What `run` would do.

    Parameters
    ----------
    facts : tuple of (str, str)
        Name and value, ready to print.
    """

    facts: tuple[tuple[str, str], ...]


def plan(config: Config) -> Plan:
    """Estimate the work of a study.

    Parameters
    ----------
    config : Config
        All settings.

    Returns
    -------
    Plan
        Slides, tiles, hours, disk; models to fit.

    Raises
    ------
    CohortError
        If the data have problems.
    """
    study = open_study(config)
    facts = [("Output", str(config.output)), ("Patients", str(len(study.cohort)))]
    if config.slides is not None:
        facts += (_bag_facts if is_imported(config.encoder) else _slide_facts)(study, config.slides.bags)
    schemes = ", ".join(scheme.kind for scheme in config.splits.schemes)
    facts.append(("Validation", schemes))
    return Plan(tuple(facts))


def _bag_facts(study: Study, bags: Path) -> list[tuple[str, str]]:
    """Count the bags that are given; nothing will be extracted."""
    absent = [entry.slide_id for entry in study.entries if not (bags / f"{entry.slide_id}.h5").is_file()]
    facts = [("Slides", f"{len(study.entries)}, of which {len(absent)} have no bag")]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        facts.append(("Left out unless imported", shown))
    return facts


def _slide_facts(study: Study, bags: Path) -> list[tuple[str, str]]:
    made_with = study.config.recipe.digest, known_weights_digest(study.config.encoder)
    todo = [entry for entry in study.entries if not _has_bag(bags / f"{entry.slide_id}.h5", *made_with)]
    facts = [("Slides", f"{len(study.entries)}, of which {len(todo)} have no bag yet")]
    if not todo:
        return facts
    near = [entry for entry in todo if entry.url is None]
    if not near:
        return [*facts, ("Tiles", "not known: the slides lie in an object store and are not opened here")]
    sample = [near[index] for index in np.unique(np.linspace(0, len(near) - 1, SAMPLED_SLIDES).round().astype(int))]
    counts, failed = [], []
    for entry in sample:
        try:
            with open_slide(entry.path, mpp=entry.mpp) as slide:
                look = look_at(study.config.tissue, study.config.quality, entry.slide_id, _stand_in)
                counts.append(len(tissue_grid(slide, look, study.config.tiling)))
        except SlideError as error:
            failed.append(f"{entry.slide_id} ({error.code})")
    if failed:
        facts.append(("Sampled slides that would fail", ", ".join(failed)))
    if counts:
        tiles = float(np.mean(counts)) * len(todo)
        rate, source = _tiles_per_second(bags / "ledger.jsonl")
        seconds = tiles / (rate * max(1, study.config.extract.workers))
        facts += [
            ("Tiles", f"about {tiles:,.0f} (mean of {len(counts)} sampled slides: {np.mean(counts):.0f})"),
            ("Time to extract", f"about {duration_words(seconds)} at {rate:.0f} tiles/s and worker ({source})"),
            (
                "Disk for bags, with the default encoder",
                f"about {tiles * _BYTES_PER_TILE / 1e6:,.1f} MB (152 numbers a tile; others in proportion)",
            ),
        ]
    return facts


def duration_words(seconds: float) -> str:
    """Say how long something takes in the unit that suits it.

    Parameters
    ----------
    seconds : float
        How long.

    Returns
    -------
    str
        In seconds, minutes, hours or days.

    Examples
    --------
    >>> [duration_words(one) for one in (0.2, 75, 5_400, 400_000)]
    ['1 s', '75 s', '90 min', '4.6 days']
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _stand_in(settings: ModelTissueSettings) -> TissueFinder:
    """Stand in for a segmentation network, which would load torch."""
    return classical_finder(ClassicalTissueSettings())


def _has_bag(path: Path, recipe_digest: str, weights_digest: str | None) -> bool:
    """Tell whether a bag made with the same settings and weights is there; its checksums are left to the run."""
    try:
        header = read_bag_header(path) if path.is_file() else None
    except BagError:
        return False
    if header is None or header.settings_digest != recipe_digest:
        return False
    return weights_digest in {None, header.weights_digest}


def _tiles_per_second(ledger: Path) -> tuple[float, str]:
    if ledger.is_file():
        rows = read_lines(ledger)
        seconds = sum(row["seconds"] for row in rows)
        tiles = sum(row["tiles"] for row in rows if row["status"] == "done")
        if seconds > 0 and tiles:
            return tiles / seconds, "as in the last extraction"
    return ASSUMED_TILES_PER_S, "an assumption for the default encoder without GPU"
