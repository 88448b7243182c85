"""The clinical table and the slide manifest -> patients with endpoint, site, covariates and slides."""

from pathoml.cohort.examining import CohortReading, examine_cohort, read_cohort
from pathoml.cohort.records import Cohort, SlideEntry, take_rows
from pathoml.cohort.settings import CohortSettings, SlidesSettings

__all__ = [
    "Cohort",
    "CohortReading",
    "CohortSettings",
    "SlideEntry",
    "SlidesSettings",
    "examine_cohort",
    "read_cohort",
    "take_rows",
]
