"""Rules and dates held against tables: who and what is left out, and what cannot be right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pathoml.cohort.flow import FlowStep, flow_step
from pathoml.cohort.records import Cohort, SlideEntry
from pathoml.cohort.rules import DateRule, Rule, judge, parse_dates, rule_columns
from pathoml.cohort.settings import CohortSettings, SlidesSettings, TimeZeroSettings
from pathoml.errors import Problem, first_of
from pathoml.tables import is_missing, missing_columns_message, read_text_table
from pathoml.units import BoolArray, FloatArray

_SHOWN_ROWS = 10


class Screened(NamedTuple):
    """A table after its rules.

    Parameters
    ----------
    keep : ndarray of bool, shape (rows,)
        Who is left.
    flow : list of FlowStep
        Who was left out by what, in the order of the rules.
    problems : list of Problem
        Cells that no rule can read.
    """

    keep: BoolArray
    flow: list[FlowStep]
    problems: list[Problem]


def screen_patients(table: pd.DataFrame, settings: CohortSettings) -> Screened:
    """Hold the rules of a study, and its demand for a known outcome, against patients.

    Parameters
    ----------
    table : DataFrame
        Text cells, one row a patient; `_row` is the row in the file.
    settings : CohortSettings
        Rules, columns, endpoint.

    Returns
    -------
    Screened
        Of its rows.
    """
    zero = table[settings.time_zero.column] if settings.time_zero is not None else None
    names = table[settings.patient_id]
    screened = _screen(settings.eligibility, table, names, zero, ("patients", settings.table.name))
    keep, flow = screened.keep, screened.flow
    outcome = settings.outcome
    if outcome.missing == "leave_out":
        unknown = keep & (is_missing(table[outcome.time]) | is_missing(table[outcome.event]))
        if unknown.any():
            keep = keep & ~unknown
            reason = f"{settings.endpoint} is not known"
            flow = [*flow, flow_step("patients", reason, names[unknown].tolist(), int(keep.sum()))]
    first = flow_step("patients", f"patients of {settings.table.name}", (), len(table))
    return Screened(keep, [first, *flow], screened.problems)


def screen_slides(
    settings: SlidesSettings, entries: Sequence[SlideEntry], cohort: Cohort
) -> tuple[tuple[SlideEntry, ...], list[FlowStep], list[Problem]]:
    """Hold the rules for slides, and the patients that were left out, against a manifest.

    Parameters
    ----------
    settings : SlidesSettings
        Rules and table.
    entries : sequence of SlideEntry
        Its slides.
    cohort : Cohort
        Patients, and those that were left out of it.

    Returns
    -------
    tuple of (tuple of SlideEntry, list of FlowStep, list of Problem)
        The slides that are used; what became of the others; what cannot be read.
    """
    flow = [flow_step("slides", f"slides of {settings.manifest.name}", (), len(entries))]
    if not settings.eligibility and not cohort.left_out & {entry.patient_id for entry in entries}:
        return tuple(entries), flow, []
    gone = [entry.slide_id for entry in entries if entry.patient_id in cohort.left_out]
    left = [entry for entry in entries if entry.patient_id not in cohort.left_out]
    if gone:
        flow.append(flow_step("slides", "of patients who are left out", gone, len(left)))
    if not settings.eligibility:
        return tuple(left), flow, []
    table = read_text_table(settings.manifest)
    absent = [column for column in rule_columns(settings.eligibility) if column not in table.columns]
    if absent:
        key = ("slides", "eligibility")
        header = f"{settings.manifest.name}: row 1"
        return tuple(left), flow, [
            Problem(header, missing_columns_message(settings.manifest, table, one), key) for one in absent
        ]  # fmt: skip
    table = table.loc[[entry.row for entry in left]].assign(_row=[entry.row for entry in left]).reset_index(drop=True)
    zero = _zero_of(cohort, [entry.patient_id for entry in left])
    if zero is None and any(isinstance(rule, DateRule) and rule.zero is None for rule in settings.eligibility):
        message = "a rule on dates needs cohort.time_zero.column, or a column zero of the manifest"
        return tuple(left), flow, [Problem("", message, ("slides", "eligibility"))]
    names = pd.Series([entry.slide_id for entry in left])
    screened = _screen(settings.eligibility, table, names, zero, ("slides", settings.manifest.name))
    kept = tuple(entry for entry, keep in zip(left, screened.keep, strict=True) if keep)
    return kept, [*flow, *screened.flow], screened.problems


def check_time_zero(
    table: pd.DataFrame, time_days: FloatArray, settings: TimeZeroSettings, file_name: str
) -> tuple[list[Problem], list[Problem]]:
    """Hold follow-up and specimens against dates.

    Parameters
    ----------
    table : DataFrame
        Text cells, one row a patient; `_row` is the row in the file.
    time_days : ndarray of float64, shape (patients,)
        Follow-up from time zero.
    settings : TimeZeroSettings
        Columns and tolerance.
    file_name : str
        For messages.

    Returns
    -------
    tuple of list of Problem
        What cannot be right, by row; and warnings.
    """
    zero = parse_dates(table[settings.column])
    problems = _wrong(table, settings.column, np.isnan(zero), file_name, "is not a date; write it as 2019-03-31")
    if settings.last_contact is not None:
        column = settings.last_contact
        last = parse_dates(table[column])
        unreadable = np.isnan(last) & ~is_missing(table[column])
        problems += _wrong(table, column, unreadable, file_name, "is not a date; write it as 2019-03-31")
        problems += _wrong(table, column, last < zero, file_name, "lies before time zero; which of the two is right?")
        off = (np.abs(last - zero - time_days) > settings.tolerance_days) & (last >= zero)
        message = (
            "does not agree with time zero and the follow-up time; is time_unit right, or time counted from elsewhere?"
        )
        problems += _wrong(table, column, off, file_name, message)
    if settings.data_cutoff is not None:
        frozen = float(np.datetime64(settings.data_cutoff, "D").astype(np.int64))
        beyond = zero + time_days > frozen + settings.tolerance_days
        message = (
            f"and the follow-up time lead beyond the data cut-off of {settings.data_cutoff}; nobody can have seen that"
        )
        problems += _wrong(table, settings.column, beyond, file_name, message)
    warnings = []
    if settings.specimen is not None:
        late = parse_dates(table[settings.specimen]) > zero
        if late.any():
            message = (
                f"{int(late.sum())} specimen(s) were taken after time zero: these patients could not have had the event before, "
                "which flatters whatever the specimen shows (immortal time); set eligibility, a landmark or entry"
            )
            warnings.append(Problem(f"column {settings.specimen}", message))
    return problems, warnings


def _zero_of(cohort: Cohort, patients: Sequence[str]) -> "pd.Series[str] | None":
    if cohort.time_zero_days is None:
        return None
    days = dict(zip(cohort.patient_id.tolist(), cohort.time_zero_days.tolist(), strict=True))
    known = [days.get(name, float("nan")) for name in patients]
    return pd.Series(["" if np.isnan(one) else str(np.datetime64(int(one), "D")) for one in known], dtype=object)


def _screen(
    rules: Sequence[Rule], table: pd.DataFrame, names: "pd.Series[str]", zero: "pd.Series[str] | None",
    where: tuple[str, str],
) -> Screened:  # fmt: skip
    unit, file_name = where
    keep = np.ones(len(table), dtype=bool)
    flow: list[FlowStep] = []
    problems: list[Problem] = []

    def leave_out(reason: str, who: BoolArray) -> None:
        own = who & keep
        if own.any():
            keep[own] = False
            flow.append(
                flow_step("slides" if unit == "slides" else "patients", reason, names[own].tolist(), int(keep.sum()))
            )

    for rule in rules:
        found = judge(rule, table, zero)
        problems += _wrong(table, rule.column, found.unreadable & keep, file_name, found.remedy)
        if rule.missing == "refuse":
            message = "is missing, and eligibility needs it; fill it in, or set the rule's missing: leave_out"
            problems += _wrong(table, rule.column, found.missing & keep, file_name, message)
        if rule.missing == "leave_out":
            leave_out(f"{rule.column} is not known", found.missing)
        leave_out(found.reason, ~found.keep & ~found.missing & ~found.unreadable)
    return Screened(keep, flow, problems)


def _wrong(table: pd.DataFrame, column: str, wrong: BoolArray, file_name: str, message: str) -> list[Problem]:
    found = [
        Problem(
            f"{file_name}: row {table['_row'].iloc[row]}, column {column}", f"'{table[column].iloc[row]}' {message}"
        )
        for row in np.flatnonzero(wrong)
    ]
    return first_of(found, f"{file_name}: column {column}", _SHOWN_ROWS)
