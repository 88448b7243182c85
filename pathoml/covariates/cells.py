"""Cells of the clinical table -> covariates as the cohort holds them; tens of thousands of columns at once."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.covariates.settings import (
    CategoricalCovariate,
    Covariate,
    OrdinalCovariate,
    ReducedCovariate,
)
from pathoml.errors import Problem, first_of
from pathoml.tables import is_missing, parse_number_columns
from pathoml.units import FloatArray

_SHOWN = 10
_FEW_PATIENTS = 5
_MOSTLY = 0.5


def read_covariates(
    table: pd.DataFrame, covariates: Sequence[Covariate], blocks: Mapping[str, Sequence[str]], name_row: Sequence[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read the covariates of patients.

    Parameters
    ----------
    table : DataFrame
        Cells as text.
    covariates : sequence of settings of a covariate
        Which.
    blocks : mapping of str to sequence of str
        Columns of each block and each family of gene groups.
    name_row : sequence of str, of length patients
        How messages call each row, such as ``cohort.csv: row 7``.

    Returns
    -------
    tuple of DataFrame and list of Problem
        Numbers as float (NaN where missing), words as text; a column of several blocks once. What is not a number, and what is
        none of an ordered word's levels.
    """
    parts: list[pd.DataFrame] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    for covariate in covariates:
        own = blocks[covariate.name] if isinstance(covariate, ReducedCovariate) else [covariate.column]
        columns = [name for name in own if name not in taken]
        taken.update(columns)
        if not columns:
            continue
        if isinstance(covariate, CategoricalCovariate | OrdinalCovariate):
            if isinstance(covariate, OrdinalCovariate):
                problems += _not_a_level(table[covariate.column], covariate, name_row)
            parts.append(table[columns].astype(object))
            continue
        values, wrong = parse_number_columns(table[columns])
        problems += _not_numbers(table, columns, wrong, name_row)
        parts.append(pd.DataFrame(values, columns=columns))
    index = pd.RangeIndex(len(table))
    joined = pd.concat([part.set_axis(index, axis=0) for part in parts], axis=1) if parts else pd.DataFrame(index=index)
    return joined, problems


def _not_numbers(
    table: pd.DataFrame, columns: Sequence[str], wrong: NDArray[np.bool_], name_row: Sequence[str]
) -> list[Problem]:
    problems: list[Problem] = []
    for position in np.flatnonzero(wrong.any(axis=0)).tolist():
        cells = table[columns[position]]
        rows = np.flatnonzero(wrong[:, position]).tolist()
        hint = "; write decimals with a point" if cells.iloc[rows].str.contains(",").any() else ""
        found = [
            Problem(f"{name_row[row]}, column {columns[position]}", f"'{cells.iloc[row]}' is not a number{hint}")
            for row in rows
        ]
        problems += first_of(found, f"{_file(name_row)}: column {columns[position]}", _SHOWN)
    return problems


def _not_a_level(cells: "pd.Series[str]", covariate: OrdinalCovariate, name_row: Sequence[str]) -> list[Problem]:
    wrong = ~cells.isin(covariate.levels).to_numpy() & ~is_missing(cells)
    found = [
        Problem(
            f"{name_row[row]}, column {covariate.column}",
            f"'{cells.iloc[row]}' is none of the levels {', '.join(covariate.levels)}",
        )
        for row in np.flatnonzero(wrong).tolist()
    ]
    return first_of(found, f"{_file(name_row)}: column {covariate.column}", _SHOWN)


def _file(name_row: Sequence[str]) -> str:
    return name_row[0].partition(": row")[0]


def doubtful_covariates(covariates: pd.DataFrame) -> list[Problem]:
    """Warn of columns that are allowed and seldom meant: mostly blank, the same for all, words that few have.

    Parameters
    ----------
    covariates : DataFrame
        As `read_covariates` gives them.

    Returns
    -------
    list of Problem
        In the order of columns.
    """
    numbers = covariates.select_dtypes("number")
    values: FloatArray = numbers.to_numpy(dtype=np.float64)
    blank = np.isnan(values)
    first = values[(~blank).argmax(axis=0), np.arange(values.shape[1])] if len(values) else np.zeros(0)
    same = ((values == first) | blank).all(axis=0) & ~blank.all(axis=0)
    of_numbers = {name: (blank[:, at].mean(), bool(same[at])) for at, name in enumerate(numbers.columns)}
    warnings = []
    for name in covariates.columns:
        if name in of_numbers:
            warnings += _doubts(name, *of_numbers[name])
            continue
        words = covariates[name]
        missing = is_missing(words)
        doubts = _doubts(name, missing.mean(), words[~missing].nunique() == 1)
        counts = words[~missing].value_counts()
        rare = [f"'{level}' ({count})" for level, count in counts.items() if count < _FEW_PATIENTS]
        if rare and not doubts:
            doubts = [Problem(f"column {name}", f"few patients have {', '.join(rare[:5])}; is it a slip of spelling?")]
        warnings += doubts
    return warnings


def _doubts(name: str, blank: float, same: bool) -> list[Problem]:  # noqa: FBT001 - one line of a table
    if blank > _MOSTLY:
        return [Problem(f"column {name}", f"blank for {blank:.0%} of the patients")]
    return [Problem(f"column {name}", "the same for all patients; it cannot tell them apart")] if same else []
