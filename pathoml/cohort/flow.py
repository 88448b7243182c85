"""Who was left out, and why: the rows of a flow table as CONSORT asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pathoml.errors import CohortError

FLOW_FORMAT = "pathoml-flow"
FLOW_VERSION = 1


@dataclass(frozen=True)
class FlowStep:
    """One step from all that a table names to those that are analysed.

    Parameters
    ----------
    unit : str
        ``patients`` or ``slides``.
    reason : str
        Why some are left out; of the first step where they come from.
    dropped : int
        How many are left out here.
    left : int
        How many are left after it.
    ids : tuple of str
        Who is left out.
    """

    unit: Literal["patients", "slides"]
    reason: str
    dropped: int
    left: int
    ids: tuple[str, ...] = ()


def flow_step(unit: Literal["patients", "slides"], reason: str, ids: Sequence[str], left: int) -> FlowStep:
    """Make a step from those that are left out.

    Parameters
    ----------
    unit : str
        ``patients`` or ``slides``.
    reason : str
        Why.
    ids : sequence of str
        Who is left out.
    left : int
        How many are left.

    Returns
    -------
    FlowStep
        With its counts.
    """
    return FlowStep(unit, reason, len(ids), left, tuple(ids))


def flow_to_json(flow: Sequence[FlowStep]) -> dict[str, Any]:
    """Return a flow table as plain JSON values.

    Parameters
    ----------
    flow : sequence of FlowStep
        Patients and slides, in order.

    Returns
    -------
    dict
        With format, and the steps of patients and of slides.
    """
    steps = {
        unit: [{**asdict(one), "ids": list(one.ids)} for one in flow if one.unit == unit]
        for unit in ("patients", "slides")
    }
    return {"format": FLOW_FORMAT, "format_version": FLOW_VERSION, **steps}


def flow_from_json(content: Mapping[str, Any]) -> tuple[FlowStep, ...]:
    """Read a flow table from plain JSON values.

    Parameters
    ----------
    content : mapping
        As `flow_to_json` gives it.

    Returns
    -------
    tuple of FlowStep
        Patients, then slides.

    Raises
    ------
    CohortError
        If it is no flow table of this version.
    """
    if content.get("format") != FLOW_FORMAT or content.get("format_version") != FLOW_VERSION:
        raise CohortError("flow.json: not a flow table that this pathoml reads; run 'pathoml train' again")
    steps = [*content["patients"], *content["slides"]]
    return tuple(FlowStep(**{**one, "ids": tuple(one["ids"])}) for one in steps)


def flow_to_csv(flow: Sequence[FlowStep]) -> str:
    """Return a flow table as CSV, counts alone.

    Parameters
    ----------
    flow : sequence of FlowStep
        Patients and slides, in order.

    Returns
    -------
    str
        Columns unit, reason, dropped, left.
    """
    rows = ['{},"{}",{},{}'.format(one.unit, one.reason.replace('"', '""'), one.dropped, one.left) for one in flow]
    return "\n".join(["unit,reason,dropped,left", *rows]) + "\n"
