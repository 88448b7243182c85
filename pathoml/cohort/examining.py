"""The clinical table -> patients, or everything that is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.cohort.records import Cohort
from pathoml.cohort.settings import CohortSettings
from pathoml.covariates import (
    GeneGroupsCovariate,
    ReducedCovariate,
    covariate_name,
    doubtful_covariates,
    group_columns,
    read_covariates,
)
from pathoml.errors import CohortError, Problem, first_of
from pathoml.tables import missing_columns_message, parse_numbers, read_text_table
from pathoml.units import DAYS_PER_UNIT, FloatArray, IntArray

_SHOWN_ROWS = 10


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
    header = f"{settings.table.name}: row 1"
    problems = [
        Problem(header, missing_columns_message(settings.table, table, name), key) for name, key in absent.items()
    ]
    blocks, of_blocks = _blocks(table, settings, keys)
    problems += of_blocks + _reserved(settings)
    if settings.patient_id in absent:
        return CohortReading(None, tuple(problems), outcomes_known=False)
    # Columns that are missing are stood in for by blanks, so that the problems of the others are found at once.
    columns = list(dict.fromkeys([*keys, *(name for found in blocks.values() for name in found)]))
    patients, of_cells = _one_row_a_patient(table.assign(**dict.fromkeys(absent, "")), settings, columns)
    time_days = _times(patients, settings, of_cells)
    event = _events(patients, settings, of_cells)
    rows = [f"{settings.table.name}: row {row}" for row in patients["_row"]]
    covariates, of_covariates = read_covariates(patients, settings.covariates, blocks, rows)
    of_cells += of_covariates
    real = [one for one in of_cells if not any(one.where.endswith(f"column {name}") for name in absent)]
    of_outcomes = [
        one for one in of_cells if one.where.endswith((f"column {settings.time}", f"column {settings.event}"))
    ]
    site = patients[settings.site] if settings.site else pd.Series([""] * len(patients))
    cohort = Cohort(
        patient_id=patients[settings.patient_id].to_numpy(dtype=str),
        time_days=time_days * DAYS_PER_UNIT[settings.time_unit],
        event=event,
        site=site.to_numpy(dtype=str),
        covariates=covariates,
        endpoint=settings.endpoint,
    )
    problems += real
    if not problems:
        cohort = replace(cohort, warnings=_doubtful(cohort, settings))
    return CohortReading(cohort, tuple(problems), outcomes_known=not of_outcomes)


def _column_keys(settings: CohortSettings) -> dict[str, tuple[str | int, ...]]:
    """Return the columns that are named one by one, each with the key of the configuration that names it first."""
    keys: dict[str, tuple[str | int, ...]] = {}
    for name in ("patient_id", "time", "event", "site"):
        column = getattr(settings, name)
        if column is not None:
            keys.setdefault(column, ("cohort", name))
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
            message = f"block '{block.name}': no column of {settings.table.name} matches {sought}"
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
    meaning = {settings.patient_id: "the patient's id", settings.time: "the outcome", settings.event: "the outcome"}
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
    warnings = doubtful_covariates(cohort.covariates)
    censoring = settings.event_codes.get("1") == 1 and "cens" in settings.event.lower()
    if censoring:
        message = (
            "its name speaks of censoring, and '1' is taken for an event; if 1 means censored, set cohort.event_codes: "
            "{'0': 1, '1': 0}"
        )
        warnings.insert(0, Problem(f"column {settings.event}", message))
    median = float(np.median(cohort.time_days))
    if median < 30:
        message = f"median follow-up is {median:.0f} days; is {settings.time_unit} the right time_unit?"
        warnings.append(Problem(f"column {settings.time}", message))
    return tuple(warnings[:_SHOWN_ROWS])


def _one_row_a_patient(
    table: pd.DataFrame, settings: CohortSettings, columns: list[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Fold slide rows into patient rows; a patient whose rows disagree is a problem."""
    problems: list[Problem] = []
    table = table[columns].assign(_row=table.index)
    _report_rows(
        problems,
        settings.table.name,
        table,
        settings.patient_id,
        table[settings.patient_id] == "",
        "is a blank patient id",
    )
    table = table[table[settings.patient_id] != ""]
    cells = table[columns].to_numpy(dtype=object)
    names, first = np.unique(table[settings.patient_id], return_index=True)
    own_first = first[np.searchsorted(names, table[settings.patient_id])]
    differs = np.zeros(len(table), dtype=bool)
    again = np.flatnonzero(own_first != np.arange(len(table)))  # comparing all cells of a wide table takes seconds
    differs[again] = (cells[again] != cells[own_first[again]]).any(axis=1)
    clash = table[np.isin(own_first, own_first[differs])].drop_duplicates(subset=columns)
    clashes = []
    for patient, rows in clash.groupby(settings.patient_id, sort=False):
        differing = [name for name in columns if rows[name].nunique() > 1]
        where = f"{settings.table.name}: rows {', '.join(str(row) for row in rows['_row'])}"
        clashes.append(
            Problem(
                where,
                f"patient {patient} stands more than once with different {', '.join(differing[:5])}; keep the right row, or "
                "make them agree",
            )
        )
    problems += first_of(clashes, settings.table.name, _SHOWN_ROWS)
    return table.iloc[np.sort(first)].reset_index(drop=True), problems


def _times(patients: pd.DataFrame, settings: CohortSettings, problems: list[Problem]) -> FloatArray:
    values = _numbers(patients, settings.time, settings.table.name, problems, blanks_allowed=False)
    message = "is negative; times count forward from time zero"
    _report_rows(problems, settings.table.name, patients, settings.time, values < 0, message)
    return values


def _numbers(
    table: pd.DataFrame, column: str, file_name: str, problems: list[Problem], *, blanks_allowed: bool
) -> FloatArray:
    text = table[column]
    values, missing = parse_numbers(text)
    wrong = np.isnan(values) & ~missing
    commas = text[wrong].str.contains(",").any()
    hint = "; write decimals with a point" if commas else ""
    _report_rows(problems, file_name, table, column, wrong, f"is not a number{hint}")
    if not blanks_allowed:
        message = "is missing; fill it in or take the patient out of the table"
        _report_rows(problems, file_name, table, column, missing, message)
    return values


def _events(table: pd.DataFrame, settings: CohortSettings, problems: list[Problem]) -> IntArray:
    codes = dict(settings.event_codes)
    # A table saved by a spreadsheet or by pandas often holds 1.0 for 1.
    codes.update({f"{key}.0": value for key, value in settings.event_codes.items() if key.isdigit()})
    coded = table[settings.event].map(codes)
    known = ", ".join(f"{key} = {'event' if value else 'censored'}" for key, value in settings.event_codes.items())
    _report_rows(
        problems,
        settings.table.name,
        table,
        settings.event,
        coded.isna(),
        f"is not in event_codes ({known}); set cohort.event_codes to what the column holds",
    )
    return np.asarray(coded.fillna(0), dtype=np.int64)


def _report_rows(
    problems: list[Problem],
    file_name: str,
    table: pd.DataFrame,
    column: str,
    wrong: "pd.Series[bool] | NDArray[np.bool_]",
    message: str,
) -> None:
    found = [
        Problem(
            f"{file_name}: row {table['_row'].iloc[index]}, column {column}", f"'{table[column].iloc[index]}' {message}"
        )
        for index in np.flatnonzero(np.asarray(wrong))
    ]
    problems += first_of(found, f"{file_name}: column {column}", _SHOWN_ROWS)
