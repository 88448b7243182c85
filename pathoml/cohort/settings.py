"""Settings of the cohort: which tables, and what their columns mean."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pathoml.settings import ConfigPath, Settings


class NumericCovariate(Settings):
    """A number per patient, such as age."""

    kind: Literal["numeric"] = "numeric"
    column: str = Field(description="Column of the clinical table.")


class CategoricalCovariate(Settings):
    """One of several words per patient, such as sex or grade."""

    kind: Literal["categorical"] = "categorical"
    column: str = Field(description="Column of the clinical table.")


class BlockCovariate(Settings):
    """Many numeric columns of one kind, such as gene expression, reduced to principal components."""

    kind: Literal["block"] = "block"
    name: str = Field(description="What to call the block.")
    columns: str = Field(description="Pattern of the column names, for example '*_rnaseq'.")
    components: int = Field(32, ge=1, description="Principal components kept, fitted on training patients only.")


Covariate = Annotated[NumericCovariate | CategoricalCovariate | BlockCovariate, Field(discriminator="kind")]


class CohortSettings(Settings):
    """Which table holds the patients, and what its columns mean."""

    table: ConfigPath = Field(description="Clinical table (.csv, .tsv, .parquet), one row a patient or a slide.")
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

    manifest: ConfigPath = Field(
        description="Table with columns slide_id, path, patient_id and, where metadata lack it, mpp."
    )
    folder: ConfigPath | None = Field(
        None, description="Folder that paths in the manifest start from; default: the manifest's own."
    )
    bags: ConfigPath = Field(Path("bags"), description="Folder for the feature bags.")
