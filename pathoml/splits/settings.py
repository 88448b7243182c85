"""Settings of validation: how patients are divided; quick to load."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pathoml.settings import NOT_IN_HASH, DataPath, Settings


class KFoldSettings(Settings):
    """Patients dealt at random into folds, events shared out evenly."""

    kind: Literal["kfold"] = "kfold"
    folds: int = Field(5, ge=2, le=50, description="Number of folds.")
    repeats: int = Field(
        1,
        ge=1,
        le=100,
        description="How often patients are dealt anew; the spread over repeats is what a verdict needs.",
    )


class SitePreservedSettings(Settings):
    """Whole hospitals dealt into folds, events and patients shared out as evenly as that allows."""

    kind: Literal["site_preserved"] = "site_preserved"
    folds: int = Field(5, ge=2, le=20, description="Number of folds.")
    repeats: int = Field(1, ge=1, le=20, description="How often hospitals are dealt anew.")
    time_limit_s: float = Field(
        8.0,
        gt=0,
        le=3600,
        description="Seconds for the solver, for each repeat; then the best folds found are taken and the gap is reported.",
        json_schema_extra=NOT_IN_HASH,
    )


class LeaveOneSiteOutSettings(Settings):
    """Each hospital is the test set once."""

    kind: Literal["leave_one_site_out"] = "leave_one_site_out"
    min_patients: int = Field(1, ge=1, description="Hospitals with fewer patients are small.")
    min_events: int = Field(1, ge=1, description="Hospitals with fewer events are small.")
    small: Literal["refuse", "join", "train_only"] = Field(
        "refuse",
        description="What becomes of small hospitals: an error; one test set of all of them together; or they train and are "
        "never tested.",
    )


class ExternalSettings(Settings):
    """Some hospitals are the test set and never train; all others train."""

    kind: Literal["external"] = "external"
    sites: tuple[str, ...] = Field(min_length=1, description="Names of the hospitals, as the site column writes them.")


class FixedSettings(Settings):
    """Folds as a table says."""

    kind: Literal["fixed"] = "fixed"
    table: DataPath = Field(
        description="Table with columns patient_id and fold (which tests them); or with a third column role (train, "
        "validation, test), a row for each patient and fold. Rows of others are ignored."
    )


class FoldFilesSettings(Settings):
    """Folds as one file a fold says, in columns of patient ids, as published splits come."""

    kind: Literal["files"] = "files"
    folder: DataPath = Field(description="Folder with one table for each fold.")
    pattern: str = Field("splits_*.csv", description="Which files in it; a fold is named by what stands for the star.")
    train: str = Field("train", description="Column with the training patients.")
    test: str = Field("val", description="Column with the patients that test.")
    validation: str | None = Field(
        None, description="Column with the patients of early stopping; none: drawn from the training patients."
    )


Scheme = Annotated[
    KFoldSettings
    | SitePreservedSettings
    | LeaveOneSiteOutSettings
    | ExternalSettings
    | FixedSettings
    | FoldFilesSettings,
    Field(discriminator="kind"),
]


class SplitsSettings(Settings):
    """How the model is validated."""

    schemes: tuple[Scheme, ...] = Field(
        (KFoldSettings(),),
        min_length=1,
        description="Validation schemes; the package and the headline come from the first.",
    )
    validation_share: float = Field(
        0.2,
        gt=0,
        lt=0.5,
        description="Share of the training patients set aside for early stopping, stratified by event.",
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice of patients.")

    @field_validator("schemes")
    @classmethod
    def _each_once(cls, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
        kinds = [scheme.kind for scheme in schemes]
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind of scheme can stand once")
        return schemes
