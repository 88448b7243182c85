"""Covariates: what a configuration may ask for, how cells are read, and the transforms fitted on training patients."""

from pathoml.covariates.cells import doubtful_covariates, read_covariates
from pathoml.covariates.components import fill_mean_scale, principal_axes
from pathoml.covariates.fitted import Fitted, FittedBlock, FittedCategorical, FittedNumeric, FittedOrdinal
from pathoml.covariates.fitting import fit_covariates
from pathoml.covariates.gene_groups import group_columns, read_gene_groups
from pathoml.covariates.settings import (
    CLINICAL_PART,
    SLIDES_PART,
    BlockCovariate,
    CategoricalCovariate,
    Covariate,
    GeneGroupsCovariate,
    NumericCovariate,
    OrdinalCovariate,
    ReducedCovariate,
    covariate_name,
)
from pathoml.covariates.transform import (
    ColumnGroup,
    CovariateTransform,
    UnseenWord,
    transform_from_json,
    unseen_words,
)

__all__ = [
    "CLINICAL_PART",
    "SLIDES_PART",
    "BlockCovariate",
    "CategoricalCovariate",
    "ColumnGroup",
    "Covariate",
    "CovariateTransform",
    "Fitted",
    "FittedBlock",
    "FittedCategorical",
    "FittedNumeric",
    "FittedOrdinal",
    "GeneGroupsCovariate",
    "NumericCovariate",
    "OrdinalCovariate",
    "ReducedCovariate",
    "UnseenWord",
    "covariate_name",
    "doubtful_covariates",
    "fill_mean_scale",
    "fit_covariates",
    "group_columns",
    "principal_axes",
    "read_covariates",
    "read_gene_groups",
    "transform_from_json",
    "unseen_words",
]
