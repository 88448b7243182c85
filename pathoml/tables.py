"""CSV, TSV and Parquet tables read as text, so that site '05' stays '05'."""

from pathlib import Path
from typing import Literal

import pandas as pd

from pathoml.errors import CohortError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
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
        String columns; names and cells stripped of surrounding blanks.

    Raises
    ------
    CohortError
        If the file is missing, of an unknown kind, unreadable, empty, or names a column twice.
    """
    if not path.is_file():
        raise CohortError(f"{path}: no such table")
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_delimited(path)
    table.columns = [str(name).strip() for name in table.columns]
    twice = sorted(set(table.columns[table.columns.duplicated()]))
    if twice:
        raise CohortError(f"{path.name}: column name(s) {', '.join(twice)} stand more than once; rename them")
    if len(table.columns) == 1 and ";" in table.columns[0]:
        raise CohortError(f"{path.name}: separated by semicolons; save it with commas (.csv) or tabs (.tsv)")
    if table.empty:
        raise CohortError(f"{path.name}: the table has no rows")
    return table


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
    names = list(table.columns)
    shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return f"no column '{column}' in {path.name}; it has: {shown}"


def _read_parquet(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    text = {name: column.map(_cell_text) for name, column in table.items()}
    return pd.DataFrame(text)


def _cell_text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value).strip()  # noqa: PLR0124 - NaN


def _read_delimited(path: Path) -> pd.DataFrame:
    suffixes = [suffix for suffix in path.suffixes if suffix in _SEPARATORS]
    if not suffixes:
        raise CohortError(f"{path.name}: not a .csv, .tsv or .parquet table")
    compression: Literal["zip"] | None = "zip" if path.suffix == ".zip" else None
    try:
        table: pd.DataFrame = pd.read_csv(
            path, sep=_SEPARATORS[suffixes[0]], dtype=str, keep_default_na=False, encoding="utf-8-sig", compression=compression,
            skipinitialspace=True,
        )  # fmt: skip
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CohortError(f"{path.name}: cannot be read as a table: {error}") from error
    stripped: pd.DataFrame = table.apply(lambda column: column.str.strip())
    return stripped
