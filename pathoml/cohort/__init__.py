"""The clinical table and the slide manifest -> patients with endpoint, site, covariates and slides."""

from pathoml.cohort.endpoints import EndpointSettings
from pathoml.cohort.examining import CohortReading, events_per_parameter, examine_cohort, read_cohort
from pathoml.cohort.flow import FlowStep, flow_from_json, flow_step, flow_to_csv, flow_to_json
from pathoml.cohort.records import Cohort, SlideEntry, leave_out, take_rows
from pathoml.cohort.rules import AllowedRule, DateRule, ExcludedRule, RangeRule, Rule
from pathoml.cohort.screening import screen_slides
from pathoml.cohort.seal import Seal
from pathoml.cohort.settings import (
    CohortSettings,
    SlidesSettings,
    TimeZeroSettings,
)

__all__ = [
    "AllowedRule",
    "Cohort",
    "CohortReading",
    "CohortSettings",
    "DateRule",
    "EndpointSettings",
    "ExcludedRule",
    "FlowStep",
    "RangeRule",
    "Rule",
    "Seal",
    "SlideEntry",
    "SlidesSettings",
    "TimeZeroSettings",
    "events_per_parameter",
    "examine_cohort",
    "flow_from_json",
    "flow_step",
    "flow_to_csv",
    "flow_to_json",
    "leave_out",
    "read_cohort",
    "screen_slides",
    "take_rows",
]
