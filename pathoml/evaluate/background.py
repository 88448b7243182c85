"""What is known about patients besides predictions: covariates, and the features of their slides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pathoml.covariates import (
    CategoricalCovariate,
    Covariate,
    NumericCovariate,
    OrdinalCovariate,
    ReducedCovariate,
    fit_covariates,
)
from pathoml.errors import InputError
from pathoml.tables import is_missing
from pathoml.units import AnyArray, BoolArray, FloatArray, IntArray

_NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Background:
    """Covariates and features of the patients of a study.

    Parameters
    ----------
    patient_id : ndarray of str, shape (patients,)
        Who.
    covariates : DataFrame
        One row each.
    definitions : tuple of settings of a covariate
        What the columns are.
    features : ndarray of float64, shape (patients, dim), or None
        Mean over the tiles of each patient; NaN for those without.
    part_shares : DataFrame or None
        What each part of the first model says of each test patient: scheme, fold, patient_id, part, present, share.
    """

    patient_id: AnyArray
    covariates: pd.DataFrame
    definitions: tuple[Covariate, ...]
    features: FloatArray | None = None
    part_shares: pd.DataFrame | None = None

    @property
    def clinical(self) -> tuple[Covariate, ...]:
        """Covariates that stand for themselves, blocks left out."""
        return tuple(one for one in self.definitions if not isinstance(one, ReducedCovariate))

    def places(self, patient_ids: AnyArray) -> IntArray:
        """Return the rows of patients.

        Parameters
        ----------
        patient_ids : ndarray of str
            Of this study.

        Returns
        -------
        ndarray of int64
            One row each.

        Raises
        ------
        InputError
            If one is not known.
        """
        unknown = sorted(set(patient_ids.tolist()) - set(self.patient_id.tolist()))
        if unknown:
            raise InputError(
                f"patient(s) {', '.join(unknown[:5])} were predicted but are not in the clinical table any more; run"
                " 'pathoml train' again"
            )
        order = np.argsort(self.patient_id, kind="stable")
        rows: IntArray = order[np.searchsorted(self.patient_id[order], patient_ids)]
        return rows

    def design(self, patient_ids: AnyArray) -> tuple[list[str], FloatArray]:
        """Return the clinical covariates of patients as numbers, filled and scaled on these patients.

        Parameters
        ----------
        patient_ids : ndarray of str
            Of this study.

        Returns
        -------
        tuple of list of str and ndarray of float64, shape (patients, columns)
            Names and values.
        """
        raw = self.covariates.iloc[self.places(patient_ids)]
        transform = fit_covariates(self.clinical, raw)
        return transform.names, transform.apply(raw)


def subgroups_of(background: Background, patient_ids: Sequence[str] | AnyArray) -> list[tuple[str, str, BoolArray]]:
    """Divide patients by each clinical covariate: by its words, by a number that takes two values, or by the median of others.

    Parameters
    ----------
    background : Background
        Covariates.
    patient_ids : sequence of str
        Who.

    Returns
    -------
    list of (str, str, ndarray of bool)
        Covariate, level, and who belongs to it.
    """
    raw = background.covariates.iloc[background.places(np.asarray(patient_ids))]
    found: list[tuple[str, str, BoolArray]] = []
    for one in background.clinical:
        if isinstance(one, NumericCovariate):
            found += [(one.column, *level) for level in _by_number(raw[one.column].to_numpy(dtype=np.float64))]
        elif isinstance(one, CategoricalCovariate | OrdinalCovariate):
            levels = one.levels if isinstance(one, OrdinalCovariate) else ()
            found += [(one.column, *level) for level in _by_word(raw[one.column].astype(str), levels)]
    return found


def _by_word(words: "pd.Series[str]", order: Sequence[str]) -> list[tuple[str, BoolArray]]:
    known = words.mask(is_missing(words), _NOT_KNOWN).to_numpy(dtype=str)
    names = np.unique(known).tolist()
    ordered = [*(level for level in order if level in names), *(name for name in names if name not in order)]
    return [(name, known == name) for name in ordered]


def _by_number(values: FloatArray) -> list[tuple[str, BoolArray]]:
    missing = np.isnan(values)
    distinct = np.unique(values[~missing])
    if len(distinct) == 0:
        return []
    if len(distinct) <= 2:  # such as 0 and 1: a median would put all of them on one side
        levels = [(f"{value:g}", values == value) for value in distinct.tolist()]
    else:
        middle = float(np.median(values[~missing]))
        levels = [(f"up to {middle:.4g}", values <= middle), (f"above {middle:.4g}", values > middle)]
    return [*levels, (_NOT_KNOWN, missing)] if missing.any() else levels
