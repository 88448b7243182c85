"""What is allowed in the outcome's columns and is seldom meant."""

import re

import numpy as np

from pathoml.cohort.endpoints import EndpointSettings
from pathoml.cohort.records import Cohort
from pathoml.errors import Problem
from pathoml.units import DAYS_PER_UNIT

_UNITS = {
    unit: re.compile(rf"(?<![a-z])(?<!\d)(?<!\d[ _.-]){unit[:-1]}s?(?![a-z])(?![ _.-]?\d)")
    for unit in ("days", "weeks", "months", "years")
}
"""With a number beside it a unit says when, as in pfs_2year, and not what is counted."""
_SHORT_DAYS, _LONG_DAYS = 30, 30 * DAYS_PER_UNIT["years"]
"""Outside of these no cohort is followed up in the median."""
_MANY_EVENTS = 0.6
_NEARLY_ALL = 0.9
_TENTH = 0.1
_BEYOND_CHANCE = 2.5
"""Standard deviations."""
_ENOUGH = 50
"""Patients from which shares of them tell something."""


def outcome_doubts(cohort: Cohort, outcome: EndpointSettings) -> list[Problem]:
    """Warn of a unit and of codes of events that do not go with what the table holds.

    Parameters
    ----------
    cohort : Cohort
        Patients as read.
    outcome : EndpointSettings
        The columns, their unit and coding.

    Returns
    -------
    list of Problem
        Empty where nothing is doubtful.
    """
    doubts = [*_coding(cohort, outcome), *_unit_in_the_name(outcome)]
    median = float(np.median(cohort.time_days))
    if not _SHORT_DAYS <= median <= _LONG_DAYS:
        length = f"{median:.0f} days" if median < _SHORT_DAYS else f"{median / DAYS_PER_UNIT['years']:.0f} years"
        message = f"median follow-up is {length}; is {outcome.time_unit} the right time_unit?"
        doubts.append(Problem(f"column {outcome.time}", message))
    return doubts


def _unit_in_the_name(outcome: EndpointSettings) -> list[Problem]:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", outcome.time).lower()
    named = [unit for unit, pattern in _UNITS.items() if pattern.search(words)]
    if len(named) != 1 or named[0] == outcome.time_unit:
        return []
    message = (
        f"its name speaks of {named[0]}, and time_unit is {outcome.time_unit}; set time_unit to what the numbers are"
    )
    return [Problem(f"column {outcome.time}", message)]


def _coding(cohort: Cohort, outcome: EndpointSettings) -> list[Problem]:
    swapped = {word: {0: 1, 1: 0}.get(code, code) for word, code in outcome.event_codes.items()}
    turned = f"set cohort.event_codes: {swapped}"
    if outcome.event_codes.get("1") == 1 and "cens" in outcome.event.lower():
        message = f"its name speaks of censoring, and '1' is taken for an event; if 1 means censored, {turned}"
        return [Problem(f"column {outcome.event}", message)]
    if _ends_in_events(cohort):
        share = cohort.event.mean()
        message = (
            f"{share:.0%} of the patients have the event, more of those seen longest and less of those seen shortest, where it is "
            f"usually the other way round; are events and censoring the right way round? If not, {turned}"
        )
        return [Problem(f"column {outcome.event}", message)]
    return []


def _ends_in_events(cohort: Cohort) -> bool:
    """Tell whether most patients have the event, those seen longest even more often, and those seen shortest less, beyond chance.

    Whoever is followed longest is mostly censored, since that is when studies end, and whoever is seen for a short time has mostly
    died; the wrong way round it is the other way round. Nothing is said of studies in which nearly all have the event. A study
    without an end, whose patients are lost at random while their hazard rises, looks the same: so it is a question, and changes
    nothing.
    """
    share = float(cohort.event.mean()) if len(cohort) else 0.0
    if len(cohort) < _ENOUGH or not _MANY_EVENTS <= share <= _NEARLY_ALL:
        return False
    shortest, longest = np.quantile(cohort.time_days, [_TENTH, 1 - _TENTH])
    early, late = cohort.event[cohort.time_days <= shortest], cohort.event[cohort.time_days >= longest]
    chance = np.sqrt(share * (1 - share))
    above = (late.mean() - share) * np.sqrt(len(late)) / chance
    below = (share - early.mean()) * np.sqrt(len(early)) / chance
    return bool(above > 0 and below > 0 and above + below > _BEYOND_CHANCE * np.sqrt(2))
