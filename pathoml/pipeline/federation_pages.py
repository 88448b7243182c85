"""The page of a federation: of a simulation with all that was compared, of a deployed run with what sites told."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathoml.errors import InputError
from pathoml.federated.audit import read_log
from pathoml.federated.compare import Comparison
from pathoml.federated.coordinator import PLAN_COPY, RESULT, FederationResult, result_to_json
from pathoml.federated.method_settings import EvaluationSettings, RoundsSettings
from pathoml.federated.network import COORDINATOR_LOG
from pathoml.federated.plan import Plan, TestShare
from pathoml.federated.site_settings import FEWEST_EVENTS, FEWEST_PATIENTS
from pathoml.files import read_lines
from pathoml.report.federation_page import FederationPage, write_federation_page


def write_page(
    plan: Plan, output: Path, result: FederationResult, comparison: Comparison | None, logs: Path, *,
    public: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write the page of a federation.

    Parameters
    ----------
    plan : Plan
        What the sites agreed on.
    output : Path
        Folder for the page.
    result : FederationResult
        Of the shared model.
    comparison : Comparison or None
        What joining does, where it was asked for.
    logs : Path
        Folder with a folder for each site, and its audit log in it.
    public : sequence of str, optional
        Sites that declare their data public or drawn.

    Returns
    -------
    Path
        The HTML file.
    """
    compared = None if comparison is None else comparison.to_json()
    page = _page(plan, result_to_json(plan, result), public)
    return _written(replace(page, comparison=compared, left=_left(logs)), output)


def write_coordinators_page(kit: Path) -> Path:
    """Write the page of the newest run of a coordinator's kit, from what the sites told it.

    Parameters
    ----------
    kit : Path
        The coordinator's.

    Returns
    -------
    Path
        The HTML file, beside federation.json.

    Raises
    ------
    InputError
        If no run has ended there, or that of another plan than the kit's copy.
    """
    ended = newest_result(kit)
    if ended is None:
        raise InputError(f"{kit}: no run has ended here; it is the coordinator's kit that keeps what comes out")
    scores = json.loads(ended.read_text(encoding="utf-8"))
    plan = Plan.model_validate_json((ended.parent / PLAN_COPY).read_text(encoding="utf-8"))
    return _written(replace(_page(plan, scores), refusals=_refusals(ended.parent)), ended.parent)


def newest_result(kit: Path) -> Path | None:
    """Return what came of the newest run that has ended.

    Parameters
    ----------
    kit : Path
        The coordinator's.

    Returns
    -------
    Path or None
        Its federation.json.
    """
    ended = _of_runs(kit, RESULT)
    return ended[-1] if ended else None


def unfinished_runs(kit: Path) -> list[str]:
    """Name the plans of runs that began after the newest that has ended, and have no results.

    Parameters
    ----------
    kit : Path
        The coordinator's.

    Returns
    -------
    list of str
        First digits of their hashes; none where no run has ended yet.
    """
    runs = _of_runs(kit, PLAN_COPY)
    has_results = [(path.parent / RESULT).is_file() for path in runs]
    last = max((place for place, whole in enumerate(has_results) if whole), default=-1)
    return [path.parent.name for path in runs[last + 1 :]] if last >= 0 else []


def newest_refusals(kit: Path) -> tuple[str, dict[str, str]]:
    """Return what sites last said in the newest run that was no good answer.

    Parameters
    ----------
    kit : Path
        The coordinator's.

    Returns
    -------
    tuple of str and dict of str to str
        First digits of the run's plan; by site, its code or what was wrong; empty where there is nothing to tell.
    """
    runs = _of_runs(kit, PLAN_COPY)
    if not runs:
        return "", {}
    return runs[-1].parent.name, {site: said for site, _, said, *_ in _refusals(runs[-1].parent)}


def _refusals(run: Path) -> list[tuple[str, ...]]:
    """Return a row for each site that said no, or nothing that could be used: the last time, and how often."""
    log = run / COORDINATOR_LOG
    by_site: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_lines(log) if log.is_file() else ():
        by_site.setdefault(str(row["site"]), []).append(row)
    return [
        (site, str(rows[-1]["asked"]), str(rows[-1]["what"]), str(rows[-1]["time"])[:16], str(len(rows)))
        for site, rows in sorted(by_site.items())
    ]


def _of_runs(kit: Path, name: str) -> list[Path]:
    """Return a file of each run of a coordinator's kit, the one written last at the end."""
    return sorted((kit / "federation").glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)


def _page(plan: Plan, scores: Mapping[str, Any], public: Sequence[str] = ()) -> FederationPage:
    """Return what every page shows of a run."""
    facts = plan_facts(plan)
    if public:
        facts.append(
            ("Declared public or drawn", f"the data of {', '.join(public)}: the plan's thresholds hold as they stand")
        )
    trained = [int(row["sites"]) for row in scores["history"] if "sites" in row]
    if trained:
        few, many = min(trained), max(trained)
        facts.append(("Sites that trained in each round", f"{few}" if few == many else f"{few} to {many}"))
    provenance = [("Plan", plan.digest), ("pathoml", str(scores["pathoml_version"]))]
    return FederationPage(plan.name, facts, scores, None, [], provenance)


def _written(page: FederationPage, output: Path) -> Path:
    path = output / "federation.html"
    write_federation_page(path, page)
    return path


def plan_facts(plan: Plan) -> list[tuple[str, str]]:
    """Return what a plan agrees on, in words.

    Parameters
    ----------
    plan : Plan
        Any.

    Returns
    -------
    list of (str, str)
        Rows of a table.
    """
    method = plan.method
    how, model = "Newton steps of a linear model", "linear in the covariates"
    if plan.features is not None:
        model = f"{plan.model.aggregator.kind} on tile features"
    if isinstance(method, RoundsSettings):
        how = f"{method.rounds} rounds of {method.local_epochs} epoch(s), {method.aggregation.kind}, weighted by {method.weight}"
    elif isinstance(method, EvaluationSettings):
        whom = "all patients" if method.patients == "all" else "the patients kept out of training"
        how, model = f"nothing is trained; {whom} are scored", f"the package {method.package}"
    privacy = "none: no noise is added" if plan.privacy is None else f"epsilon {plan.privacy.epsilon:g}"
    return [
        ("Name", plan.name),
        ("Sites", ", ".join(plan.sites)),
        ("Quorum", str(plan.quorum)),
        ("Endpoint", plan.endpoint),
        ("Model", model),
        *(() if isinstance(method, EvaluationSettings) else _trained_on(plan)),
        ("Method", how),
        ("Nothing is said of fewer than", _least_words(plan)),
        *(() if isinstance(method, EvaluationSettings) else (("Longest update that leaves", f"{plan.update_norm:g}"),)),
        ("Differential privacy", privacy),
        ("Coordinator", f"{plan.network.host}, port {plan.network.port}"),
    ]


def _trained_on(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Return what else of a training is agreed on."""
    names = [one.name if one.kind == "block" else one.column for one in plan.covariates]
    test = (
        f"a share of {plan.test.share:g}, drawn at each site"
        if isinstance(plan.test, TestShare)
        else f"column {plan.test.column}"
    )
    return ("Covariates", ", ".join(names) or "none"), ("Test patients", test), ("Loss", plan.train.loss.kind)


def _least_words(plan: Plan) -> str:
    words = f"{plan.minimum_patients} patients or {plan.minimum_events} events"
    if plan.minimum_patients >= FEWEST_PATIENTS and plan.minimum_events >= FEWEST_EVENTS:
        return words
    return (
        f"{words}; a site says nothing of fewer than {FEWEST_PATIENTS} or {FEWEST_EVENTS} all the same, unless its data are public"
        " or drawn"
    )


def _left(logs: Path) -> list[tuple[str, ...]]:
    """Count what left the sites by what it answered."""
    counts: dict[str, tuple[int, int]] = {}
    for log in sorted(logs.glob("*/audit.jsonl")):
        for line in read_log(log):
            if line.get("direction") == "out":
                messages, sent = counts.get(line["kind"], (0, 0))
                counts[line["kind"]] = (messages + 1, sent + int(line["bytes"]))
    return [(kind, str(messages), f"{sent:,}") for kind, (messages, sent) in counts.items()]
