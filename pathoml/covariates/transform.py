"""All covariates of a model: the columns it takes, which part of it each belongs to, and which parts a patient has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pathoml.covariates.fitted import (
    Fitted,
    FittedBlock,
    FittedCategorical,
    FittedNumeric,
    FittedOrdinal,
    FittedWord,
)
from pathoml.errors import PackageError
from pathoml.units import AnyArray, BoolArray, FloatArray

_KINDS: Mapping[str, type[Fitted]] = {
    "numeric": FittedNumeric, "categorical": FittedCategorical, "ordinal": FittedOrdinal, "block": FittedBlock,
}  # fmt: skip


class ColumnGroup(NamedTuple):
    """Columns of the design that are taken together.

    Parameters
    ----------
    part : str
        Part of the model: ``clinical``, a block, or a family of gene groups.
    name : str
        The same, or one group of the family.
    columns : tuple of int
        Their positions.
    """

    part: str
    name: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class CovariateTransform:
    """All covariates of a model, as fitted on its training patients.

    Parameters
    ----------
    parts : tuple of FittedNumeric, FittedCategorical, FittedOrdinal or FittedBlock
        In the order of the configuration.
    fitted_on : str, optional
        `pathoml.provenance.patients_digest` of the patients that it was fitted on. It stays in the run folder: a transform
        that is read from a package does not know it.
    """

    parts: tuple[Fitted, ...]
    fitted_on: str = field(default="", compare=False)

    @property
    def names(self) -> list[str]:
        """Names of the columns that result."""
        return [name for part in self.parts for name in part.names]

    @property
    def groups(self) -> tuple[ColumnGroup, ...]:
        """The columns by part: single columns together, each block and each group of genes by itself."""
        columns: dict[tuple[str, str], list[int]] = {}
        start = 0
        for fitted in self.parts:
            stop = start + len(fitted.names)
            name = fitted.name if isinstance(fitted, FittedBlock) else fitted.part
            columns.setdefault((fitted.part, name), []).extend(range(start, stop))
            start = stop
        return tuple(ColumnGroup(part, name, tuple(own)) for (part, name), own in columns.items())

    @property
    def part_names(self) -> tuple[str, ...]:
        """Parts of the model that covariates make, in the order of the configuration."""
        return tuple(dict.fromkeys(group.part for group in self.groups))

    def apply(self, raw: pd.DataFrame) -> FloatArray:
        """Return the model's covariate columns.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them, one row a patient.

        Returns
        -------
        ndarray of float64, shape (patients, columns)
            Empty in the second dimension if the model takes none.

        Raises
        ------
        PackageError
            If a column that the model was trained with is absent.
        """
        known = set(raw.columns)
        absent = list(dict.fromkeys(name for part in self.parts for name in part.columns if name not in known))
        if absent:
            raise PackageError(
                f"the model was trained with column(s) {', '.join(absent[:5])}, which the table does not have"
            )
        return np.concatenate([np.zeros((len(raw), 0)), *(part.apply(raw) for part in self.parts)], axis=1)

    def given(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which parts each patient has anything of; the rest of such a part is filled.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them, one row a patient.

        Returns
        -------
        ndarray of bool, shape (patients, parts)
            In the order of `part_names`.
        """
        given = {name: np.zeros(len(raw), dtype=bool) for name in self.part_names}
        for fitted in self.parts:
            given[fitted.part] |= fitted.is_given(raw)
        return np.column_stack([np.zeros((len(raw), 0), dtype=bool), *given.values()])

    def to_json(self, arrays: dict[str, AnyArray], prefix: str = "") -> list[dict[str, Any]]:
        """Return the transform as plain JSON values; what is long goes into arrays.

        Parameters
        ----------
        arrays : dict of str to ndarray
            Is given the arrays of blocks.
        prefix : str, optional
            Of their names.

        Returns
        -------
        list of dict
            One for each part, with its kind.
        """
        return [_part_to_json(part, arrays, f"{prefix}{number}.") for number, part in enumerate(self.parts)]


class UnseenWord(NamedTuple):
    """A word that no training patient had.

    Parameters
    ----------
    row : int
        Position of the patient.
    column : str
        Covariate.
    value : str
        What was found.
    known : tuple of str
        Levels seen in training, sorted, without the missing one; of ordered words all levels in their order.
    """

    row: int
    column: str
    value: str
    known: tuple[str, ...]


def unseen_words(transforms: Sequence[CovariateTransform], raw: pd.DataFrame) -> list[UnseenWord]:
    """Find the words that none of several models knows.

    Parameters
    ----------
    transforms : sequence of CovariateTransform
        One of each model, fitted with the same configuration.
    raw : DataFrame
        Covariates of the patients to be scored.

    Returns
    -------
    list of UnseenWord
        Covariate by covariate, in the order of rows.
    """
    fitted: dict[str, list[FittedWord]] = {}
    for part in (part for transform in transforms for part in transform.parts):
        if isinstance(part, FittedCategorical | FittedOrdinal):
            fitted.setdefault(part.column, []).append(part)
    found: list[UnseenWord] = []
    for column, parts in fitted.items():
        levels = {level: None for part in parts for level in part.levels if level}
        known = tuple(levels) if isinstance(parts[0], FittedOrdinal) else tuple(sorted(levels))
        rows = np.flatnonzero(np.all([part.is_unseen(raw) for part in parts], axis=0))
        found += [UnseenWord(int(row), column, str(raw[column].iloc[row]), known) for row in rows]
    return found


def transform_from_json(
    parts: Sequence[Mapping[str, Any]], arrays: Mapping[str, AnyArray], prefix: str = ""
) -> CovariateTransform:
    """Rebuild a transform from `CovariateTransform.to_json`.

    Parameters
    ----------
    parts : sequence of mapping
        Plain JSON values.
    arrays : mapping of str to ndarray
        The arrays of blocks.
    prefix : str, optional
        Of their names.

    Returns
    -------
    CovariateTransform
        Equal to the one that was written.
    """
    return CovariateTransform(
        tuple(_part_from_json(part, arrays, f"{prefix}{number}.") for number, part in enumerate(parts))
    )


def _part_to_json(part: Fitted, arrays: dict[str, AnyArray], prefix: str) -> dict[str, Any]:
    kind = next(name for name, known in _KINDS.items() if isinstance(part, known))
    values = vars(part)
    arrays.update({prefix + name: value for name, value in values.items() if isinstance(value, np.ndarray)})
    return {"kind": kind, **{name: value for name, value in values.items() if not isinstance(value, np.ndarray)}}


def _part_from_json(part: Mapping[str, Any], arrays: Mapping[str, AnyArray], prefix: str) -> Fitted:
    kind = _KINDS[part["kind"]]
    values: dict[str, Any] = {}
    for one in fields(kind):
        value = part[one.name] if one.name in part else arrays[prefix + one.name]
        values[one.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
