"""The clinical table -> patients, or everything that is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pathoml.cohort.cells import one_row_a_patient, read_entry, read_events, read_times
from pathoml.cohort.doubts import outcome_doubts
from pathoml.cohort.endpoints import count_time
from pathoml.cohort.records import Cohort, leave_out
from pathoml.cohort.rules import parse_dates, rule_columns
from pathoml.cohort.screening import check_time_zero, screen_patients
from pathoml.cohort.settings import CohortSettings
from pathoml.covariates import (
    CategoricalCovariate,
    Covariate,
    GeneGroupsCovariate,
    ReducedCovariate,
    covariate_name,
    doubtful_covariates,
    group_columns,
    read_covariates,
)
from pathoml.errors import CohortError, Problem, first_of
from pathoml.tables import is_missing, missing_columns_message, name_columns, read_text_table
from pathoml.units import FloatArray

_SHOWN_ROWS = 10
_EVENTS_PER_PARAMETER = 10
_MONTH = 31.0


def read_cohort(settings: CohortSettings) -> Cohort:
    """Read the clinical table.

    Parameters
    ----------
    settings : CohortSettings
        Table, columns, unit and coding.

    Returns
    -------
    Cohort
        Without slides.

    Raises
    ------
    CohortError
        With every problem found, each with its row and column.
    """
    reading = examine_cohort(settings)
    if reading.problems or reading.cohort is None:
        raise CohortError(f"{settings.table.name}: {len(reading.problems)} problem(s)", reading.problems)
    return reading.cohort


@dataclass(frozen=True)
class CohortReading:
    """A clinical table as far as it can be read.

    Parameters
    ----------
    cohort : Cohort or None
        Every patient that the table names; where there are problems, values that cannot be read are stood in for, so
        that only who there is and what can be read may be judged by it. None if patients cannot be told apart.
    problems : tuple of Problem
        What is wrong, by row and column.
    outcomes_known : bool
        Whether times and events can be read for everyone.
    """

    cohort: Cohort | None
    problems: tuple[Problem, ...]
    outcomes_known: bool


def examine_cohort(settings: CohortSettings) -> CohortReading:
    """Read the clinical table and, if something is wrong with it, what of it can be used all the same.

    Parameters
    ----------
    settings : CohortSettings
        Table, columns, unit and coding.

    Returns
    -------
    CohortReading
        Whole or in part.
    """
    try:
        table = read_text_table(settings.table)
    except CohortError as error:
        return CohortReading(None, (Problem("", str(error), ("cohort", "table")),), outcomes_known=False)
    keys = _column_keys(settings)
    absent = {name: key for name, key in keys.items() if name not in table.columns}
    header = f"{settings.table.name}: header"
    problems = [
        Problem(header, missing_columns_message(settings.table, table, name), key) for name, key in absent.items()
    ]
    blocks, of_blocks = _blocks(table, settings, keys)
    problems += of_blocks + _reserved(settings)
    if settings.patient_id in absent:
        return CohortReading(None, tuple(problems), outcomes_known=False)
    # Columns that are missing are stood in for by blanks, so that the problems of the others are found at once.
    columns = list(dict.fromkeys([*keys, *(name for found in blocks.values() for name in found)]))
    patients, of_cells = one_row_a_patient(table.assign(**dict.fromkeys(absent, "")), settings, columns)
    screened = screen_patients(patients, settings)
    of_cells += screened.problems
    patients = patients[screened.keep].reset_index(drop=True)
    outcome, of_outcome = settings.outcome, list[Problem]()
    time_days = read_times(patients, outcome.time, settings, of_outcome) * outcome.days_per_unit
    cause = read_events(patients, outcome, settings, of_outcome)
    entry_days = read_entry(patients, outcome, settings, of_outcome)
    of_cells += of_outcome + _other_endpoints(patients, settings)
    rows = [f"{settings.table.name}: row {row}" for row in patients["_row"]]
    covariates, of_covariates = read_covariates(patients, settings.covariates, blocks, rows)
    of_cells += of_covariates
    zero_days, of_dates, doubts = _dates(patients, time_days, settings, known=not of_outcome)
    real = [
        one for one in [*of_cells, *of_dates] if not any(one.where.endswith(f"column {name}") for name in absent)
    ]  # fmt: skip
    site = patients[settings.site] if settings.site else pd.Series([""] * len(patients))
    counted = count_time(outcome, time_days, cause, entry_days)
    cohort = Cohort(
        patient_id=patients[settings.patient_id].to_numpy(dtype=str),
        time_days=counted.time_days,
        event=(counted.cause == 1).astype(np.int64),
        site=site.to_numpy(dtype=str),
        covariates=covariates,
        endpoint=settings.endpoint,
        cause=counted.cause if max(outcome.event_codes.values()) > 1 else None,
        flow=tuple(screened.flow),
        time_zero_days=zero_days,
    )
    problems += real
    if not problems:
        for reason, who in counted.left_out:
            stay = ~np.isin(cohort.patient_id, patients[settings.patient_id].to_numpy(dtype=str)[who])
            cohort = leave_out(cohort, np.flatnonzero(stay), reason)
        problems += _nobody(cohort, settings)
    if not problems:
        cohort = replace(cohort, warnings=(*doubts, *_clock(entry_days, settings), *_doubtful(cohort, settings)))
    return CohortReading(cohort, tuple(problems), outcomes_known=not of_outcome)


def _clock(entry_days: FloatArray | None, settings: CohortSettings) -> list[Problem]:
    """Say where time starts if that is not the table's time zero: horizons and probabilities count from there."""
    outcome = settings.outcome
    if entry_days is not None and outcome.entry_is == "time_zero" and np.ptp(entry_days) > _MONTH:
        message = (
            f"time counts from each patient's own entry (up to {np.nanmax(entry_days):.0f} days after the table's time zero):"
            " horizons and probabilities are 'since entry', and patients who entered late are compared with those who entered at"
            " once. To keep the table's time zero set entry_is: landmark, with a landmark by which most had entered"
        )
        return [Problem(f"column {outcome.entry}", message)]
    return []


def _nobody(cohort: Cohort, settings: CohortSettings) -> list[Problem]:
    if len(cohort):
        return []
    steps = "; ".join(f"{step.dropped} {step.reason}" for step in cohort.flow if step.dropped)
    return [Problem(settings.table.name, f"nobody is left: {steps}; look at eligibility and the endpoint")]


def _column_keys(settings: CohortSettings) -> dict[str, tuple[str | int, ...]]:
    """Return the columns that are named one by one, each with the key of the configuration that names it first."""
    keys: dict[str, tuple[str | int, ...]] = {}
    named: list[tuple[str | None, tuple[str | int, ...]]] = [(settings.patient_id, ("cohort", "patient_id"))]
    for name, endpoint in settings.all_endpoints.items():
        place: tuple[str | int, ...] = ("cohort", "endpoints", name) if settings.endpoints else ("cohort",)
        named += [(getattr(endpoint, one), (*place, one)) for one in ("time", "event", "entry")]
    named.append((settings.site, ("cohort", "site")))
    named += [(column, ("cohort", "eligibility")) for column in rule_columns(settings.eligibility)]
    if settings.time_zero is not None:
        dates = ("column", "last_contact", "specimen")
        named += [(getattr(settings.time_zero, one), ("cohort", "time_zero", one)) for one in dates]
    for column, key in named:
        if column is not None:
            keys.setdefault(column, key)
    for index, covariate in enumerate(settings.covariates):
        if not isinstance(covariate, ReducedCovariate):
            keys.setdefault(covariate.column, ("cohort", "covariates", index, "column"))
    return keys


def _blocks(
    table: pd.DataFrame, settings: CohortSettings, keys: Mapping[str, tuple[str | int, ...]]
) -> tuple[dict[str, list[str]], list[Problem]]:
    """Return the columns of each block; refuse patterns that match nothing, or a column that already means something."""
    taken = dict.fromkeys(keys, "used by itself")
    blocks: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for index, block in enumerate(settings.covariates):
        if not isinstance(block, ReducedCovariate):
            continue
        key = ("cohort", "covariates", index, "columns")
        found = block.matching(table.columns)
        if not found:
            patterns = [block.columns] if isinstance(block.columns, str) else block.columns
            sought = " or ".join(f"'{one}'" for one in patterns)
            message = f"block '{block.name}': no column of {settings.table.name} matches {sought}; it has: {name_columns(table)}"
            problems.append(Problem("", message, key))
        if isinstance(block, GeneGroupsCovariate) and found:
            found, of_groups = _grouped(block, found, index)
            problems += of_groups
        double = [
            Problem(
                "", f"block '{block.name}' matches column '{name}', which is {taken[name]}; narrow the pattern", key
            )
            for name in found
            if name in taken
        ]
        problems += first_of(double, settings.table.name)
        blocks[block.name] = [name for name in found if name not in taken]
        taken.update(dict.fromkeys(blocks[block.name], f"in block '{block.name}'"))
    return blocks, problems


def _grouped(block: GeneGroupsCovariate, found: list[str], index: int) -> tuple[list[str], list[Problem]]:
    """Return the columns that stand in a group."""
    try:
        groups = group_columns(block, found)
    except CohortError as error:
        return [], [Problem("", str(error), ("cohort", "covariates", index, "file"))]
    grouped = {name for columns in groups.values() for name in columns}
    return [name for name in found if name in grouped], []


def _reserved(settings: CohortSettings) -> list[Problem]:
    """Refuse covariates that are the id, the outcome or the hospital, and the same covariate twice."""
    meaning = {settings.patient_id: "the patient's id"}
    for endpoint in settings.all_endpoints.values():
        meaning.update({endpoint.time: "the outcome", endpoint.event: "the outcome"})
    problems, seen = [], set()
    for index, covariate in enumerate(settings.covariates):
        key = ("cohort", "covariates", index)
        name = covariate_name(covariate)
        if not isinstance(covariate, ReducedCovariate) and name in meaning:
            problems.append(Problem("", f"column '{name}' is {meaning[name]}; it cannot predict itself", key))
        if not isinstance(covariate, ReducedCovariate) and name == settings.site:
            message = f"column '{name}' is the hospital; a model that knows it cannot be used at any other"
            problems.append(Problem("", message, key))
        if name in seen:
            problems.append(Problem("", f"'{name}' is listed twice", key))
        seen.add(name)
    return problems


def _doubtful(cohort: Cohort, settings: CohortSettings) -> tuple[Problem, ...]:
    """Warn of what is allowed and is seldom meant."""
    warnings = [*outcome_doubts(cohort, settings.outcome), *doubtful_covariates(cohort.covariates)]
    events, parameters = events_per_parameter(cohort, settings.covariates)
    if parameters and events < _EVENTS_PER_PARAMETER * parameters:
        message = (
            f"{events} events for {parameters} parameters of the covariates ({events / parameters:.1f} each; 10 or more are "
            "advised): penalties shrink what cannot be told, and intervals are wide"
        )
        warnings.append(Problem("covariates", message))
    return tuple(warnings[:_SHOWN_ROWS])


def _other_endpoints(patients: pd.DataFrame, settings: CohortSettings) -> list[Problem]:
    """Read the endpoints that are not modelled: what is wrong with them is wrong with the table. Blanks are not."""
    problems: list[Problem] = []
    for name, endpoint in settings.all_endpoints.items():
        if name != settings.endpoint:
            read_times(patients, endpoint.time, settings, problems, blanks_allowed=True)
            known = patients[~is_missing(patients[endpoint.event])]
            read_events(known, endpoint, settings, problems)
    return problems


def _dates(
    patients: pd.DataFrame, time_days: FloatArray, settings: CohortSettings, *, known: bool
) -> tuple[FloatArray | None, list[Problem], list[Problem]]:
    """Return the dates of time zero, what cannot be right about them, and what is doubtful."""
    if settings.time_zero is None:
        return None, [], []
    times = time_days if known else np.full(len(patients), np.nan)
    problems, doubts = check_time_zero(patients, times, settings.time_zero, settings.table.name)
    return parse_dates(patients[settings.time_zero.column]), problems, doubts


def events_per_parameter(cohort: Cohort, covariates: Sequence[Covariate]) -> tuple[int, int]:
    """Count events, and the parameters that a linear model of the covariates has.

    Parameters
    ----------
    cohort : Cohort
        Patients.
    covariates : sequence of settings of a covariate
        What enters.

    Returns
    -------
    tuple of int
        Events; parameters: one for a number, one for each word but the first, the components of a block.
    """
    parameters = 0
    for one in covariates:
        if isinstance(one, ReducedCovariate):
            columns = len(one.matching(cohort.covariates.columns))
            parameters += columns if one.components is None else min(one.components, columns)
        elif isinstance(one, CategoricalCovariate):
            parameters += max(cohort.covariates[one.column].nunique() - 1, 0)
        else:
            parameters += 1
    return int(cohort.event.sum()), parameters
