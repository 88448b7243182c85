"""Settings of evaluation; quick to load."""

from pydantic import Field, PositiveFloat

from pathoml.settings import Settings


class EvaluateSettings(Settings):
    """How predictions are judged."""

    horizons_days: tuple[PositiveFloat, ...] = Field(
        (), description="Times of the time-dependent AUC (days); none given: quartiles of the cohort's event times."
    )
    curve_step_days: PositiveFloat = Field(
        30.0, description="Survival curves are given every so many days; the Brier score is integrated on these days."
    )
    bootstraps: int = Field(5000, ge=100, le=100_000, description="Bootstrap samples.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")
