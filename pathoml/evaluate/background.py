"""What is known about patients besides predictions: covariates, and the features of their slides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pathoml.covariates import CategoricalCovariate, Covariate, ReducedCovariate, fit_covariates
from pathoml.errors import InputError
from pathoml.tables import is_missing
from pathoml.units import AnyArray, BoolArray, FloatArray, IntArray


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
        Mean over the tiles of each patient.
    """

    patient_id: AnyArray
    covariates: pd.DataFrame
    definitions: tuple[Covariate, ...]
    features: FloatArray | None = None

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
    """Divide patients by each clinical covariate: by its words, or by the median of its numbers.

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
        name = one.column  # type: ignore[union-attr]
        if isinstance(one, CategoricalCovariate):
            words = raw[name].astype(str)
            known = words.mask(is_missing(words), "not known").to_numpy(dtype=str)
            found += [(name, level, known == level) for level in np.unique(known).tolist()]
            continue
        values = raw[name].to_numpy(dtype=np.float64)
        if not np.isfinite(values).any():
            continue
        middle = float(np.nanmedian(values))
        found += [(name, f"up to {middle:.4g}", values <= middle), (name, f"above {middle:.4g}", values > middle)]
    return found
