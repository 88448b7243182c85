"""Settings of training; torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from pathoml.settings import Settings


class CoxLossSettings(Settings):
    """Cox's partial likelihood: the model gives one log hazard."""

    kind: Literal["cox"] = "cox"


class DiscreteLossSettings(Settings):
    """Discrete-time hazards: the model gives one logit for each time bin."""

    kind: Literal["discrete"] = "discrete"
    bins: int = Field(
        4, ge=2, le=100, description="Time bins, edges at quantiles of the training patients' event times."
    )


Loss = Annotated[CoxLossSettings | DiscreteLossSettings, Field(discriminator="kind")]


class TrainSettings(Settings):
    """How the model is fitted."""

    loss: Loss = Field(CoxLossSettings(), description="What is minimised.")
    learning_rate: float = Field(1e-2, gt=0, le=1, description="AdamW step size.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW weight decay.")
    max_epochs: int = Field(200, ge=1, description="Passes over the training patients.")
    patience: int = Field(40, ge=1, description="Epochs without a better validation loss before training stops.")
    batch_patients: int | None = Field(
        None, ge=2, description="Patients of one step; null takes all, so that Cox's risk sets are whole."
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 trains in mixed precision.")
    covariate_ridge: float = Field(
        1.0,
        gt=0,
        description="Ridge penalty of the Cox fits on covariates: the clinical model, and where the model's covariates start.",
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, dropout and batch order.")
