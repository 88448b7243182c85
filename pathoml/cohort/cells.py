"""Cells of the clinical table -> numbers, events and words, each cell that cannot be read with its row and column."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.cohort.endpoints import EndpointSettings
from pathoml.cohort.settings import CohortSettings
from pathoml.errors import Problem, first_of
from pathoml.tables import parse_numbers
from pathoml.units import FloatArray, IntArray

_SHOWN_ROWS = 10
_USUAL_CODES = {
    "no": 0, "yes": 1, "n": 0, "y": 1, "alive": 0, "dead": 1, "deceased": 1, "living": 0, "censored": 0, "event": 1,
    "false": 0, "true": 1,
}  # fmt: skip
"""Words that tables use for what became of a patient."""


def one_row_a_patient(
    table: pd.DataFrame, settings: CohortSettings, columns: list[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Fold slide rows into patient rows; a patient whose rows disagree is a problem.

    Parameters
    ----------
    table : DataFrame
        Text cells; the index is the row in the file.
    settings : CohortSettings
        The patient's column.
    columns : list of str
        Columns that count.

    Returns
    -------
    tuple of DataFrame and list of Problem
        One row a patient, with its row in the file as `_row`; who stands more than once.
    """
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


def read_times(
    patients: pd.DataFrame, column: str, settings: CohortSettings, problems: list[Problem], *, blanks_allowed: bool = False
) -> FloatArray:  # fmt: skip
    """Read a column of times, which cannot be negative.

    Parameters
    ----------
    patients : DataFrame
        Text cells, one row a patient.
    column : str
        Which.
    settings : CohortSettings
        For the file's name.
    problems : list of Problem
        Grows by what cannot be read.
    blanks_allowed : bool, optional
        Whether a blank is no problem.

    Returns
    -------
    ndarray of float64, shape (patients,)
        In the column's unit; NaN where it cannot be read.
    """
    values = _numbers(patients, column, settings.table.name, problems, blanks_allowed=blanks_allowed)
    message = "is negative; times count forward from time zero"
    _report_rows(problems, settings.table.name, patients, column, values < 0, message)
    return values


def read_entry(
    patients: pd.DataFrame, outcome: EndpointSettings, settings: CohortSettings, problems: list[Problem]
) -> FloatArray | None:  # fmt: skip
    """Read when patients came under observation.

    Parameters
    ----------
    patients : DataFrame
        Text cells, one row a patient.
    outcome : EndpointSettings
        The column, if there is one.
    settings : CohortSettings
        For the file's name.
    problems : list of Problem
        Grows by what cannot be read.

    Returns
    -------
    ndarray of float64, shape (patients,), or None
        Days.
    """
    if outcome.entry is None:
        return None
    return read_times(patients, outcome.entry, settings, problems) * outcome.days_per_unit


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


def read_events(
    table: pd.DataFrame, outcome: EndpointSettings, settings: CohortSettings, problems: list[Problem]
) -> IntArray:  # fmt: skip
    """Read what happened at the end of follow-up.

    Parameters
    ----------
    table : DataFrame
        Text cells, one row a patient.
    outcome : EndpointSettings
        Column and coding.
    settings : CohortSettings
        For the file's name.
    problems : list of Problem
        Grows by what cannot be read.

    Returns
    -------
    ndarray of int64, shape (patients,)
        0 censored, 1 the event, 2, 3, ... competing events.
    """
    codes = dict(outcome.event_codes)
    # A table saved by a spreadsheet or by pandas often holds 1.0 for 1.
    codes.update({f"{key}.0": value for key, value in outcome.event_codes.items() if key.isdigit()})
    coded = table[outcome.event].map(codes)
    words = {0: "censored", 1: "event", **outcome.causes}
    known = ", ".join(f"{key} = {words.get(value, f'cause {value}')}" for key, value in outcome.event_codes.items())
    _report_rows(
        problems,
        settings.table.name,
        table,
        outcome.event,
        coded.isna(),
        f"is not in event_codes ({known}); set cohort.event_codes to what the column holds{_codes_to_paste(table[outcome.event])}",
    )
    return np.asarray(coded.fillna(0), dtype=np.int64)


def _codes_to_paste(column: "pd.Series[str]") -> str:
    """Return a line for the configuration, where the column's words are the usual ones."""
    words = {word for word in column.unique().tolist() if word}
    codes = {word: _USUAL_CODES[word.casefold()] for word in sorted(words) if word.casefold() in _USUAL_CODES}
    if not words or len(codes) < len(words) or set(codes.values()) != {0, 1}:
        return ""
    inside = ", ".join(f"'{word}': {code}" for word, code in codes.items())
    return f", if that is what is meant: event_codes: {{{inside}}}"


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
