"""What is allowed in the outcome's columns and is seldom meant."""

import re

import numpy as np

from pathoml.cohort.endpoints import EndpointSettings
from pathoml.cohort.records import Cohort
from pathoml.errors import Problem

_UNITS = {unit: re.compile(rf"(?<![a-z]){unit[:-1]}s?(?![a-z])") for unit in ("days", "weeks", "months", "years")}
_MANY_EVENTS = 0.6
_LONGEST = 0.1
_BEYOND_CHANCE = 0.25
"""Standard deviations of a share."""
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
    if median < 30:
        message = f"median follow-up is {median:.0f} days; is {outcome.time_unit} the right time_unit?"
        doubts.append(Problem(f"column {outcome.time}", message))
    return doubts


def _unit_in_the_name(outcome: EndpointSettings) -> list[Problem]:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", outcome.time).lower()
    named = [unit for unit, pattern in _UNITS.items() if pattern.search(words)]
    if len(named) != 1 or named[0] == outcome.time_unit:
        return []
    message = (
        f"its name speaks of {named[0]}, and time_unit is {outcome.time_unit}; set time_unit to what the numbers are"
    )
    return [Problem(f"column {outcome.time}", message)]


def _coding(cohort: Cohort, outcome: EndpointSettings) -> list[Problem]:
    turned = "set cohort.event_codes: {'0': 1, '1': 0}"
    if outcome.event_codes.get("1") == 1 and "cens" in outcome.event.lower():
        message = f"its name speaks of censoring, and '1' is taken for an event; if 1 means censored, {turned}"
        return [Problem(f"column {outcome.event}", message)]
    if _ends_in_events(cohort):
        share = cohort.event.mean()
        message = (
            f"{share:.0%} of the patients have the event, and even more of those who were followed longest, who usually are "
            f"censored; are events and censoring the right way round? If not, {turned}"
        )
        return [Problem(f"column {outcome.event}", message)]
    return []


def _ends_in_events(cohort: Cohort) -> bool:
    """Tell whether most patients have the event, and those who were followed longest even more of them, beyond chance.

    Whoever is followed longest is mostly censored, since that is when studies end; the wrong way round, most of them are events.
    """
    share = float(cohort.event.mean()) if len(cohort) else 0.0
    if len(cohort) < _ENOUGH or not _MANY_EVENTS <= share < 1:
        return False
    longest = cohort.time_days >= np.quantile(cohort.time_days, 1 - _LONGEST)
    chance = _BEYOND_CHANCE * np.sqrt(share * (1 - share) / longest.sum())
    return bool(cohort.event[longest].mean() > share + chance)
