"""Who was left out and why, as a chart of boxes; and which leaks were looked for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pathoml.cohort import FlowStep
from pathoml.report.parts import Table
from pathoml.report.words import SCHEMES

_LEVELS = {"leak": "leak", "warning": "warning", "note": "for your information"}
_CHECKS = {
    "shared_patients": "a patient on two sides of a fold",
    "alike_patient_ids": "ids spelt nearly alike on two sides",
    "same_patient_twice": "two ids with the same data on two sides",
    "nearly_same_patient": "two ids with nearly the same data on two sides",
    "shared_sites": "hospitals on two sides",
    "alike_site_names": "hospitals spelt nearly alike on two sides",
    "site_confounded_outcome": "outcomes that the hospital alone foretells",
    "one_sided_hospital": "hospitals where everybody or nobody had the event",
    "covariate_names_hospital": "covariates from which the hospital can be read",
    "covariate_foretells_outcome": "covariates that cannot have been known at time zero",
    "prepared_on_all_patients": "columns scaled, turned, filled, evened, weighted or chosen before the split",
    "same_slide_twice": "one slide file under two patients",
    "shared_tiles": "the same tiles under two patients",
    "near_duplicate_slides": "slides of two patients that look the same",
}


class FlowChart(NamedTuple):
    """The way from all that a table names to those that are analysed.

    Parameters
    ----------
    unit : str
        ``patients`` or ``slides``.
    start : str
        The first box.
    steps : list of (str, str)
        Who is left out, and how many are left after it.
    end : str
        The last box.
    """

    unit: str
    start: str
    steps: list[tuple[str, str]]
    end: str


def flow_charts(flow: Sequence[FlowStep], evaluation: Mapping[str, Any]) -> list[FlowChart]:
    """Turn the steps of a flow into charts of boxes.

    Parameters
    ----------
    flow : sequence of FlowStep
        Patients and slides, in order.
    evaluation : mapping
        Of the same patients.

    Returns
    -------
    list of FlowChart
        Of patients, and of slides where there are any; empty where no flow is known.
    """
    charts = []
    for unit in ("patients", "slides"):
        own = [one for one in flow if one.unit == unit]
        if not own:
            continue
        first = own[0]
        start = f"{first.left + first.dropped} {first.reason}"
        steps = [(f"left out {one.dropped}: {one.reason}", f"{one.left} left") for one in own if one.dropped]
        end = f"{own[-1].left} {unit} analysed"
        if unit == "patients":
            tested = [
                f"{SCHEMES.get(name, name).lower()}: {scheme['tested']['patients']} tested, {scheme['tested']['events']} events"
                for name, scheme in evaluation["schemes"].items()
            ]
            end = f"{end}; {'; '.join(tested)}"
        if not steps:
            end = f"{end}; nobody was left out" if unit == "patients" else f"{end}; none was left out"
        charts.append(FlowChart(unit, start, steps, end))
    return charts


def leakage_table(leakage: Mapping[str, Any]) -> Table:
    """Say of every check what it found.

    Parameters
    ----------
    leakage : mapping
        As leakage.json holds it.

    Returns
    -------
    Table
        A row a check, or a finding where it has some.
    """
    rows: list[tuple[str, ...]] = []
    for check in leakage["checks"]:
        found = [one for one in leakage["findings"] if one["check"] == check]
        name = f"{check}: {_CHECKS.get(check, '')}" if check in _CHECKS else check
        rows += [(name, _LEVELS[one["level"]], _where(one) + one["message"]) for one in found]
        if not found:
            unknown = check in _OF_SLIDES and not leakage["slides_compared"]
            rows.append((name, "not looked at: no slides" if unknown else "nothing found", ""))
    slides = leakage["slides_compared"]
    compared = f"{slides} slides compared" if slides else "no slides to compare"
    return Table(f"Checks of the split before training; {compared}", ("check", "result", "what it means"), rows)


_OF_SLIDES = ("same_slide_twice", "shared_tiles", "near_duplicate_slides")


def _where(finding: Mapping[str, Any]) -> str:
    scheme = finding["scheme"]
    return f"{SCHEMES.get(scheme, scheme)}: " if scheme else ""
