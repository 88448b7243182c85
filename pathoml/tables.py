"""CSV, TSV and Parquet tables read as text, so that site '05' stays '05'."""

import re
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from pathoml.errors import CohortError
from pathoml.units import BoolArray, FloatArray

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_SEMICOLONS = "{}: separated by semicolons; save it with commas (.csv) or tabs (.tsv)"
_MISSING = frozenset({"", "na", "nan", "n/a", "none", "null"})
_ENDING = re.compile(r"_[A-Za-z]{2,}$")
_SHOWN_NAMES, _FEW_ALIKE = 12, 3
"""How many columns are named in a message; so many that end alike, such as ``time_days`` and ``age_days``, are named one by one."""
FIRST_DATA_ROW = 2
"""Row number, as a spreadsheet shows it, of the first row below the header."""


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a table with every cell as text, blanks as empty strings.

    Parameters
    ----------
    path : Path
        ``.csv`` (commas), ``.tsv`` or ``.txt`` (tabs), or ``.parquet``; CSV may be zipped.

    Returns
    -------
    DataFrame
        String columns; names and cells stripped of surrounding blanks. The index is the row as a spreadsheet counts.

    Raises
    ------
    CohortError
        If the file is missing, of an unknown kind, unreadable, empty, or names a column twice.
    """
    if not path.is_file():
        raise CohortError(f"{path}: no such table; correct the path in the file of settings that names it")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_delimited(path)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    twice = sorted(set(table.columns[table.columns.duplicated()]))
    if twice:
        raise CohortError(f"{path.name}: column name(s) {', '.join(twice)} stand more than once; rename them")
    if len(table.columns) == 1 and ";" in table.columns[0]:
        raise CohortError(_SEMICOLONS.format(path.name))
    if table.empty:
        raise CohortError(f"{path.name}: the table has no rows")
    return table


def parse_numbers(text: "pd.Series[str]") -> tuple[FloatArray, BoolArray]:
    """Read cells as numbers.

    Parameters
    ----------
    text : Series of str
        Cells.

    Returns
    -------
    tuple of ndarray
        Float64 with NaN where there is no finite number; True where the cell says that it is missing (`is_missing`).
    """
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    values[~np.isfinite(values)] = np.nan
    return values, is_missing(text)


def parse_number_columns(cells: pd.DataFrame) -> tuple[FloatArray, BoolArray]:
    """Read the cells of many columns as numbers.

    Parameters
    ----------
    cells : DataFrame of str
        Cells.

    Returns
    -------
    tuple of ndarray
        Float64 with NaN where there is no finite number; True where there is none although the cell does not say that it is
        missing. Both of the shape of `cells`.
    """
    flat = pd.Series(cells.to_numpy(dtype=object).ravel())
    values = pd.to_numeric(flat, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    values[~np.isfinite(values)] = np.nan
    wrong = np.isnan(values)
    wrong[wrong] = ~is_missing(flat[wrong])  # few cells; all others are numbers
    return values.reshape(cells.shape), wrong.reshape(cells.shape)


def is_missing(text: "pd.Series[str]") -> BoolArray:
    """Tell which cells say that their value is missing; the one rule for numbers and for words.

    Parameters
    ----------
    text : Series of str
        Cells.

    Returns
    -------
    ndarray of bool, shape (cells,)
        True for blank, NA, nan, n/a, none and null, in capitals or not.
    """
    return text.str.lower().isin(_MISSING).to_numpy(dtype=bool)


def missing_columns_message(path: Path, table: pd.DataFrame, column: str) -> str:
    """Say that a column is not there and which ones are.

    Parameters
    ----------
    path : Path
        The table's file.
    table : DataFrame
        The table.
    column : str
        The name asked for.

    Returns
    -------
    str
        One sentence.
    """
    close = get_close_matches(column, list(table.columns), n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"no column '{column}' in {path.name}; {guess}it has: {name_columns(table)}"


def name_columns(table: pd.DataFrame) -> str:
    """Name a table's columns, many that end alike by their ending.

    Parameters
    ----------
    table : DataFrame
        The table.

    Returns
    -------
    str
        Such as ``age, sex, *_rnaseq (200)``; columns without a name are left out.
    """
    names = [name for name in map(str, table.columns) if name.strip()]
    endings = {name: found.group() for name in names if (found := _ENDING.search(name))}
    many = {one: count for one, count in Counter(endings.values()).most_common(_SHOWN_NAMES) if count > _FEW_ALIKE}
    rest = [name for name in names if endings.get(name) not in many]
    shown = [*rest[:_SHOWN_NAMES], *([f"... ({len(rest)} in all)"] if len(rest) > _SHOWN_NAMES else [])]
    return ", ".join([*shown, *(f"*{ending} ({count})" for ending, count in many.items())])


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CohortError(f"{path.name}: cannot be read as a table: {error}") from error
    text = {name: column.astype(object).map(_cell_text) for name, column in table.items()}
    return pd.DataFrame(text).set_axis(pd.RangeIndex(FIRST_DATA_ROW, len(table) + FIRST_DATA_ROW), axis=0)


def _cell_text(value: object) -> str:
    return "" if pd.isna(value) else str(value).strip()  # type: ignore[call-overload]


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return stream.readline()


def _read_delimited(path: Path) -> pd.DataFrame:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() in _SEPARATORS]
    if not suffixes:
        raise CohortError(f"{path.name}: not a .csv, .tsv or .parquet table; save a spreadsheet as 'CSV UTF-8'")
    compression: Literal["zip"] | None = "zip" if path.suffix.lower() == ".zip" else None
    try:
        # The header is read as a row like any other, so that pandas neither renames double columns nor takes the
        # first cell of too long a row for an index.
        cells = pd.read_csv(
            path,
            sep=_SEPARATORS[suffixes[0]],
            header=None,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            compression=compression,
            skipinitialspace=True,
            skip_blank_lines=False,
        )
    except pd.errors.ParserError as error:
        if ";" in _first_line(path):
            raise CohortError(_SEMICOLONS.format(path.name)) from error
        remedy = "write decimals with a point, put quotes around cells that hold the separator"
        raise CohortError(
            f"{path.name}: a row has more cells than the header ({str(error).strip()}); {remedy}"
        ) from error
    except UnicodeDecodeError as error:
        raise CohortError(
            f"{path.name}: cannot be read as a table: not UTF-8 text ({error}); save it as 'CSV UTF-8'"
        ) from error
    except (pd.errors.EmptyDataError, BadZipFile) as error:
        raise CohortError(f"{path.name}: cannot be read as a table: {error}") from error
    flat = [cell.strip() if isinstance(cell, str) else "" for cell in cells.to_numpy(dtype=object).ravel()]
    stripped = pd.DataFrame(np.array(flat, dtype=object).reshape(cells.shape), index=cells.index)
    table: pd.DataFrame = stripped.iloc[1:].set_axis(stripped.iloc[0].tolist(), axis=1)
    table = table.set_axis(pd.RangeIndex(FIRST_DATA_ROW, len(table) + FIRST_DATA_ROW), axis=0)
    not_blank = (table.to_numpy(dtype=object) != "").any(axis=1)
    kept: pd.DataFrame = table.loc[not_blank]
    return kept
