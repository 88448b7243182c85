"""Who trains and who tests: folds of whole patients, made once, saved, checked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from pathoml.cohort import Cohort
from pathoml.errors import CohortError, Problem, first_of
from pathoml.files import write_text
from pathoml.provenance import digest_of
from pathoml.settings import DataPath, Settings
from pathoml.tables import missing_columns_message, read_text_table
from pathoml.units import IntArray

ROLES = ("train", "validation", "test")


class KFoldSettings(Settings):
    """Patients dealt at random into folds, events shared out evenly."""

    kind: Literal["kfold"] = "kfold"
    folds: int = Field(5, ge=2, le=50, description="Number of folds.")


class LeaveOneSiteOutSettings(Settings):
    """Each hospital is the test set once."""

    kind: Literal["leave_one_site_out"] = "leave_one_site_out"


class FixedSettings(Settings):
    """Folds as a table says."""

    kind: Literal["fixed"] = "fixed"
    table: DataPath = Field(
        description="Table with columns patient_id and fold (which tests them); rows of others are ignored. Or a folder of tables"
        " splits_0.csv, splits_1.csv, ... with columns train and val (who is tested), as MCAT and CLAM keep them."
    )


Scheme = Annotated[KFoldSettings | LeaveOneSiteOutSettings | FixedSettings, Field(discriminator="kind")]


class SplitsSettings(Settings):
    """How the model is validated."""

    schemes: tuple[Scheme, ...] = Field(
        (KFoldSettings(),),
        min_length=1,
        description="Validation schemes; the package and the headline come from the first.",
    )
    validation_share: float = Field(
        0.2,
        gt=0,
        lt=0.5,
        description="Share of the training patients set aside for early stopping, stratified by event.",
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice of patients.")

    @field_validator("schemes")
    @classmethod
    def _each_once(cls, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
        kinds = [scheme.kind for scheme in schemes]
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind of scheme can stand once")
        return schemes


@dataclass(frozen=True)
class Fold:
    """One division of the patients; the three groups are disjoint.

    Parameters
    ----------
    scheme : str
        ``kfold``, ``leave_one_site_out`` or ``fixed``.
    name : str
        ``0``, ``1``, ... or the name of the hospital left out.
    train, validation, test : tuple of str
        Patient ids: fitted on, used for early stopping, scored.
    """

    scheme: str
    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def key(self) -> str:
        """Scheme and name, for messages and tables."""
        return f"{self.scheme}-{self.name}"

    @property
    def folder_name(self) -> str:
        """The key as a file name: characters that could lead elsewhere are replaced, and a digest keeps names apart."""
        safe = re.sub(r"[^A-Za-z0-9_-]", "_", self.key)
        return safe if safe == self.key else f"{safe}-{digest_of(self.key)[:8]}"


def make_folds(cohort: Cohort, settings: SplitsSettings) -> tuple[Fold, ...]:
    """Divide the patients by every scheme.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : SplitsSettings
        Schemes, share for early stopping, seed.

    Returns
    -------
    tuple of Fold
        Scheme by scheme.

    Raises
    ------
    CohortError
        If there are too few events, or a fold has none, or a fixed table does not fit the cohort.
    """
    folds, problems = examine_folds(cohort, settings)
    if problems:
        raise CohortError(f"folds: {len(problems)} problem(s)", problems)
    return folds


def examine_folds(
    cohort: Cohort, settings: SplitsSettings, *, outcomes_known: bool = True
) -> tuple[tuple[Fold, ...], list[Problem]]:
    """Divide the patients by every scheme, as far as it can be done.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    settings : SplitsSettings
        Schemes, share for early stopping, seed.
    outcomes_known : bool, optional
        Whether events can be counted; without, only who stands where is judged.

    Returns
    -------
    tuple of (tuple of Fold, list of Problem)
        The folds of the schemes that could be made, and what is wrong.
    """
    folds: list[Fold] = []
    problems: list[Problem] = []
    for index, scheme in enumerate(settings.schemes):
        if isinstance(scheme, KFoldSettings) and not outcomes_known:
            continue
        try:
            groups = _test_groups(cohort, scheme, settings.seed)
            if outcomes_known:
                folds += [_fold(cohort, scheme.kind, name, test, settings) for name, test in groups.items()]
        except CohortError as error:
            key = ("splits", "schemes", index)
            found = error.problems or (Problem("", str(error)),)
            problems += [Problem(one.where, one.message, key) for one in found]
    return tuple(folds), problems + _problems_of(cohort, folds)


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
        If a patient stands in two groups of a fold or in two test sets of one scheme, or is not in the cohort; or if
        a group has no event.
    """
    problems = _problems_of(cohort, folds)
    if problems:
        raise CohortError(f"folds: {len(problems)} problem(s)", problems)


def _problems_of(cohort: Cohort, folds: Sequence[Fold]) -> list[Problem]:
    problems: list[Problem] = []
    tested: dict[tuple[str, str], str] = {}
    for fold in folds:
        members = [*fold.train, *fold.validation, *fold.test]
        twice = (
            sorted({patient for patient in members if members.count(patient) > 1})
            if len(set(members)) < len(members)
            else []
        )
        if twice:
            problems.append(Problem(fold.key, f"patient(s) {', '.join(twice[:5])} stand in two groups of the fold"))
        for patient in fold.test:
            other = tested.setdefault((fold.scheme, patient), fold.name)
            if other != fold.name:
                problems.append(Problem(fold.key, f"patient {patient} is tested in fold {other} too"))
        for role in ROLES:
            events = int(cohort.event[cohort.rows_of(getattr(fold, role))].sum())
            if events == 0:
                problems.append(
                    Problem(
                        fold.key,
                        f"no events among the {len(getattr(fold, role))} {role} patients; use fewer folds or more patients",
                    )
                )
    return problems


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Save folds as a table with columns scheme, fold, role, patient_id.

    Parameters
    ----------
    path : Path
        Where to.
    folds : sequence of Fold
        What to save.
    """
    rows = [
        (fold.scheme, fold.name, role, patient) for fold in folds for role in ROLES for patient in getattr(fold, role)
    ]
    write_text(path, pd.DataFrame(rows, columns=["scheme", "fold", "role", "patient_id"]).to_csv(index=False))


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
        If a column is missing or a role is unknown.
    """
    table = read_text_table(path)
    for column in ("scheme", "fold", "role", "patient_id"):
        if column not in table.columns:
            raise CohortError(missing_columns_message(path, table, column))
    unknown = sorted(set(table["role"]) - set(ROLES))
    if unknown:
        raise CohortError(f"{path.name}: unknown role(s) {', '.join(unknown)}; expected {', '.join(ROLES)}")
    return tuple(
        Fold(str(scheme), str(name), *(tuple(rows.loc[rows["role"] == role, "patient_id"]) for role in ROLES))
        for (scheme, name), rows in table.groupby(["scheme", "fold"], sort=False)
    )


def _test_groups(cohort: Cohort, scheme: Scheme, seed: int) -> dict[str, IntArray]:
    if isinstance(scheme, LeaveOneSiteOutSettings):
        return _sites(cohort)
    if isinstance(scheme, FixedSettings):
        return _fixed(cohort, scheme.table)
    events = int(cohort.event.sum())
    fewest = min(events, len(cohort) - events) if events < len(cohort) else events
    if fewest < scheme.folds:
        raise CohortError(
            f"{scheme.folds} folds need {scheme.folds} events and as many censored patients; the cohort has {events} events"
            f" in {len(cohort)} patients"
        )
    splitter = StratifiedKFold(scheme.folds, shuffle=True, random_state=seed)
    return {str(index): test for index, (_, test) in enumerate(splitter.split(cohort.event, cohort.event))}


def _sites(cohort: Cohort) -> dict[str, IntArray]:
    sites = sorted(set(cohort.site))
    if len(sites) < 2:
        raise CohortError("leave_one_site_out needs two hospitals or more; name the column in cohort.site")
    if "" in sites:
        blank = cohort.patient_id[cohort.site == ""]
        raise CohortError(
            f"leave_one_site_out: {len(blank)} patient(s) have no hospital ({', '.join(blank[:5])}); fill it in"
        )
    return {str(site): np.flatnonzero(cohort.site == site) for site in sites}


def _fixed(cohort: Cohort, path: Path) -> dict[str, IntArray]:
    table = _folder_of_folds(path) if path.is_dir() else read_text_table(path)
    absent = [column for column in ("patient_id", "fold") if column not in table.columns]
    if absent:
        problems = [Problem(f"{path.name}: row 1", missing_columns_message(path, table, column)) for column in absent]
        raise CohortError(f"{path.name}: {len(problems)} problem(s)", problems)
    known = set(cohort.patient_id)
    table = table[table["patient_id"].isin(known)]
    problems = _double_rows(table, path.name) + _blank_folds(table, path.name)
    untested = sorted(known - set(table["patient_id"]))
    if untested:
        message = f"{len(untested)} patient(s) of the cohort are in no fold: {', '.join(untested[:5])}"
        problems.append(Problem(path.name, message))
    if problems:
        raise CohortError(f"{path.name}: {len(problems)} problem(s)", problems)
    groups = {str(name): cohort.rows_of(rows["patient_id"]) for name, rows in table.groupby("fold", sort=True)}
    if len(groups) < 2:
        raise CohortError(f"{path.name}: needs two folds or more, found {len(groups)}")
    return groups


def fold_files(path: Path) -> list[Path]:
    """Return the files that fixed folds are read from.

    Parameters
    ----------
    path : Path
        A table, or a folder of tables splits_<fold>.csv.

    Returns
    -------
    list of Path
        In the order of folds.
    """
    return sorted(path.glob("splits_*.csv"), key=lambda one: (len(one.name), one.name)) if path.is_dir() else [path]


def _folder_of_folds(path: Path) -> pd.DataFrame:
    """Read one table a fold, with those that train and those that are tested below one another."""
    files = fold_files(path)
    if not files:
        raise CohortError(f"{path}: no tables splits_0.csv, splits_1.csv, ... in this folder")
    folds = []
    for file in files:
        table = read_text_table(file)
        for column in ("train", "val"):
            if column not in table.columns:
                raise CohortError(missing_columns_message(file, table, column))
        tested = sorted(set(table["val"]) - {""})
        both = sorted(set(tested) & set(table["train"]))
        if both:
            raise CohortError(f"{file.name}: patient(s) {', '.join(both[:5])} are trained on and tested")
        name = file.stem.removeprefix("splits_")
        folds.append(pd.DataFrame({"patient_id": tested, "fold": name}))
    return pd.concat(folds, ignore_index=True)


def _double_rows(table: pd.DataFrame, file_name: str) -> list[Problem]:
    double = table[table["patient_id"].duplicated(keep=False)]
    problems = [
        Problem(
            f"{file_name}: rows {', '.join(str(row) for row in rows.index)}, column patient_id",
            f"patient {patient} stands in more than one row; each is tested once",
        )
        for patient, rows in double.groupby("patient_id", sort=False)
    ]
    return first_of(problems, file_name)


def _blank_folds(table: pd.DataFrame, file_name: str) -> list[Problem]:
    blank = table[table["fold"] == ""]
    problems = [
        Problem(f"{file_name}: row {row}, column fold", f"blank for patient {patient}; name the fold that tests them")
        for row, patient in blank["patient_id"].items()
    ]
    return first_of(problems, file_name)


def _fold(cohort: Cohort, scheme: str, name: str, test: IntArray, settings: SplitsSettings) -> Fold:
    rest = np.setdiff1d(np.arange(len(cohort)), test)
    train, validation = _inner_split(cohort, rest, settings)
    train, validation, test = (np.sort(rows) for rows in (train, validation, test))
    return Fold(scheme, name, *(tuple(cohort.patient_id[rows].tolist()) for rows in (train, validation, test)))


def _inner_split(cohort: Cohort, rest: IntArray, settings: SplitsSettings) -> tuple[IntArray, IntArray]:
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=settings.validation_share, random_state=settings.seed)
    try:
        train, validation = next(splitter.split(rest, cohort.event[rest]))
    except ValueError as error:
        events = int(cohort.event[rest].sum())
        raise CohortError(
            f"of {len(rest)} training patients {settings.validation_share:.0%} are set aside for early stopping; that needs two"
            f" or more with the event and two censored, there are {events} and {len(rest) - events}; use more folds or patients"
        ) from error
    return rest[train], rest[validation]
