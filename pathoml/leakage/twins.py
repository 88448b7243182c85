"""Leaks through people under two ids: the same data, or nearly, on both sides of a fold."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import poisson

from pathoml.cohort import Cohort
from pathoml.leakage.alike import far_nearest_rows
from pathoml.leakage.findings import Finding, Level, shown
from pathoml.leakage.neighbours import independent_directions, near_pairs
from pathoml.leakage.people import Sides, apart, pair_up
from pathoml.units import BoolArray, FloatArray, IntArray

_ENOUGH_COLUMNS = 20
"""Measurements of two people agree in so many columns only if they are one person."""
_DISTINCT, _LOOKED_AT = 10, 100
"""A column with fewer values among so many patients is no measurement: strangers agree in columns of zeros and ones."""
_LEAST_NUMBERS = 10
"""Columns of numbers that near twins are sought in."""
_MOST_NUMBERS = 2000
_MOST_FEW = 12
"""Columns in which every distance is computed."""
_LEAST_DIMENSIONS = 6.0
"""Fewer independent directions than this bring strangers near to each other."""
_MOSTLY_GIVEN, _MOSTLY_OWN = 0.8, 0.5
"""Columns of few numbers: known of so many patients, of whom so many have a value of their own."""
_FOLLOW_UP = "follow-up"
_RARE = 0.001
_SHARED_BY = 3
"""Patients at most who have a follow-up that tells them apart."""
_POINT_MASS = 0.02
"""Share of the patients that share a value from which it is no measurement but a floor, a ceiling or a nought."""
_NEAR_BY = 31.0
"""Days by which follow-up of one person may differ in two tables."""


class Twins(NamedTuple):
    """Pairs of patients whose data agree.

    Parameters
    ----------
    check : str
        Name of the check.
    level : str
        Of its finding.
    what : str
        In what they agree.
    first, second : ndarray of int64, shape (pairs,)
        Rows of the cohort.
    """

    check: str
    level: Level
    what: str
    first: IntArray
    second: IntArray


def find_twins(cohort: Cohort) -> list[Twins]:
    """Find patients whose covariates, and follow-up, are the same or nearly.

    Parameters
    ----------
    cohort : Cohort
        All patients.

    Returns
    -------
    list of Twins
        By what they agree in.
    """
    exact = _same_data(cohort)
    known = {pair for twins in exact for pair in _pairs(twins)}
    found = list(exact)
    for twins in (
        *_near_numbers(cohort),
        *_near_follow_up(cohort),
        *_same_follow_up(cohort),
        *_near_few_numbers(cohort),
    ):
        new = [place for place, pair in enumerate(_pairs(twins)) if pair not in known]
        known |= set(_pairs(twins))
        if new:
            found.append(twins._replace(first=twins.first[new], second=twins.second[new]))
    return found


def _pairs(twins: Twins) -> list[tuple[int, int]]:
    return list(zip(twins.first.tolist(), twins.second.tolist(), strict=True))


def torn_twins(cohort: Cohort, scheme: str, sides: Sequence[Sides], twins: Sequence[Twins]) -> list[Finding]:
    """Say which of them a scheme tears apart, one training and the other testing.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    scheme : str
        Kind.
    sides : sequence of Sides
        Of its folds.
    twins : sequence of Twins
        As `find_twins` gives them.

    Returns
    -------
    list of Finding
        A leak where many covariates are the same, else a warning.
    """
    findings = []
    for one in twins:
        torn = apart(sides, one.first, one.second)
        if not len(torn):
            continue
        names = [f"{cohort.patient_id[one.first[place]]} and {cohort.patient_id[one.second[place]]}" for place in torn]
        message = (
            f"{len(names)} pair(s) of patients agree in {one.what}, and one trains while the other tests: {shown(names)}; keep one"
            " id of a patient"
        )
        findings.append(Finding(one.check, one.level, scheme, message))
    return findings


def _same_data(cohort: Cohort) -> list[Twins]:
    table = cohort.covariates.reset_index(drop=True)
    if table.shape[1] < 2:
        return []
    if not _has_many_measurements(table):
        rows = np.flatnonzero(_known(table, words=True))
        return _same_end(cohort, table, rows, "same_patient_twice", "follow-up and all covariates")
    first, second = _equal_rows(table, _known(table, words=False))
    what = f"all {table.shape[1]} covariates"
    return [Twins("same_patient_twice", "leak", what, first, second)] if len(first) else []


def _has_many_measurements(table: pd.DataFrame) -> bool:
    return int(_is_measured(_numbers(table)).sum()) >= _ENOUGH_COLUMNS


def _known(table: pd.DataFrame, *, words: bool) -> "pd.Series[bool]":
    """Tell of whom more than half is known: of two patients of whom nothing is known nothing can be said."""
    given = table.notna() & (table.astype(str) != "") if words else table.notna()
    return given.mean(axis=1) > 0.5


def _equal_rows(table: pd.DataFrame, known: "pd.Series[bool] | BoolArray") -> tuple[IntArray, IntArray]:
    marks = pd.util.hash_pandas_object(table, index=False)[known]
    return pair_up([marks.index.to_numpy()[rows] for rows in marks.groupby(marks).indices.values()])


def _near_numbers(cohort: Cohort) -> list[Twins]:
    """Find pairs far nearer to each other, in many columns of numbers, than to anybody else: measured again, or rounded."""
    values = _numbers(cohort.covariates)
    measured = np.flatnonzero(_is_measured(values))
    places = np.linspace(0, len(measured) - 1, min(len(measured), _MOST_NUMBERS)).astype(np.int64)
    values = values[:, measured[places]]
    with np.errstate(invalid="ignore"):
        spread = np.nanstd(values, axis=0) if len(values) else np.zeros(0)
    values = values[:, spread > 0]
    if values.shape[1] < _LEAST_NUMBERS or len(values) < _LEAST_NUMBERS:
        return []
    standard = np.nan_to_num((values - np.nanmean(values, axis=0)) / spread[spread > 0])
    known = np.isfinite(values).mean(axis=1) > 0.5
    rows = np.flatnonzero(known)
    if len(rows) < _LEAST_NUMBERS or independent_directions(standard[rows]) < _LEAST_DIMENSIONS:
        return []
    first, second = far_nearest_rows(standard[rows])
    what = f"nearly all of {values.shape[1]} columns of numbers"
    return [Twins("nearly_same_patient", "warning", what, rows[first], rows[second])] if len(first) else []


def _near_few_numbers(cohort: Cohort) -> list[Twins]:
    """Find pairs nearer to each other than strangers in few columns of numbers, without and with follow-up as one of them."""
    table = cohort.covariates.select_dtypes("number").iloc[:, :_MOST_NUMBERS].reset_index(drop=True)
    own = table.loc[:, [_is_own(column) for column in _numbers(table).T]]
    follow_up = np.log1p(cohort.time_days)
    spaces = [own, own.assign(**{_FOLLOW_UP: follow_up})] if _is_own(follow_up) else [own]
    found = []
    for columns in spaces:
        if not 2 <= columns.shape[1] <= _MOST_FEW:
            continue
        values = _numbers(columns)
        rows = np.flatnonzero(np.isfinite(values).all(axis=1) & ~_on_point_mass(values))
        near = near_pairs(values[rows])
        if not len(near.first):
            continue
        names = shown([str(name) for name in columns.columns])
        what = f"{names} more closely than strangers do ({len(near.first)} pair(s) of all do, by chance about {near.expected:.2g})"
        found.append(Twins("nearly_same_patient", "warning", what, rows[near.first], rows[near.second]))
    return found


def _is_own(column: FloatArray) -> bool:
    """Tell whether most patients have a value that hardly anybody shares."""
    return bool(np.isfinite(column).mean() > _MOSTLY_GIVEN) and _is_mostly_own(column)


def _is_mostly_own(column: FloatArray) -> bool:
    """Tell whether hardly any two of those who have a value share it."""
    given = column[np.isfinite(column)]
    return len(np.unique(given)) >= max(_MOSTLY_OWN * len(given), 2)


def _on_point_mass(values: FloatArray) -> BoolArray:
    """Tell which rows have a value that many share, in any column."""
    found: BoolArray = np.zeros(len(values), dtype=bool)
    for column in values.T:
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        found |= counts[place] > max(_POINT_MASS * len(column), 2)
    return found


def _numbers(table: pd.DataFrame) -> FloatArray:
    values: FloatArray = table.select_dtypes("number").to_numpy(dtype=np.float64)
    return values


def _is_measured(values: FloatArray) -> BoolArray:
    """Tell which columns take many values, by some of the patients."""
    some = np.sort(values[np.linspace(0, len(values) - 1, min(len(values), _LOOKED_AT)).astype(np.int64)], axis=0)
    measured: BoolArray = (np.diff(some, axis=0) > 0).sum(axis=0) + 1 >= _DISTINCT  # blanks sort last and are no step
    return measured


def _near_follow_up(cohort: Cohort) -> list[Twins]:
    """Find pairs with the same few covariates and nearly the same follow-up, where there are more of them than chance makes."""
    table = cohort.covariates.reset_index(drop=True)
    if table.shape[1] < 2 or _has_many_measurements(table):
        return []
    marks = pd.util.hash_pandas_object(table, index=False)[_known(table, words=True)]
    groups = [marks.index.to_numpy()[rows] for rows in marks.groupby(marks).indices.values() if len(rows) > 1]
    pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in groups)
    if not groups or pairs > 20 * len(cohort):
        return []
    first = np.concatenate([np.repeat(rows, np.arange(len(rows))[::-1]) for rows in groups])
    second = np.concatenate([np.concatenate([rows[place + 1 :] for place in range(len(rows))]) for rows in groups])
    apart_days = np.abs(cohort.time_days[first] - cohort.time_days[second])
    near = (apart_days <= _NEAR_BY) & (cohort.event[first] == cohort.event[second])
    expected = pairs * _chance_of_near(cohort)
    if near.sum() < 2 or near.sum() < expected + 5 * np.sqrt(expected) + 1:
        return []
    what = f"all covariates, and in follow-up but for {_NEAR_BY:.0f} days at most"
    return [Twins("nearly_same_patient", "warning", what, first[near], second[near])]


def _same_follow_up(cohort: Cohort) -> list[Twins]:
    """Find pairs with one follow-up to the day, one hospital and the same coarse covariates: two samples of one patient."""
    table = cohort.covariates.reset_index(drop=True)
    numbers = table.select_dtypes("number")
    own = [name for name in numbers if _is_mostly_own(numbers[name].to_numpy(dtype=np.float64))]
    coarse = table.drop(columns=own).assign(_site=cohort.site)
    words = ", ".join(map(str, (*coarse.columns[:-1], *(["hospital"] if (cohort.site != "").any() else []))))
    return _same_end(
        cohort, coarse, np.arange(len(cohort)), "nearly_same_patient", f"follow-up to the day, {words}"
    )  # fmt: skip


def _same_end(cohort: Cohort, alike: pd.DataFrame, rows: IntArray, check: str, what: str) -> list[Twins]:
    """Find pairs among some rows with one follow-up and the same of a table, where there are more of them than chance makes."""
    times = pd.Series(np.rint(cohort.time_days[rows]).astype(np.int64) * 2 + cohort.event[rows])
    rare = np.flatnonzero(times.map(times.value_counts()) <= _SHARED_BY)  # what many share is a visit, or a study's end
    marks = pd.util.hash_pandas_object(alike.iloc[rows].reset_index(drop=True), index=False)
    both = pd.DataFrame({"time": times[rare], "alike": marks[rare]})
    first, second = _equal_rows(both, np.ones(len(both), dtype=bool))
    expected = _pairs_within(times[rare]) * _pairs_within(marks) / max(len(rows) * (len(rows) - 1) / 2, 1)
    if not len(first) or len(first) < 3 * expected or poisson.sf(len(first) - 1, expected) > _RARE:
        return []
    return [Twins(check, "warning", f"{what} (by chance {expected:.2g} pair(s) of all do)", rows[first], rows[second])]


def _pairs_within(groups: "pd.Series[int]") -> int:
    sizes = groups.value_counts().to_numpy()
    return int((sizes * (sizes - 1) // 2).sum())


def _chance_of_near(cohort: Cohort) -> float:
    """Return the share of all pairs of patients with nearly the same follow-up and the same end of it."""
    near = 0
    for event in (0, 1):
        times = np.sort(cohort.time_days[cohort.event == event])
        near += int((np.searchsorted(times, times + _NEAR_BY, side="right") - np.arange(len(times)) - 1).sum())
    return near / max(len(cohort) * (len(cohort) - 1) / 2, 1)
