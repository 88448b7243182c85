"""Leaks through slides: one slide, or nearly one, under two patients on two sides of a fold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.cohort import Cohort
from pathoml.leakage.alike import alike_rows
from pathoml.leakage.findings import Finding, Level, shown
from pathoml.leakage.people import Sides, apart
from pathoml.units import AnyArray, FloatArray, IntArray

_KEPT_HASHES = 64
_HASHED_COLUMNS = 32
_MOST_OWNERS = 5
"""A row of features that more slides than this have is of empty tiles."""
_SHARED_ROWS = 3


@dataclass(frozen=True)
class SlideMark:
    """By what a slide is known again.

    Parameters
    ----------
    slide_id : str
        The slide.
    patient_id : str
        Whose it is said to be.
    fingerprint : str, optional
        Digest of its file; empty where it is not known.
    rows : ndarray of uint64, optional
        The smallest hashes of its tiles' features (`hash_rows`).
    mean : ndarray of float64, shape (dim,), optional
        Mean of its tiles' features; empty where there are none.
    """

    slide_id: str
    patient_id: str
    fingerprint: str = ""
    rows: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    mean: FloatArray = field(default_factory=lambda: np.zeros(0))


def hash_rows(features: AnyArray) -> NDArray[np.uint64]:
    """Return the smallest of the hashes of rows: two bags with tiles in common share some of them.

    Parameters
    ----------
    features : ndarray of float16 or float32, shape (tiles, dim)
        A bag.

    Returns
    -------
    ndarray of uint64, sorted
        At most 64, each once.
    """
    columns = np.unique(np.linspace(0, features.shape[1] - 1, min(_HASHED_COLUMNS, features.shape[1])).astype(np.int64))
    words = np.ascontiguousarray(features[:, columns], dtype=np.float32).view(np.uint32).astype(np.uint64)
    mark = np.zeros(len(words), dtype=np.uint64)
    for column in range(words.shape[1]):  # multiply and mix, modulo 2^64
        mark = (mark ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mark ^= mark >> np.uint64(29)
    return np.unique(mark)[:_KEPT_HASHES]


class SlidePairs(NamedTuple):
    """Pairs of slides of different patients that agree.

    Parameters
    ----------
    check : str
        Name of the check.
    level : str
        Of its finding.
    words : str
        In what they agree.
    first, second : ndarray of int64, shape (pairs,)
        Places among the marks.
    """

    check: str
    level: Level
    words: str
    first: IntArray
    second: IntArray


def find_copies(marks: Sequence[SlideMark]) -> list[SlidePairs]:
    """Find slides of different patients that are one file, share tiles, or look nearly the same.

    Parameters
    ----------
    marks : sequence of SlideMark
        All slides.

    Returns
    -------
    list of SlidePairs
        Each pair by the surest of the checks alone.
    """
    found: list[SlidePairs] = []
    known: set[tuple[int, int]] = set()
    kinds: tuple[tuple[str, Level, list[tuple[int, int]], str], ...] = (
        ("same_slide_twice", "leak", _same_files(marks), "are one file"),
        ("shared_tiles", "leak", _shared_rows(marks), "have tiles with exactly the same features"),
        ("near_duplicate_slides", "warning", _near_means(marks), "have nearly the same mean features"),
    )
    for check, level, candidates, words in kinds:
        pairs = [
            (one, two)
            for one, two in candidates
            if marks[one].patient_id != marks[two].patient_id and (one, two) not in known
        ]
        known |= set(pairs)
        if pairs:
            first, second = np.array(pairs, dtype=np.int64).T
            found.append(SlidePairs(check, level, words, first, second))
    return found


def torn_copies(
    cohort: Cohort, scheme: str, sides: Sequence[Sides], marks: Sequence[SlideMark], copies: Sequence[SlidePairs]
) -> list[Finding]:
    """Say which of them a scheme tears apart, one training and the other testing.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    scheme : str
        Kind.
    sides : sequence of Sides
        Of its folds.
    marks : sequence of SlideMark
        All slides.
    copies : sequence of SlidePairs
        As `find_copies` gives them.

    Returns
    -------
    list of Finding
        Leaks where file or tiles are the same, a warning where mean features nearly are.
    """
    position = {name: index for index, name in enumerate(cohort.patient_id.tolist())}
    owner = np.array([position.get(one.patient_id, -1) for one in marks], dtype=np.int64)
    findings = []
    for pairs in copies:
        here = np.flatnonzero((owner[pairs.first] >= 0) & (owner[pairs.second] >= 0))
        first, second = pairs.first[here], pairs.second[here]
        names = [
            f"{marks[first[one]].slide_id} ({marks[first[one]].patient_id}) and {marks[second[one]].slide_id} "
            f"({marks[second[one]].patient_id})"
            for one in apart(sides, owner[first], owner[second])
        ]
        if names:
            message = (
                f"{len(names)} pair(s) of slides of different patients {pairs.words}, and one trains while the other tests: "
                f"{shown(names, 3)}; look whose they are, and keep one"
            )
            findings.append(Finding(pairs.check, pairs.level, scheme, message))
    return findings


def _same_files(marks: Sequence[SlideMark]) -> list[tuple[int, int]]:
    prints = pd.Series([one.fingerprint for one in marks])
    prints = prints[prints != ""]
    groups = prints.groupby(prints).indices.values()
    return [
        (int(prints.index[rows[0]]), int(prints.index[other])) for rows in groups for other in rows[1:]
    ]  # fmt: skip


def _shared_rows(marks: Sequence[SlideMark]) -> list[tuple[int, int]]:
    """Return pairs of slides that have several rows in common which few others have."""
    hashes = np.concatenate([one.rows for one in marks]) if marks else np.zeros(0, dtype=np.uint64)
    slide = np.repeat(np.arange(len(marks)), [len(one.rows) for one in marks])
    order = np.argsort(hashes, kind="stable")
    hashes, slide = hashes[order], slide[order]
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.append(starts, len(hashes)))
    shared: dict[tuple[int, int], int] = {}
    few = np.flatnonzero((sizes >= 2) & (sizes <= _MOST_OWNERS))
    for start, size in zip(starts[few], sizes[few], strict=True):
        own = sorted(slide[start : start + size].tolist())
        for index, one in enumerate(own):
            for other in own[index + 1 :]:
                shared[one, other] = shared.get((one, other), 0) + 1
    return [pair for pair, count in shared.items() if count >= _SHARED_ROWS]


def _near_means(marks: Sequence[SlideMark]) -> list[tuple[int, int]]:
    """Return pairs whose standardised mean features point nearly the same way; candidates by a sketch, then in full."""
    rows = np.array([index for index, one in enumerate(marks) if len(one.mean)], dtype=np.int64)
    if len(rows) < 10 or len({len(marks[row].mean) for row in rows}) > 1:
        return []
    means = np.stack([marks[row].mean for row in rows])
    means -= means.mean(axis=0)
    means /= np.maximum(means.std(axis=0), 1e-12)
    first, second = alike_rows(means)
    return list(zip(rows[first].tolist(), rows[second].tolist(), strict=True))
