"""Runs side by side on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathoml.files import write_json, write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.report.forest_figures import concordance_figure, difference_figure
from pathoml.report.page import template
from pathoml.report.parts import Picture, SchemePart, Section, Table
from pathoml.report.words import SCHEMES, estimate_words, measure_words


@dataclass(frozen=True)
class Comparison:
    """What the page shows.

    Parameters
    ----------
    runs : sequence of (str, str)
        Name of each run, and where it stands.
    evaluation : mapping
        As `pathoml.evaluate.comparison.compare_runs` gives it.
    settings : sequence of tuple of str
        Settings in which the runs differ: name, and the value in each run.
    """

    runs: Sequence[tuple[str, str]]
    evaluation: Mapping[str, Any]
    settings: Sequence[tuple[str, ...]]


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page, and its numbers as JSON beside it.

    Parameters
    ----------
    path : Path
        The HTML file.
    comparison : Comparison
        What it shows.
    """
    names = tuple(name for name, _ in comparison.runs)
    settings = Table("Settings in which the runs differ", ("setting", *names), comparison.settings)
    parts = [_part(name, one) for name, one in comparison.evaluation["schemes"].items()]
    html = template("comparison.html.j2").render(
        comparison=comparison, parts=parts, settings=settings, notice=RESEARCH_USE_ONLY
    )
    write_text(path, html)
    write_json(path.with_suffix(".json"), comparison.evaluation)


def _part(name: str, found: Mapping[str, Any]) -> SchemePart:
    tested, runs = found["tested"], list(found["runs"])
    count = f"{tested['patients']} patients tested in every run, {tested['events']} events"
    measures = [one for one in found["runs"][runs[0]] if all(one in found["runs"][run] for run in runs)]
    pairs = [(f"{one['run']} minus {one['minus']}", one["measures"]) for one in found["differences"]]
    figures = [
        Picture(
            concordance_figure([(run, found["runs"][run]["concordance"]) for run in runs]),
            f"Concordance of each run; {count}. Lines: 95 % intervals.",
        ),
        Picture(
            difference_figure([(pair, one["concordance"]) for pair, one in pairs]),
            f"Differences in concordance on the same draws of patients; {count}. Lines: 95 % intervals.",
        ),
    ]
    tables = [
        Table("Measures", ("measure", *runs), [
            (measure_words(one), *(estimate_words(found["runs"][run][one]) for run in runs)) for one in measures
        ]),
        Table("Paired differences", ("measure", *(pair for pair, _ in pairs)), [
            (measure_words(one), *(estimate_words(values[one]) for _, values in pairs)) for one in measures
        ]),
    ]  # fmt: skip
    folds = (
        "All runs have the same folds."
        if found["same_folds"]
        else "Folds differ between runs; draws of patients do not."
    )
    left = [f"{run}: {number}" for run, number in tested["left_out"].items() if number]
    text = [
        f"{count}. {folds}"
        + (f" Patients left out, since not every run has tested them: {', '.join(left)}." if left else "")
    ]
    return SchemePart(SCHEMES.get(name, name), [], [Section("Measures of every run", text, figures, tables)])
