"""Settings of the cohort: which tables, and what their columns mean."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pathoml.covariates import Covariate
from pathoml.settings import ConfigPath, DataPath, Settings


class CohortSettings(Settings):
    """Which table holds the patients, and what its columns mean."""

    table: DataPath = Field(description="Clinical table (.csv, .tsv, .parquet), one row a patient or a slide.")
    patient_id: str = Field("patient_id", description="Column that names the patient.")
    endpoint: str = Field("overall survival", description="What the time runs to; printed in the report.")
    time: str = Field(description="Column with the follow-up time.")
    time_unit: Literal["days", "weeks", "months", "years"] = Field(description="Unit of that column.")
    event: str = Field(description="Column that says whether the event was seen.")
    event_codes: dict[str, Literal[0, 1]] = Field(
        default={"0": 0, "1": 1}, description="What stands in the event column -> 1 event, 0 censored."
    )
    site: str | None = Field(None, description="Column that names the hospital.")
    covariates: tuple[Covariate, ...] = Field((), description="Columns that enter the model beside the slides.")


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
