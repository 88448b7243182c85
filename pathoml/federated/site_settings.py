"""What a hospital says to its own copy of pathoml; none of it leaves the hospital. Torch-free."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pathoml.cohort import CohortSettings, SlidesSettings
from pathoml.federated.plan import METRICS, Plan
from pathoml.settings import ConfigPath, Settings
from pathoml.settings_problems import read_settings

FEWEST_PATIENTS, FEWEST_EVENTS = 20, 10
"""Below these nothing is said, whatever a plan asks for, unless a site declares its data a public benchmark."""


class LimitsSettings(Settings):
    """What the site enforces, whatever the plan says."""

    minimum_patients: int = Field(FEWEST_PATIENTS, ge=1, description="Nothing is said of fewer patients.")
    minimum_events: int = Field(FEWEST_EVENTS, ge=0, description="Nothing is said of patients with fewer events.")
    public_benchmark: bool = Field(
        default=False,
        description="Whether the data are public, so that the plan may ask about fewer patients. Never for patients of your own.",
    )
    update_norm: float | None = Field(
        None, gt=0, description="A longer update is not sent; null leaves it to the plan."
    )
    epsilon: float | None = Field(
        None, gt=0, description="Most of its patients' privacy that all plans together may spend: a plan with more, or without "
        "differential privacy, is refused. null: no such limit.",
    )  # fmt: skip
    reference_models: int = Field(
        0, ge=0, le=1024, multiple_of=2, description="Models that the site trains for itself to see what the network's "
        "tells of who was trained on; 16 give a first impression, 64 are better.",
    )  # fmt: skip
    refused_metrics: tuple[str, ...] = Field(
        (), description="Numbers that are never sent, though the plan asks for them."
    )

    @field_validator("refused_metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(METRICS)}")
        return metrics

    def against(self, plan: Plan) -> str:
        """Say why the site does not take part in a plan at all.

        Parameters
        ----------
        plan : Plan
            What the network agreed on.

        Returns
        -------
        str
            Empty if it does.
        """
        if self.epsilon is None or (plan.privacy is not None and plan.privacy.epsilon <= self.epsilon):
            return ""
        asked = "has no privacy: section" if plan.privacy is None else f"asks for epsilon {plan.privacy.epsilon:g}"
        return (
            f"the site gives away no more than epsilon {self.epsilon:g} of its patients' privacy, and the plan {asked}"
        )

    def patients_for(self, plan: Plan) -> int:
        """Return the fewest patients of whom anything is said.

        Parameters
        ----------
        plan : Plan
            What the network agreed on.

        Returns
        -------
        int
            The strictest of plan, site and pathoml.
        """
        floor = 1 if self.public_benchmark else max(FEWEST_PATIENTS, self.minimum_patients)
        return max(plan.minimum_patients, floor)

    def events_for(self, plan: Plan) -> int:
        """Return the fewest events of which anything is said.

        Parameters
        ----------
        plan : Plan
            What the network agreed on.

        Returns
        -------
        int
            The strictest of plan, site and pathoml.
        """
        floor = 0 if self.public_benchmark else max(FEWEST_EVENTS, self.minimum_events)
        return max(plan.minimum_events, floor)

    def norm_for(self, plan: Plan) -> float:
        """Return the longest update that is sent.

        Parameters
        ----------
        plan : Plan
            What the network agreed on.

        Returns
        -------
        float
            The strictest of plan and site.
        """
        return plan.update_norm if self.update_norm is None else min(plan.update_norm, self.update_norm)


DEFAULT_LIMITS = LimitsSettings()
"""What a site enforces that says nothing of it."""


class SiteSettings(Settings):
    """Where a hospital's data lie and what it allows."""

    name: str = Field(description="Name of the site, as the plan lists it.")
    cohort: CohortSettings = Field(description="Clinical table; its covariates are the plan's, and left out here.")
    slides: SlidesSettings | None = Field(None, description="Manifest and bags; leave out if the plan has no features.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="The plan's name of a column -> its name in the hospital's own table."
    )
    folder: ConfigPath = Field(
        Path("federation"), description="Folder for approvals, audit log and the state of trainings; stays here."
    )
    proxy: str | None = Field(
        None, pattern=r"^http://[^\s/@]+:\d+$", description="Proxy through which the site dials out, http://HOST:PORT; it has to "
        "allow CONNECT, and sees nothing of what it passes on. null: that of the environment, if any.",
    )  # fmt: skip
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model trains.")
    limits: LimitsSettings = Field(DEFAULT_LIMITS, description="What the site enforces, whatever the plan says.")


def read_site(path: Path) -> SiteSettings:
    """Read and check a site's settings.

    Parameters
    ----------
    path : Path
        A YAML file; paths in it start from its folder.

    Returns
    -------
    SiteSettings
        Frozen.

    Raises
    ------
    ConfigError
        With every problem found, each with file and line.
    """
    return read_settings(path, SiteSettings)
