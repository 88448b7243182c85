"""One covariate, or many columns of one kind, as fitted on training patients."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathoml.covariates.components import FillMeanScale
from pathoml.covariates.settings import CLINICAL_PART
from pathoml.tables import is_missing
from pathoml.units import BoolArray, FloatArray


@dataclass(frozen=True)
class FittedNumeric:
    """A number: missing values filled, then standardised.

    Parameters
    ----------
    column : str
        Column it comes from.
    fill, mean, scale : float
        Training median or mean; mean and standard deviation after filling (1 where that is 0).
    indicator : bool, optional
        Whether a column of zeros and ones says where the number was missing.
    """

    column: str
    fill: float
    mean: float
    scale: float
    indicator: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it comes from."""
        return (self.column,)

    @property
    def part(self) -> str:
        """Part of the model that it belongs to."""
        return CLINICAL_PART

    @property
    def names(self) -> list[str]:
        """Names of the columns that result."""
        return [self.column, *([f"{self.column} missing"] if self.indicator else [])]

    def apply(self, raw: pd.DataFrame) -> FloatArray:
        """Return the standardised column, and where it was missing if that is asked for.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of float64, shape (patients, 1 or 2)
            Standardised.
        """
        values = raw[self.column].to_numpy(dtype=np.float64)
        filled = np.where(np.isnan(values), self.fill, values)
        return _with_indicator((filled - self.mean) / self.scale, np.isnan(values), wanted=self.indicator)

    def is_given(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which patients have it.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of bool, shape (patients,)
            False where it is filled.
        """
        given: BoolArray = ~np.isnan(raw[self.column].to_numpy(dtype=np.float64))
        return given


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
    def columns(self) -> tuple[str, ...]:
        """Columns it comes from."""
        return (self.column,)

    @property
    def part(self) -> str:
        """Part of the model that it belongs to."""
        return CLINICAL_PART

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
        words = words_of(raw, self.column)
        known = np.where(self._is_known(words), words, self.fill)
        columns: FloatArray = (known[:, None] == np.array(self.levels[1:], dtype=object)).astype(np.float64)
        return columns

    def is_given(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which patients have it.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of bool, shape (patients,)
            False where the word is missing.
        """
        given: BoolArray = words_of(raw, self.column) != ""
        return given

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
        words = words_of(raw, self.column)
        unseen: BoolArray = (words != "") & ~self._is_known(words)
        return unseen

    def _is_known(self, words: NDArray[np.object_]) -> BoolArray:
        return np.isin(words, np.array(self.levels, dtype=object))


@dataclass(frozen=True)
class FittedOrdinal:
    """A word with an order: its place among the levels, filled and standardised.

    Parameters
    ----------
    column : str
        Column it comes from.
    levels : tuple of str
        From the lowest to the highest, as configured, whether or not training patients have them all.
    fill, mean, scale : float
        Of the places 0, 1, ...: training median; mean and standard deviation after filling.
    indicator : bool, optional
        Whether a column of zeros and ones says where the word was missing.
    """

    column: str
    levels: tuple[str, ...]
    fill: float
    mean: float
    scale: float
    indicator: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it comes from."""
        return (self.column,)

    @property
    def part(self) -> str:
        """Part of the model that it belongs to."""
        return CLINICAL_PART

    @property
    def names(self) -> list[str]:
        """Names of the columns that result."""
        return [self.column, *([f"{self.column} missing"] if self.indicator else [])]

    def apply(self, raw: pd.DataFrame) -> FloatArray:
        """Return the standardised places, and where the word was missing if that is asked for.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of float64, shape (patients, 1 or 2)
            Standardised.
        """
        places = places_of_words(raw, self.column, self.levels)
        filled = np.where(np.isnan(places), self.fill, places)
        return _with_indicator((filled - self.mean) / self.scale, np.isnan(places), wanted=self.indicator)

    def is_given(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which patients have it.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of bool, shape (patients,)
            False where it is filled.
        """
        return ~np.isnan(places_of_words(raw, self.column, self.levels))

    def is_unseen(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which patients have a word that is none of the levels.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of bool, shape (patients,)
            False where the word is missing.
        """
        unseen: BoolArray = (words_of(raw, self.column) != "") & ~self.is_given(raw)
        return unseen


@dataclass(frozen=True)
class FittedBlock:
    """Many numbers: filled, standardised, projected on the training patients' principal components.

    Parameters
    ----------
    name : str
        What the block is called; of a group of genes, family and group.
    part : str
        Part of the model that it belongs to: the block itself, or the family of gene groups.
    columns : tuple of str
        Columns it comes from.
    fill, mean, scale : ndarray of float64, shape (columns,)
        As in `FittedNumeric`, for each column.
    components : ndarray of float64, shape (components, columns)
        Principal axes, divided by the scores' training standard deviation, or by that of the first.
    """

    name: str
    part: str
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
            Centred on the training patients.
        """
        values = raw[list(self.columns)].to_numpy(dtype=np.float64)
        scores: FloatArray = FillMeanScale(self.fill, self.mean, self.scale).apply(values) @ self.components.T
        return scores

    def is_given(self, raw: pd.DataFrame) -> BoolArray:
        """Tell which patients have any of its columns.

        Parameters
        ----------
        raw : DataFrame
            Covariates as the cohort holds them.

        Returns
        -------
        ndarray of bool, shape (patients,)
            False where all of them are filled.
        """
        given: BoolArray = ~np.isnan(raw[list(self.columns)].to_numpy(dtype=np.float64)).all(axis=1)
        return given


FittedWord = FittedCategorical | FittedOrdinal
Fitted = FittedNumeric | FittedCategorical | FittedOrdinal | FittedBlock


def words_of(raw: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """Return a column's words, the empty text where they are missing, however that is spelt.

    Parameters
    ----------
    raw : DataFrame
        Covariates as the cohort holds them.
    column : str
        Which.

    Returns
    -------
    ndarray of str
        One a patient.
    """
    text = raw[column].astype(str)
    words: NDArray[np.object_] = text.mask(is_missing(text), "").to_numpy(dtype=object)
    return words


def places_of_words(raw: pd.DataFrame, column: str, levels: tuple[str, ...]) -> FloatArray:
    """Return the places of a column's words among the levels.

    Parameters
    ----------
    raw : DataFrame
        Covariates as the cohort holds them.
    column : str
        Which.
    levels : tuple of str
        From the lowest to the highest.

    Returns
    -------
    ndarray of float64, shape (patients,)
        0 for the lowest; NaN where the word is missing or none of them.
    """
    place = {level: float(number) for number, level in enumerate(levels)}
    return np.array([place.get(word, np.nan) for word in words_of(raw, column)], dtype=np.float64)


def _with_indicator(values: FloatArray, missing: BoolArray, *, wanted: bool) -> FloatArray:
    return np.column_stack([values, missing.astype(np.float64)]) if wanted else values[:, None]
