"""Settings of evaluation; quick to load."""

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pathoml.settings import Settings


class TrialSettings(Settings):
    """The randomised trial for which the prognosis is judged."""

    hazard_ratio: float = Field(0.7, gt=0, lt=1, description="Effect of treatment that the trial is to find.")
    power: float = Field(0.8, gt=0.5, lt=1, description="Probability of finding it.")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Two-sided level.")
    screening_cost: NonNegativeFloat = Field(
        0.1, description="Cost of screening one patient, in units of the cost of one randomised patient."
    )
    simulations: int = Field(
        200, ge=0, le=10_000, description="Simulated trials for what adjusting a Cox regression gains; 0: none."
    )


class EvaluateSettings(Settings):
    """How predictions are judged."""

    horizons_days: tuple[PositiveFloat, ...] = Field(
        (),
        description="Times at which survival probabilities are judged (days); none given: quartiles of the cohort's event times.",
    )
    curve_step_days: PositiveFloat = Field(
        30.0, description="Survival curves are given every so many days; the Brier score is integrated on these days."
    )
    bootstraps: int = Field(2000, ge=100, le=100_000, description="Bootstrap samples.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap and of permutations.")
    calibration_groups: int = Field(5, ge=2, le=20, description="Groups of rising predicted probability.")
    subgroup_events: int = Field(
        5, ge=1, description="A subgroup or hospital with fewer events is not shown by itself."
    )
    permutations: int = Field(
        200,
        ge=0,
        le=100_000,
        description="Times that outcomes are shuffled among patients and the clinical Cox model is fitted again; 0: never.",
    )
    permute_baselines: int = Field(
        0,
        ge=0,
        le=10_000,
        description="The same for the ridge Cox models on blocks and slides, penalties chosen anew each time, which takes seconds a"
        " shuffle. 0: never.",
    )
    permute_model: int = Field(
        0,
        ge=0,
        le=10_000,
        description="The same for the model of the study: each time is a whole training. 0: never.",
    )
    trial: TrialSettings = Field(TrialSettings(), description="The trial for which the prognosis is judged.")
