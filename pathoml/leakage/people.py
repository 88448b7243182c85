"""Leaks through people: a patient on both sides of a fold, under one id, two spellings, or two ids with the same data."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort
from pathoml.cohort.spelling import TCGA_PATIENT, plain_name
from pathoml.leakage.findings import Finding, shown
from pathoml.splits import Fold, patients_in_two_groups
from pathoml.units import IntArray

_LETTERED = re.compile(r"(?<=\d)(?:[-_. (]*[A-Z]{1,8}\d{0,2}|[-_. (]+\d{1,2}[A-Z]{1,2})\)?$", re.IGNORECASE)
"""The mark of a sample behind a number: letters, or digits with letters behind a separator; R, -01A, _T1, dup."""
_NUMBERED = re.compile(r"(?<=\d)[-_. (]+\d{1,2}\)?$")
"""The mark of a sample, or the number of a patient behind that of a hospital."""
_NUMBERING = 0.5
"""Share of ids that differ in their mark alone from which the mark is a patient's number within a hospital."""
_MOST_SAMPLES = 4
"""Ids that share what stands before their marks are more often patients of one hospital where there are more of them."""


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
    """Find ids that differ in capitals, separators, leading zeros or the mark of a sample only and stand on two sides of a fold.

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
    pairs = pair_up(_spelt_alike([name.strip() for name in cohort.patient_id.tolist()]))
    torn = apart(sides, *pairs)
    if not len(torn):
        return []
    names = [f"'{cohort.patient_id[pairs[0][one]]}' and '{cohort.patient_id[pairs[1][one]]}'" for one in torn]
    message = (
        f"{len(names)} pair(s) of ids spelt nearly alike train and test: {shown(names)}; if they are one patient, or samples "
        "of one, spell them as one"
    )
    return [Finding("alike_patient_ids", "warning", scheme, message)]


def _spelt_alike(names: Sequence[str]) -> list[IntArray]:
    """Return the rows of ids that are one without their marks of a sample."""
    numbered = _groups([plain_name(_NUMBERED.sub("", _without_letters(name))) for name in names])
    exact = _groups([plain_name(name) for name in names])
    lettered = _groups([plain_name(_without_letters(name)) for name in names])
    return [*exact, *(rows for groups in (lettered, numbered) for rows in _samples(groups, len(names)))]


def _samples(groups: list[IntArray], ids: int) -> list[IntArray]:
    """Return groups of few, unless so many ids are in groups that the mark is how patients are numbered."""
    if sum(len(rows) for rows in groups) > _NUMBERING * ids:
        return []
    return [rows for rows in groups if len(rows) <= _MOST_SAMPLES]


def _without_letters(name: str) -> str:
    """Return what stands before the mark of a sample: TCGA's barcode of the patient, or P1005 of P1005-01A, 1001 of 1001L."""
    barcode = TCGA_PATIENT.match(name)
    return barcode.group(1) if barcode else _LETTERED.sub("", name)


def _groups(keys: Sequence[str]) -> list[IntArray]:
    column = pd.Series(keys, dtype=str)
    return [np.asarray(rows, dtype=np.int64) for rows in column.groupby(column).indices.values() if len(rows) > 1]


def pair_up(groups: Iterable[IntArray]) -> tuple[IntArray, IntArray]:
    """Pair the first member of each group with every other.

    Parameters
    ----------
    groups : iterable of ndarray of int64
        Rows that belong together.

    Returns
    -------
    tuple of ndarray of int64
        First and second of each pair, each pair once.
    """
    pairs = dict.fromkeys((int(rows[0]), int(one)) for rows in groups for one in rows[1:])
    found = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
