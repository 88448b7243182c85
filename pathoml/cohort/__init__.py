"""The clinical table and the slide manifest -> patients with endpoint, site, covariates and slides."""

from pathoml.cohort.examining import CohortReading, examine_cohort, read_cohort
from pathoml.cohort.records import Cohort, SlideEntry, take_rows
from pathoml.cohort.seal import Seal, patients_digest
from pathoml.cohort.settings import (
    BlockCovariate,
    CategoricalCovariate,
    CohortSettings,
    Covariate,
    NumericCovariate,
    SlidesSettings,
)

__all__ = [
    "BlockCovariate",
    "CategoricalCovariate",
    "Cohort",
    "CohortReading",
    "CohortSettings",
    "Covariate",
    "NumericCovariate",
    "Seal",
    "SlideEntry",
    "SlidesSettings",
    "examine_cohort",
    "patients_digest",
    "read_cohort",
    "take_rows",
]
