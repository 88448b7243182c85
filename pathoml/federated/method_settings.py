"""How a network computes: by rounds of training, by Newton steps, or by scoring what exists. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from pathoml.settings import Settings

MOST_POINTS = 40
"""So many points a site computes Newton's sums at; it takes about ten to converge, and many of them together tell of patients."""


class FedAvgSettings(Settings):
    """Weighted mean of the sites' models (McMahan 2017)."""

    kind: Literal["fedavg"] = "fedavg"


class FedProxSettings(Settings):
    """FedAvg whose sites are held near the shared model (Li 2020)."""

    kind: Literal["fedprox"] = "fedprox"
    proximal: float = Field(0.1, gt=0, description="Weight of half the squared distance from the shared model.")


class ScaffoldSettings(Settings):
    """FedAvg whose sites correct the drift of their own gradients (Karimireddy 2020); needs train.optimizer: sgd."""

    kind: Literal["scaffold"] = "scaffold"


class _AdaptiveSettings(Settings):
    server_rate: float = Field(0.1, gt=0, le=10, description="Step size of the coordinator.")
    first_decay: float = Field(0.9, ge=0, lt=1, description="Decay of the mean update.")
    second_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the squared update; adagrad has none.")
    adaptivity: float = Field(1e-3, gt=0, description="Added to the root of the squared update.")


class FedAdamSettings(_AdaptiveSettings):
    """Adam at the coordinator (Reddi 2021)."""

    kind: Literal["fedadam"] = "fedadam"


class FedYogiSettings(_AdaptiveSettings):
    """Yogi at the coordinator (Reddi 2021)."""

    kind: Literal["fedyogi"] = "fedyogi"


class FedAdagradSettings(_AdaptiveSettings):
    """Adagrad at the coordinator (Reddi 2021)."""

    kind: Literal["fedadagrad"] = "fedadagrad"


Adaptive = FedAdamSettings | FedYogiSettings | FedAdagradSettings
Aggregation = Annotated[FedAvgSettings | FedProxSettings | ScaffoldSettings | Adaptive, Field(discriminator="kind")]


class RoundsSettings(Settings):
    """A network trained by rounds: each site trains the shared model, the coordinator joins what comes back."""

    kind: Literal["rounds"] = "rounds"
    rounds: int = Field(20, ge=1, le=10_000, description="How often models are exchanged.")
    local_epochs: int = Field(1, ge=1, description="Passes over its patients that a site takes in a round.")
    aggregation: Aggregation = Field(FedAvgSettings(), description="How the coordinator joins the sites' models.")
    weight: Literal["patients", "events"] = Field("events", description="What a site counts by.")
    keep: Literal["last", "best_validation"] = Field(
        "last",
        description="Which round's model is kept: the last, or that of the lowest loss on the sites' validation patients.",
    )
    judges: tuple[str, ...] = Field(
        (), description="Sites whose validation patients a round is judged by; empty: all that tell of theirs."
    )
    start: Literal["newton", "zero"] = Field(
        "newton",
        description="Whether covariates start at the network's own linear model, found by Newton steps, or at zero.",
    )
    longest_update: float | None = Field(
        None,
        gt=0,
        description="Each site shortens a longer update to this length; null: it leaves as it is, or not at all.",
    )
    personal_epochs: int = Field(
        0, ge=0, description="Epochs in which each site fits the final model to its own patients; it stays there."
    )


class NewtonSettings(Settings):
    """A penalised linear model of the covariates, by Newton steps; the same as that of all patients in one place."""

    kind: Literal["newton"] = "newton"
    tolerance: float = Field(1e-9, gt=0, description="Longest step at which it has converged.")
    steps: int = Field(
        50, ge=1, description="Steps at most; a site computes no more than 40 points, shortened steps included."
    )


class EvaluationSettings(Settings):
    """Nothing is trained: each site scores a package that exists already on its own patients."""

    kind: Literal["evaluation"] = "evaluation"
    package: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the package's model.json: which package the sites agree to score.",
    )
    patients: Literal["all", "test"] = Field(
        "all", description="Whether all patients of a site are scored, or those whom the plan's rule keeps out of training, "
        "for a package that the sites themselves trained.",
    )  # fmt: skip


Method = Annotated[RoundsSettings | NewtonSettings | EvaluationSettings, Field(discriminator="kind")]
