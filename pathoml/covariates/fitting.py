"""Covariates -> the numbers a model takes: filled, scaled, coded and reduced as fitted on training patients only."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pathoml.covariates.components import fill_mean_scale, scaled_axes
from pathoml.covariates.fitted import (
    Fitted,
    FittedBlock,
    FittedCategorical,
    FittedNumeric,
    FittedOrdinal,
    places_of_words,
    words_of,
)
from pathoml.covariates.gene_groups import group_columns
from pathoml.covariates.settings import (
    BlockCovariate,
    CategoricalCovariate,
    Covariate,
    GeneGroupsCovariate,
    NumericCovariate,
    OrdinalCovariate,
)
from pathoml.covariates.transform import CovariateTransform
from pathoml.provenance import patients_digest


def fit_covariates(covariates: tuple[Covariate, ...], raw: pd.DataFrame) -> CovariateTransform:
    """Fit every covariate on the rows given, which must be training patients.

    Parameters
    ----------
    covariates : tuple of settings of a covariate
        What the configuration lists.
    raw : DataFrame
        Training patients' covariates, with patient ids as index.

    Returns
    -------
    CovariateTransform
        Ready for any patient.

    Raises
    ------
    CohortError
        If a file of gene groups cannot be read.
    """
    fitted = tuple(part for one in covariates for part in _fit(one, raw))
    return CovariateTransform(fitted, patients_digest(raw.index))


def _fit(covariate: Covariate, raw: pd.DataFrame) -> list[Fitted]:
    if isinstance(covariate, NumericCovariate):
        return [_fit_numeric(covariate, raw)]
    if isinstance(covariate, CategoricalCovariate):
        return [_fit_categorical(covariate.column, raw)]
    if isinstance(covariate, OrdinalCovariate):
        return [_fit_ordinal(covariate, raw)]
    columns = covariate.matching(raw.columns)
    if isinstance(covariate, GeneGroupsCovariate):
        groups = group_columns(covariate, columns)
        return [_fit_block(covariate, f"{covariate.name}:{name}", own, raw) for name, own in groups.items()]
    return [_fit_block(covariate, covariate.name, columns, raw)]


def _fit_numeric(covariate: NumericCovariate, raw: pd.DataFrame) -> FittedNumeric:
    values = raw[[covariate.column]].to_numpy(dtype=np.float64)
    fill, mean, scale = (float(one[0]) for one in fill_mean_scale(values, impute=covariate.impute))
    return FittedNumeric(covariate.column, fill, mean, scale, covariate.indicator)


def _fit_categorical(column: str, raw: pd.DataFrame) -> FittedCategorical:
    levels, counts = np.unique(words_of(raw, column), return_counts=True)
    fill = "" if "" in levels else levels[counts.argmax()]  # of equally frequent ones the first in the alphabet
    return FittedCategorical(column, tuple(levels.tolist()), str(fill))


def _fit_ordinal(covariate: OrdinalCovariate, raw: pd.DataFrame) -> FittedOrdinal:
    places = places_of_words(raw, covariate.column, covariate.levels)
    fill, mean, scale = (float(one[0]) for one in fill_mean_scale(places[:, None]))
    return FittedOrdinal(covariate.column, covariate.levels, fill, mean, scale, covariate.indicator)


def _fit_block(
    covariate: BlockCovariate | GeneGroupsCovariate, name: str, columns: Sequence[str], raw: pd.DataFrame
) -> FittedBlock:
    values = raw[list(columns)].to_numpy(dtype=np.float64)
    scaling = fill_mean_scale(values)
    axes = scaled_axes(scaling.apply(values), covariate.components, scaling=covariate.scaling)
    return FittedBlock(name, covariate.name, tuple(columns), *scaling, axes)
