"""Leaks through people: a patient on both sides of a fold, under one id, two spellings, or two ids with the same data."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort
from pathoml.leakage.findings import Finding, shown
from pathoml.splits import Fold, patients_in_two_groups
from pathoml.units import IntArray

_ENOUGH_COLUMNS = 20
"""Covariates of two people agree in so many columns only if they are one person."""


class Sides(NamedTuple):
    """Who stands on which side of a fold.

    Parameters
    ----------
    fold : Fold
        The fold.
    side : ndarray of int64, shape (patients,)
        For each patient of the cohort: 1 training or validation, 2 test, 0 neither.
    """

    fold: Fold
    side: IntArray


def sides_of(cohort: Cohort, folds: Sequence[Fold]) -> list[Sides]:
    """Lay out who stands on which side.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    folds : sequence of Fold
        Of one scheme or several.

    Returns
    -------
    list of Sides
        One a fold.
    """
    position = {name: index for index, name in enumerate(cohort.patient_id.tolist())}
    laid = []
    for fold in folds:
        side = np.zeros(len(cohort), dtype=np.int64)
        side[[position[name] for name in (*fold.train, *fold.validation) if name in position]] = 1
        side[[position[name] for name in fold.test if name in position]] = 2
        laid.append(Sides(fold, side))
    return laid


def apart(sides: Sequence[Sides], first: IntArray, second: IntArray) -> IntArray:
    """Return which pairs of patients a fold ever tears apart, one training and the other testing.

    Parameters
    ----------
    sides : sequence of Sides
        Of the folds.
    first, second : ndarray of int64, shape (pairs,)
        Rows of the cohort.

    Returns
    -------
    ndarray of int64
        Positions of those pairs.
    """
    torn = np.zeros(len(first), dtype=bool)
    for one in sides:
        torn |= one.side[first] * one.side[second] == 2
    return np.flatnonzero(torn)


def shared_patients(scheme: str, folds: Sequence[Fold]) -> list[Finding]:
    """Find patients that stand in two groups of a fold, or test twice in one dealing.

    Parameters
    ----------
    scheme : str
        Kind.
    folds : sequence of Fold
        Of that scheme.

    Returns
    -------
    list of Finding
        Leaks.
    """
    found = []
    tested: dict[tuple[int, str], str] = {}
    for fold in folds:
        twice = patients_in_two_groups(fold)
        if twice:
            message = f"fold {fold.name}: {len(twice)} patient(s) stand in two of training, validation and test: {shown(twice)}"
            found.append(Finding("shared_patients", "leak", scheme, message))
        again = sorted({one for one in fold.test if tested.setdefault((fold.repeat, one), fold.name) != fold.name})
        if again:
            message = f"fold {fold.name}: {len(again)} patient(s) are tested in another fold too: {shown(again)}"
            found.append(Finding("shared_patients", "leak", scheme, message))
    return found


def alike_ids(cohort: Cohort, scheme: str, sides: Sequence[Sides]) -> list[Finding]:
    """Find ids that differ in capitals, separators or leading zeros only and stand on two sides of a fold.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    scheme : str
        Kind.
    sides : sequence of Sides
        Of its folds.

    Returns
    -------
    list of Finding
        A warning: they may be two people.
    """
    plain = pd.Series([_plain(name) for name in cohort.patient_id.tolist()])
    pairs = _pairs([np.asarray(rows) for rows in plain.groupby(plain).indices.values()])
    torn = apart(sides, *pairs)
    if not len(torn):
        return []
    names = [f"'{cohort.patient_id[pairs[0][one]]}' and '{cohort.patient_id[pairs[1][one]]}'" for one in torn]
    message = (
        f"{len(names)} pair(s) of ids spelt nearly alike train and test: {shown(names)}; if they are one patient, spell them "
        "as one"
    )
    return [Finding("alike_patient_ids", "warning", scheme, message)]


def same_data(cohort: Cohort, scheme: str, sides: Sequence[Sides]) -> list[Finding]:
    """Find patients with other ids and the same data on two sides of a fold.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    scheme : str
        Kind.
    sides : sequence of Sides
        Of its folds.

    Returns
    -------
    list of Finding
        A leak where many covariates agree, a warning where a few do, and follow-up with them.
    """
    table = cohort.covariates.reset_index(drop=True)
    if table.shape[1] < 2:
        return []
    many = table.shape[1] >= _ENOUGH_COLUMNS
    known = table.notna() & (table.astype(str) != "") if not many else table.notna()
    if not many:
        table = table.assign(_time=cohort.time_days, _event=cohort.event)
    marks = pd.util.hash_pandas_object(table, index=False)
    marks = marks[known.mean(axis=1) > 0.5]  # of two patients of whom nothing is known nothing can be said
    pairs = _pairs([marks.index.to_numpy()[rows] for rows in marks.groupby(marks).indices.values()])
    torn = apart(sides, *pairs)
    if not len(torn):
        return []
    names = [f"{cohort.patient_id[pairs[0][one]]} and {cohort.patient_id[pairs[1][one]]}" for one in torn]
    what = f"all {table.shape[1]} covariates" if many else "follow-up and all covariates"
    message = (
        f"{len(names)} pair(s) of patients agree in {what}, and one trains while the other tests: {shown(names)}; keep one id of "
        "a patient"
    )
    return [Finding("same_patient_twice", "leak" if many else "warning", scheme, message)]


def _plain(name: str) -> str:
    """Return an id without capitals, zeros in front of numbers, and separators but those between two numbers."""
    words = re.sub(r"[\W_]+", "-", name.casefold()).strip("-")
    numbers = re.sub(r"(?<!\d)0+(?=\d)", "", words)
    return re.sub(r"(?<!\d)-|-(?!\d)", "", numbers)


def _pairs(groups: Iterable[IntArray]) -> tuple[IntArray, IntArray]:
    """Pair the first member of each group with every other."""
    first: list[int] = []
    second: list[int] = []
    for rows in groups:
        for one in rows[1:]:
            first.append(int(rows[0]))
            second.append(int(one))
    return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
