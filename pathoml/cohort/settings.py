"""Settings of the cohort: which tables, and what their columns mean."""

import re
from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pathoml.cohort.endpoints import EndpointSettings, TimeUnit
from pathoml.cohort.rules import Rule
from pathoml.covariates import Covariate
from pathoml.settings import ConfigPath, DataPath, Settings


class TimeZeroSettings(Settings):
    """Dates against which follow-up and specimens are checked."""

    column: str = Field(description="Column with the date of time zero, such as diagnosis; dates as 2019-03-31.")
    last_contact: str | None = Field(
        None, description="Column with the date at which follow-up ended; has to agree with the follow-up time."
    )
    data_cutoff: date | None = Field(
        None, description="Day on which the data were frozen; follow-up cannot go beyond it."
    )
    specimen: str | None = Field(
        None, description="Column with the specimen's date; those taken after time zero are counted in a warning."
    )
    tolerance_days: float = Field(
        31.0, ge=0, description="Days by which follow-up time and dates may differ: a time in months is rounded."
    )


class CohortSettings(Settings):
    """Which table holds the patients, and what its columns mean."""

    table: DataPath = Field(description="Clinical table (.csv, .tsv, .parquet), one row a patient or a slide.")
    patient_id: str = Field("patient_id", description="Column that names the patient.")
    endpoints: dict[str, EndpointSettings] = Field(
        default={},
        description="Several endpoints of the table by name, or one with causes, a landmark, delayed entry or administrative "
        "censoring; in place of time, time_unit, event and event_codes.",
    )
    endpoint: str = Field(
        "overall survival",
        description="What the time runs to; printed in the report. With endpoints: which of them is modelled.",
    )
    time: str | None = Field(None, description="Column with the follow-up time.")
    time_unit: TimeUnit | None = Field(None, description="Unit of that column.")
    event: str | None = Field(None, description="Column that says whether the event was seen.")
    event_codes: dict[str, Literal[0, 1]] = Field(
        default={"0": 0, "1": 1}, description="What stands in the event column -> 1 event, 0 censored."
    )
    eligibility: tuple[Rule, ...] = Field((), description="Rules on columns of this table: who is in the study.")
    time_zero: TimeZeroSettings | None = Field(None, description="Dates that follow-up and specimens are checked by.")
    site: str | None = Field(None, description="Column that names the hospital.")
    covariates: tuple[Covariate, ...] = Field((), description="Columns that enter the model beside the slides.")

    @field_validator("time", "time_unit", "event")
    @classmethod
    def _one_way_to_say_it(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Ask for the columns of the one endpoint where no endpoints are listed, and for nothing else beside a list."""
        if "endpoints" not in info.data:  # wrong itself, which is said
            return value
        if not info.data["endpoints"] and value is None:
            raise PydanticCustomError("missing", "Field required")
        if info.data["endpoints"] and value is not None:
            raise ValueError(f"endpoints say which columns count; leave out {info.field_name}")
        return value

    @model_validator(mode="after")
    def _an_endpoint_of_the_list(self) -> Self:
        if self.endpoints and self.endpoint not in self.endpoints:
            raise ValueError(f"endpoint '{self.endpoint}' is not one of {', '.join(self.endpoints)}")
        return self

    @property
    def outcome(self) -> EndpointSettings:
        """The endpoint that is modelled."""
        return self.all_endpoints[self.endpoint]

    @property
    def all_endpoints(self) -> dict[str, EndpointSettings]:
        """Every endpoint of the table, by name."""
        if self.endpoints or self.time is None or self.time_unit is None or self.event is None:
            return self.endpoints
        own = EndpointSettings(
            time=self.time, time_unit=self.time_unit, event=self.event, event_codes=dict(self.event_codes)
        )  # fmt: skip
        return {self.endpoint: own}


class SlidesSettings(Settings):
    """Which table lists the slides, and where their bags are kept."""

    manifest: DataPath = Field(
        description="Table with columns slide_id, path, patient_id and, where metadata lack it, mpp."
    )
    folder: DataPath | None = Field(
        None, description="Folder that paths in the manifest start from; default: the manifest's own."
    )
    bags: ConfigPath = Field(Path("bags"), description="Folder for the feature bags.")
    required: bool = Field(
        default=True,
        description="Whether patients without a slide that could be used are left out; else they enter with their covariates.",
    )
    patient_pattern: str | None = Field(
        None,
        description="Regular expression whose first group finds the patient in the slide_id, such as '^(TCGA-..-....)'; then the "
        "manifest needs no column patient_id.",
    )
    eligibility: tuple[Rule, ...] = Field(
        (),
        description="Rules on columns of the manifest (FFPE or frozen, stain, specimen date): which slides are used.",
    )

    @field_validator("patient_pattern")
    @classmethod
    def _with_a_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"needs one group in parentheses, which finds the patient; it has {groups}")
        return pattern
