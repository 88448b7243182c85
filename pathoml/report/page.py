"""The page: tables and figures into one HTML file that needs nothing else, and the numbers beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pathoml.cohort import FlowStep
from pathoml.files import write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.report.checklist import checklist_table, fill_checklist
from pathoml.report.flow import flow_charts, leakage_table
from pathoml.report.numbers import numbers_table
from pathoml.report.parts import Table
from pathoml.report.sections import scheme_part
from pathoml.report.words import summary_words, unbroken

_GALLERY_WIDTH_PX = 1100


@dataclass(frozen=True)
class Page:
    """Everything that the report shows.

    Parameters
    ----------
    title : str
        Name of the study.
    endpoint : str
        What the time runs to.
    facts : sequence of (str, str)
        Lines of the cohort table.
    warnings : sequence of str
        What the reader must know: slides that failed, patients left out.
    evaluation : mapping
        As `pathoml.evaluate.evaluate` gives it.
    heatmaps : sequence of (str, Path)
        Caption and PNG.
    provenance : sequence of (str, str)
        Digests and versions.
    settings : str
        The resolved configuration as text.
    flow : sequence of FlowStep
        Who was left out of patients and slides, and why.
    leakage : mapping or None
        leakage.json: which leaks were looked for, and what was found; None where no split was made.
    tuned : mapping of str to mapping
        Fold to the settings found in it.
    methods : sequence of str
        How it was done, in paragraphs of plain words.
    answers : mapping of str to str
        Items of the TRIPOD+AI checklist that the software can fill.
    map_note : str, optional
        What the maps are of, and which kinds the models do not give.
    clinical : str, optional
        What the clinical model is made of.
    """

    title: str
    endpoint: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    evaluation: Mapping[str, Any]
    heatmaps: Sequence[tuple[str, Path]]
    provenance: Sequence[tuple[str, str]]
    settings: str
    flow: Sequence[FlowStep] = ()
    leakage: Mapping[str, Any] | None = None
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    methods: Sequence[str] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    map_note: str = ""
    clinical: str = "the clinical data"


def write_report(path: Path, page: Page) -> None:
    """Write the page; beside it every number (``numbers.csv``) and the checklist (``tripod_ai.csv``).

    Parameters
    ----------
    path : Path
        The HTML file.
    page : Page
        What it shows.
    """
    parts = [scheme_part(name, scheme, page.endpoint) for name, scheme in page.evaluation["schemes"].items()]
    checklist = fill_checklist(page.answers)
    html = template("report.html.j2").render(
        page=page,
        parts=parts,
        pictures=[(caption, _data_uri(picture)) for caption, picture in page.heatmaps],
        notice=RESEARCH_USE_ONLY,
        summary=summary_words(page.evaluation["schemes"], page.clinical),
        tuned=_tuned(page.tuned),
        flows=flow_charts(page.flow, page.evaluation),
        leaks=None if page.leakage is None else leakage_table(page.leakage),
        checklist=Table("TRIPOD+AI", ("item", "what is to be reported", "in this study"), checklist),
    )
    write_text(path, html)
    write_text(path.parent / "numbers.csv", numbers_table(page.evaluation))
    write_text(path.parent / "tripod_ai.csv", checklist_table(checklist))


def template(name: str) -> Any:
    """Return a template of the package that escapes what it is given and knows what it lacks.

    Parameters
    ----------
    name : str
        File in the folder templates.

    Returns
    -------
    Template
        Of Jinja.
    """
    environment = Environment(
        loader=PackageLoader("pathoml.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment.get_template(name)


def _tuned(tuned: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Return the settings of every fold, numbers with three digits."""
    if not tuned:
        return None
    keys = list(dict.fromkeys(key for values in tuned.values() for key in values))
    rows = [
        (fold, *(_setting(values[key]) if key in values else "as configured" for key in keys))
        for fold, values in tuned.items()
    ]
    return Table("Settings found in each fold", ("fold", *keys), rows)


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(one)}" for key, one in value.items())
    return str(value)


def _data_uri(path: Path) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((_GALLERY_WIDTH_PX, _GALLERY_WIDTH_PX))
        stream = io.BytesIO()
        small.save(stream, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
