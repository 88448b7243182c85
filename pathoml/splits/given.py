"""Folds that somebody else made: read from one table, or from one file a fold."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pathoml.cohort import Cohort
from pathoml.errors import CohortError, Problem, first_of
from pathoml.splits.folds import ROLES
from pathoml.splits.settings import FixedSettings, FoldFilesSettings
from pathoml.tables import missing_columns_message, read_text_table
from pathoml.units import IntArray

Groups = Mapping[str, IntArray]
"""Rows of the cohort by role; a role that is not there is filled by whoever deals."""


def fixed_groups(cohort: Cohort, settings: FixedSettings) -> dict[str, Groups]:
    """Read folds from a table.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : FixedSettings
        The table.

    Returns
    -------
    dict of str to mapping of str to ndarray of int64
        Fold to the cohort's rows by role: of test patients alone, or of every role that the table gives.

    Raises
    ------
    CohortError
        With every problem: columns, double rows, blanks, unknown roles, patients that the table forgets.
    """
    path = settings.table
    table = read_text_table(path)
    absent = [column for column in ("patient_id", "fold") if column not in table.columns]
    if absent:
        problems = [Problem(f"{path.name}: row 1", missing_columns_message(path, table, column)) for column in absent]
        raise CohortError(f"{path.name}: {len(problems)} problem(s)", problems)
    has_roles = "role" in table.columns
    known = set(cohort.patient_id.tolist())
    table = table[table["patient_id"].isin(known)]
    problems = _double_rows(table, path.name, has_roles=has_roles) + _blank_folds(table, path.name)
    problems += _unknown_roles(table, path.name) if has_roles else []
    problems += _forgotten(known - set(table["patient_id"]), path.name)
    if problems:
        raise CohortError(f"{path.name}: {len(problems)} problem(s)", problems)
    if has_roles:
        return {str(name): _by_role(cohort, rows) for name, rows in table.groupby("fold", sort=True)}
    groups: dict[str, Groups] = {
        str(name): {"test": cohort.rows_of(rows["patient_id"])} for name, rows in table.groupby("fold", sort=True)
    }
    if len(groups) < 2:
        raise CohortError(f"{path.name}: needs two folds or more, found {len(groups)}")
    return groups


def file_groups(cohort: Cohort, settings: FoldFilesSettings) -> dict[str, Groups]:
    """Read folds from one file each.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : FoldFilesSettings
        Folder, pattern of names, columns.

    Returns
    -------
    dict of str to mapping of str to ndarray of int64
        Fold to the cohort's rows by role.

    Raises
    ------
    CohortError
        If there is no such file, a column is missing, or a patient of the cohort stands in none of a file's columns.
    """
    paths = fold_files(settings)
    if not paths:
        raise CohortError(f"{settings.folder}: no file matches '{settings.pattern}'; set folder and pattern")
    columns = {"train": settings.train, "test": settings.test}
    if settings.validation is not None:
        columns["validation"] = settings.validation
    known = set(cohort.patient_id.tolist())
    groups: dict[str, Groups] = {}
    problems: list[Problem] = []
    for name, path in paths.items():
        table = read_text_table(path)
        absent = [column for column in columns.values() if column not in table.columns]
        if absent:
            problems += [Problem(f"{path.name}: row 1", missing_columns_message(path, table, one)) for one in absent]
            continue
        listed = {role: [one for one in table[column] if one in known] for role, column in columns.items()}
        problems += _forgotten(known - {one for names in listed.values() for one in names}, path.name)
        groups[name] = {role: cohort.rows_of(names) for role, names in listed.items()}
    if problems:
        raise CohortError(f"{settings.folder.name}: {len(problems)} problem(s)", problems)
    return groups


def fold_files(settings: FoldFilesSettings) -> dict[str, Path]:
    """Find the files of `kind: files`.

    Parameters
    ----------
    settings : FoldFilesSettings
        Folder and pattern.

    Returns
    -------
    dict of str to Path
        What stands for the pattern's star, to the file; in alphabetical order.
    """
    before, _, after = settings.pattern.partition("*")
    found = sorted(settings.folder.glob(settings.pattern))
    return {path.name.removeprefix(before).removesuffix(after): path for path in found}


def _by_role(cohort: Cohort, rows: pd.DataFrame) -> dict[str, IntArray]:
    found = {role: cohort.rows_of(rows.loc[rows["role"] == role, "patient_id"]) for role in ROLES}
    return {role: one for role, one in found.items() if len(one) or role != "validation"}


def _forgotten(patients: set[str], file_name: str) -> list[Problem]:
    if not patients:
        return []
    shown = ", ".join(sorted(patients)[:5])
    message = (
        f"{len(patients)} patient(s) of the cohort are in no fold: {shown}; add them, or leave them out of the cohort"
    )
    return [Problem(file_name, message)]


def _double_rows(table: pd.DataFrame, file_name: str, *, has_roles: bool) -> list[Problem]:
    named = ["patient_id", "fold"] if has_roles else ["patient_id"]
    often = (
        "more than one row of a fold; each has one role there"
        if has_roles
        else "more than one row; each is tested once"
    )
    double = table[table[named].duplicated(keep=False)]
    problems = [
        Problem(
            f"{file_name}: rows {', '.join(str(row) for row in rows.index)}, column patient_id",
            f"patient {rows['patient_id'].iloc[0]} stands in {often}",
        )
        for _, rows in double.groupby(named, sort=False)
    ]
    return first_of(problems, file_name)


def _unknown_roles(table: pd.DataFrame, file_name: str) -> list[Problem]:
    odd = table[~table["role"].isin(ROLES)]
    problems = [
        Problem(f"{file_name}: row {row}, column role", f"'{role}' is not one of {', '.join(ROLES)}")
        for row, role in odd["role"].items()
    ]
    return first_of(problems, file_name)


def _blank_folds(table: pd.DataFrame, file_name: str) -> list[Problem]:
    blank = table[table["fold"] == ""]
    problems = [
        Problem(f"{file_name}: row {row}, column fold", f"blank for patient {patient}; name the fold that tests them")
        for row, patient in blank["patient_id"].items()
    ]
    return first_of(problems, file_name)
