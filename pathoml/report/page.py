"""The page: tables and figures into one HTML file that needs nothing else."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pathoml.baseline_settings import BASELINE_TITLES
from pathoml.files import write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.report.figures import concordance_figure, kaplan_meier_figure

_GALLERY_WIDTH_PX = 1100

METRIC_NAMES = {
    "concordance": "Concordance (Harrell), higher is better",
    "concordance_ipcw": "Concordance (Uno, IPCW), higher is better",
    "integrated_brier": "Integrated Brier score, lower is better",
}


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
    """

    title: str
    endpoint: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    evaluation: Mapping[str, Any]
    heatmaps: Sequence[tuple[str, Path]]
    provenance: Sequence[tuple[str, str]]
    settings: str


def write_report(path: Path, page: Page) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        The HTML file.
    page : Page
        What it shows.
    """
    environment = Environment(
        loader=PackageLoader("pathoml.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(estimate=_estimate, number=_number)
    schemes = [_scheme(name, scheme, page.endpoint) for name, scheme in page.evaluation["schemes"].items()]
    pictures = [(caption, _data_uri(picture)) for caption, picture in page.heatmaps]
    html = environment.get_template("report.html.j2").render(
        page=page, schemes=schemes, pictures=pictures, notice=RESEARCH_USE_ONLY
    )
    write_text(path, html)


_TITLES = {
    "kfold": "Cross-validation",
    "site_preserved": "Cross-validation by whole hospitals",
    "leave_one_site_out": "Leaving one hospital out",
    "external": "Hospitals kept for the test",
    "fixed": "Given folds",
    "files": "Given folds",
}


def _scheme(name: str, scheme: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    models = list(scheme["metrics"])
    labels = {model: BASELINE_TITLES.get(model, "this model") for model in models}
    return {
        "title": _TITLES[name],
        "labels": labels,
        "metrics": [
            (
                _metric_name(metric),
                [scheme["metrics"][model][metric] for model in models],
                [values[metric] for values in scheme["differences"].values()],
            )
            for metric in scheme["metrics"][models[0]]
        ],
        "folds": scheme["folds"],
        "concordance": concordance_figure(
            [(labels[model], scheme["metrics"][model]["concordance"]) for model in models]
        ),
        "curves": [
            kaplan_meier_figure(scheme["groups"][model], title=labels[model], endpoint=endpoint) for model in models
        ],
        "verdict": _verdict(scheme["differences"]),
    }


def _verdict(differences: Mapping[str, Any]) -> str:
    """Say in a sentence whether the model is better than the clinical one, and no more than the interval allows."""
    if not differences:
        return ""
    difference = next(iter(differences.values()))
    estimate = difference["concordance"]
    if estimate["value"] is None:
        return "The difference in concordance cannot be computed."
    text = f"Difference in concordance to the clinical model: {_estimate(estimate)}."
    if estimate["low"] > 0:
        ranking = f"{text} The interval excludes 0: on these patients the model ranks better."
    elif estimate["high"] < 0:
        ranking = f"{text} The interval excludes 0: on these patients the clinical model ranks better."
    else:
        ranking = f"{text} The interval includes 0: these patients do not show that the model ranks better."
    return ranking + _brier_verdict(difference.get("integrated_brier"))


def _brier_verdict(estimate: Mapping[str, Any] | None) -> str:
    """Say that the probabilities are worse, or better, where the interval says so."""
    if estimate is None or estimate["value"] is None or estimate["low"] <= 0 <= estimate["high"]:
        return ""
    verdict = "worse" if estimate["low"] > 0 else "better"
    return f" Its survival probabilities are {verdict} (difference in integrated Brier score {_estimate(estimate)})."


def _metric_name(metric: str) -> str:
    if metric.startswith("auc_"):
        return f"AUC at {metric.removeprefix('auc_').removesuffix('d')} days, higher is better"
    return METRIC_NAMES[metric]


def _estimate(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "not defined"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _data_uri(path: Path) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((_GALLERY_WIDTH_PX, _GALLERY_WIDTH_PX))
        stream = io.BytesIO()
        small.save(stream, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
