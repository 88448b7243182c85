"""One division of the patients into training, validation and test: the record, its checks, its table."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pathoml.cohort import Cohort
from pathoml.errors import CohortError, Problem
from pathoml.files import write_text
from pathoml.provenance import digest_of
from pathoml.tables import missing_columns_message, read_text_table

ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Fold:
    """One division of the patients; the three groups are disjoint.

    Parameters
    ----------
    scheme : str
        Kind of the scheme: ``kfold``, ``site_preserved``, ``leave_one_site_out``, ``external``, ``fixed`` or ``files``.
    name : str
        ``0``, ``1``, ... (``1-0`` is the first fold of the second repeat), or the name of the hospital left out.
    train, validation, test : tuple of str
        Patient ids: fitted on, used for early stopping, scored.
    repeat : int, optional
        Which dealing of a repeated scheme it belongs to.
    """

    scheme: str
    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    repeat: int = 0

    @property
    def key(self) -> str:
        """Scheme and name, for messages and tables."""
        return f"{self.scheme}-{self.name}"

    @property
    def folder_name(self) -> str:
        """The key as a file name: characters that could lead elsewhere are replaced, and a digest keeps names apart."""
        safe = re.sub(r"[^A-Za-z0-9_-]", "_", self.key)
        return safe if safe == self.key else f"{safe}-{digest_of(self.key)[:8]}"


def check_folds(cohort: Cohort, folds: Sequence[Fold]) -> None:
    """Refuse folds that leak or cannot be scored.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    folds : sequence of Fold
        Made or read.

    Raises
    ------
    CohortError
        If a patient stands in two groups of a fold or in two test sets of one dealing, or is not in the cohort; or if
        a group has no event.
    """
    problems = fold_problems(cohort, folds)
    if problems:
        raise CohortError(f"folds: {len(problems)} problem(s)", problems)


def fold_problems(cohort: Cohort, folds: Sequence[Fold]) -> list[Problem]:
    """Return what makes folds leak or impossible to score.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    folds : sequence of Fold
        Made or read.

    Returns
    -------
    list of Problem
        Patients in two groups of a fold, patients tested twice in one dealing, groups without an event.

    Raises
    ------
    CohortError
        If a patient is not in the cohort.
    """
    problems: list[Problem] = []
    tested: dict[tuple[str, int, str], str] = {}
    for fold in folds:
        twice = patients_in_two_groups(fold)
        if twice:
            groups = " and ".join(role for role in ROLES if set(twice) & set(getattr(fold, role)))
            message = f"shared_patients: patient(s) {', '.join(twice[:5])} stand in two groups of the fold: {groups}"
            problems.append(Problem(fold.key, message))
        for patient in fold.test:
            other = tested.setdefault((fold.scheme, fold.repeat, patient), fold.name)
            if other != fold.name:
                problems.append(Problem(fold.key, f"patient {patient} is tested in fold {other} too"))
        for role in ROLES:
            members = getattr(fold, role)
            if not cohort.event[cohort.rows_of(members)].any():
                message = f"no events among the {len(members)} {role} patients; use fewer folds or more patients"
                problems.append(Problem(fold.key, message))
    return problems


def patients_in_two_groups(fold: Fold) -> list[str]:
    """Return the patients that stand more than once in a fold.

    Parameters
    ----------
    fold : Fold
        Any.

    Returns
    -------
    list of str
        Sorted; empty for a fold that does not leak.
    """
    count = Counter([*fold.train, *fold.validation, *fold.test])
    return sorted(patient for patient, times in count.items() if times > 1)


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Save folds as a table with columns scheme, fold, repeat, role, patient_id.

    Parameters
    ----------
    path : Path
        Where to.
    folds : sequence of Fold
        What to save.
    """
    rows = [
        (fold.scheme, fold.name, fold.repeat, role, patient)
        for fold in folds
        for role in ROLES
        for patient in getattr(fold, role)
    ]
    write_text(path, pd.DataFrame(rows, columns=["scheme", "fold", "repeat", "role", "patient_id"]).to_csv(index=False))


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Read folds saved by `write_folds`.

    Parameters
    ----------
    path : Path
        The table.

    Returns
    -------
    tuple of Fold
        In the order written.

    Raises
    ------
    CohortError
        If a column is missing, a role is unknown or a repeat is no number.
    """
    table = read_text_table(path)
    for column in ("scheme", "fold", "repeat", "role", "patient_id"):
        if column not in table.columns:
            raise CohortError(missing_columns_message(path, table, column))
    unknown = sorted(set(table["role"]) - set(ROLES))
    if unknown:
        raise CohortError(f"{path.name}: unknown role(s) {', '.join(unknown)}; expected {', '.join(ROLES)}")
    odd = sorted(one for one in set(table["repeat"]) if not one.isdecimal())
    if odd:
        raise CohortError(f"{path.name}: column repeat holds '{odd[0]}'; expected 0, 1, 2, ...")
    folds = []
    for (scheme, name, repeat), rows in table.groupby(["scheme", "fold", "repeat"], sort=False):
        train, validation, test = (tuple(rows.loc[rows["role"] == role, "patient_id"]) for role in ROLES)
        folds.append(Fold(str(scheme), str(name), train, validation, test, int(str(repeat))))
    return tuple(folds)
