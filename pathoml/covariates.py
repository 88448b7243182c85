"""Covariates -> the numbers a model takes: filled, scaled, coded and reduced as fitted on training patients only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.cohort import BlockCovariate, CategoricalCovariate, Covariate, NumericCovariate, patients_digest
from pathoml.errors import PackageError
from pathoml.tables import is_missing
from pathoml.units import BoolArray, FloatArray


@dataclass(frozen=True)
class FittedNumeric:
    """A number: missing values filled with the training median, then standardised.

    Parameters
    ----------
    column : str
        Column it comes from.
    fill, mean, scale : float
        Training median, mean and standard deviation (1 where that is 0).
    """

    column: str
    fill: float
    mean: float
    scale: float

    @property
    def names(self) -> list[str]:
        """Name of the one column that results."""
        return [self.column]

    def apply(self, raw: pd.DataFrame) -> FloatArray:
        """Return the standardised column, shape (patients, 1).

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of float64
            Standardised.
        """
        values = raw[self.column].to_numpy(dtype=np.float64)
        filled = np.where(np.isnan(values), self.fill, values)
        scaled: FloatArray = ((filled - self.mean) / self.scale)[:, None]
        return scaled


@dataclass(frozen=True)
class FittedCategorical:
    """A word: one 0/1 column for each level but the first.

    Parameters
    ----------
    column : str
        Column it comes from.
    levels : tuple of str
        Levels seen in training, sorted. Missing words, however spelt (`pathoml.tables.is_missing`), are a level of their
        own, the empty text, if training patients lack the word. The first level is all zeros.
    fill : str
        Level that a missing word counts as, and one not seen in training: the empty text if that is a level, else the
        level most frequent in training.
    """

    column: str
    levels: tuple[str, ...]
    fill: str

    @property
    def names(self) -> list[str]:
        """Names of the columns that result."""
        return [f"{self.column}={level}" for level in self.levels[1:]]  # the empty text sorts first

    def apply(self, raw: pd.DataFrame) -> FloatArray:
        """Return the 0/1 columns, shape (patients, levels - 1).

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of float64
            Zeros and ones.
        """
        words = _words(raw, self.column)
        known = np.where(self._is_known(words), words, self.fill)
        columns: FloatArray = (known[:, None] == np.array(self.levels[1:], dtype=object)).astype(np.float64)
        return columns

    def is_unseen(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which patients have a word that no training patient had.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of bool, shape (patients,)
            False where the word is missing.
        """
        words = _words(raw, self.column)
        unseen: BoolArray = (words != "") & ~self._is_known(words)
        return unseen

    def _is_known(self, words: NDArray[np.object_]) -> BoolArray:
        return np.isin(words, np.array(self.levels, dtype=object))


@dataclass(frozen=True)
class FittedBlock:
    """Many numbers: filled, standardised, projected on the training patients' principal components.

    Parameters
    ----------
    name : str
        What the block is called.
    columns : tuple of str
        Columns it comes from.
    fill, mean, scale : ndarray of float64, shape (columns,)
        As in `FittedNumeric`, for each column.
    components : ndarray of float64, shape (components, columns)
        Principal axes, divided by the scores' training standard deviation.
    """

    name: str
    columns: tuple[str, ...]
    fill: FloatArray
    mean: FloatArray
    scale: FloatArray
    components: FloatArray

    @property
    def names(self) -> list[str]:
        """Names of the columns that result."""
        return [f"{self.name}_{index + 1}" for index in range(len(self.components))]

    def apply(self, raw: pd.DataFrame) -> FloatArray:
        """Return the component scores, shape (patients, components).

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of float64
            Of unit variance on the training patients.
        """
        values = raw[list(self.columns)].to_numpy(dtype=np.float64)
        filled = np.where(np.isnan(values), self.fill, values)
        scores: FloatArray = ((filled - self.mean) / self.scale) @ self.components.T
        return scores


Fitted = FittedNumeric | FittedCategorical | FittedBlock


@dataclass(frozen=True)
class CovariateTransform:
    """All covariates of a model, as fitted on its training patients.

    Parameters
    ----------
    parts : tuple of FittedNumeric, FittedCategorical or FittedBlock
        In the order of the configuration.
    fitted_on : str, optional
        `pathoml.cohort.patients_digest` of the patients that it was fitted on. It stays in the run folder: a transform that
        is read from a package does not know it.
    """

    parts: tuple[Fitted, ...]
    fitted_on: str = field(default="", compare=False)

    @property
    def names(self) -> list[str]:
        """Names of the columns that result."""
        return [name for part in self.parts for name in part.names]

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
        needed = [
            name for part in self.parts for name in (part.columns if isinstance(part, FittedBlock) else (part.column,))
        ]
        absent = [name for name in needed if name not in raw.columns]
        if absent:
            raise PackageError(
                f"the model was trained with column(s) {', '.join(absent[:5])}, which the table does not have"
            )
        return np.concatenate([np.zeros((len(raw), 0)), *(part.apply(raw) for part in self.parts)], axis=1)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the transform as plain JSON values.

        Returns
        -------
        list of dict
            One for each part, with its kind.
        """
        return [_part_to_json(part) for part in self.parts]


def fit_covariates(covariates: tuple[Covariate, ...], raw: pd.DataFrame) -> CovariateTransform:
    """Fit every covariate on the rows given, which must be training patients.

    Parameters
    ----------
    covariates : tuple of NumericCovariate, CategoricalCovariate or BlockCovariate
        What the configuration lists.
    raw : DataFrame
        Training patients' covariates, with patient ids as index.

    Returns
    -------
    CovariateTransform
        Ready for any patient.
    """
    return CovariateTransform(tuple(_fit(one, raw) for one in covariates), patients_digest(raw.index))


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
        Levels seen in training, sorted, without the missing one.
    """

    row: int
    column: str
    value: str
    known: tuple[str, ...]


def unseen_words(transforms: Sequence[CovariateTransform], raw: pd.DataFrame) -> list[UnseenWord]:
    """Find the words that none of several models saw in training.

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
    fitted: dict[str, list[FittedCategorical]] = {}
    for part in (part for transform in transforms for part in transform.parts):
        if isinstance(part, FittedCategorical):
            fitted.setdefault(part.column, []).append(part)
    found: list[UnseenWord] = []
    for column, parts in fitted.items():
        known = tuple(sorted({level for part in parts for level in part.levels} - {""}))
        rows = np.flatnonzero(np.all([part.is_unseen(raw) for part in parts], axis=0))
        found += [UnseenWord(int(row), column, str(raw[column].iloc[row]), known) for row in rows]
    return found


def transform_from_json(parts: list[dict[str, Any]]) -> CovariateTransform:
    """Rebuild a transform from `CovariateTransform.to_json`.

    Parameters
    ----------
    parts : list of dict
        Plain JSON values.

    Returns
    -------
    CovariateTransform
        Equal to the one that was written.
    """
    return CovariateTransform(tuple(_part_from_json(dict(part)) for part in parts))


def _fit(covariate: Covariate, raw: pd.DataFrame) -> Fitted:
    if isinstance(covariate, NumericCovariate):
        values = raw[[covariate.column]].to_numpy(dtype=np.float64)
        fill, mean, scale = fill_mean_scale(values)
        return FittedNumeric(covariate.column, float(fill[0]), float(mean[0]), float(scale[0]))
    if isinstance(covariate, CategoricalCovariate):
        return _fit_categorical(covariate.column, raw)
    return _fit_block(covariate, raw)


def _fit_categorical(column: str, raw: pd.DataFrame) -> FittedCategorical:
    levels, counts = np.unique(_words(raw, column), return_counts=True)
    fill = "" if "" in levels else levels[counts.argmax()]  # of equally frequent ones the first in the alphabet
    return FittedCategorical(column, tuple(levels.tolist()), str(fill))


def _words(raw: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """Return a column's words, the empty text where they are missing, however that is spelt."""
    text = raw[column].astype(str)
    words: NDArray[np.object_] = text.mask(is_missing(text), "").to_numpy(dtype=object)
    return words


def _fit_block(covariate: BlockCovariate, raw: pd.DataFrame) -> FittedBlock:
    columns = tuple(name for name in raw.columns if fnmatchcase(name, covariate.columns))
    values = raw[list(columns)].to_numpy(dtype=np.float64)
    fill, mean, scale = fill_mean_scale(values)
    standard = (np.where(np.isnan(values), fill, values) - mean) / scale
    singular, axes = principal_axes(standard)
    kept = min(covariate.components, len(axes))
    deviation = singular[:kept] / np.sqrt(len(raw))
    axes = axes[:kept] * np.sign(axes[np.arange(kept), np.abs(axes[:kept]).argmax(axis=1)])[:, None]
    return FittedBlock(covariate.name, columns, fill, mean, scale, axes / deviation[:, None])


def principal_axes(standard: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the principal axes of standardised columns, by the smaller of the two Gram matrices.

    Parameters
    ----------
    standard : ndarray of float64, shape (patients, columns)
        Centred columns.

    Returns
    -------
    tuple of ndarray of float64
        Singular values that are not 0, falling; and their right singular vectors, shape (axes, columns).
    """
    is_wide = standard.shape[1] > len(standard)
    variances, vectors = np.linalg.eigh(standard @ standard.T if is_wide else standard.T @ standard)
    order = np.argsort(variances)[::-1]
    order = order[variances[order] > max(variances.max(initial=0.0), 0.0) * 1e-10]
    singular = np.sqrt(variances[order])
    axes = (standard.T @ vectors[:, order] / singular).T if is_wide else vectors[:, order].T
    return singular, axes


def fill_mean_scale(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return what fills and standardises columns: median of what is there, then mean and standard deviation.

    Parameters
    ----------
    values : ndarray of float64, shape (patients, columns)
        Training patients; NaN where missing.

    Returns
    -------
    tuple of ndarray of float64, each of shape (columns,)
        Fill (0 for a column that is never there), mean and standard deviation (1 where that is 0).
    """
    observed = ~np.isnan(values).all(axis=0)
    fill = np.zeros(values.shape[1])
    fill[observed] = np.nanmedian(values[:, observed], axis=0)
    filled = np.where(np.isnan(values), fill, values)
    scale = filled.std(axis=0)
    return fill, filled.mean(axis=0), np.where(scale > 1e-12 * np.maximum(1.0, np.abs(fill)), scale, 1.0)


def _part_to_json(part: Fitted) -> dict[str, Any]:
    kind = {FittedNumeric: "numeric", FittedCategorical: "categorical", FittedBlock: "block"}[type(part)]
    values = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(part).items()}
    return {"kind": kind, **values}


def _part_from_json(part: dict[str, Any]) -> Fitted:
    kind = part.pop("kind")
    if kind == "numeric":
        return FittedNumeric(**part)
    if kind == "categorical":
        return FittedCategorical(part["column"], tuple(part["levels"]), part["fill"])
    arrays = {name: np.asarray(part[name], dtype=np.float64) for name in ("fill", "mean", "scale", "components")}
    arrays["components"] = arrays["components"].reshape(-1, len(part["columns"]))
    return FittedBlock(part["name"], tuple(part["columns"]), **arrays)
