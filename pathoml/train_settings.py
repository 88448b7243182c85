"""Settings of training; torch-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pathoml.settings import NOT_IN_HASH, Settings


class CoxLossSettings(Settings):
    """Cox's partial likelihood: the model gives one log hazard. Curves come from one Breslow baseline of all patients."""

    kind: Literal["cox"] = "cox"
    ties: Literal["breslow", "efron"] = Field("breslow", description="How events at the same time are taken.")
    stratified: bool = Field(default=False, description="Whether patients are compared within their hospital only.")
    ranking_weight: float = Field(
        0.0, ge=0, le=100, description="Weight of a pairwise ranking loss that is added to the likelihood."
    )


class _BinnedLossSettings(Settings):
    bins: int = Field(
        4, ge=2, le=100, description="Time bins, edges at quantiles of the training patients' event times."
    )


class DiscreteLossSettings(_BinnedLossSettings):
    """Discrete-time hazards: the model gives one logit for each time bin."""

    kind: Literal["discrete"] = "discrete"


class PmfLossSettings(_BinnedLossSettings):
    """A probability for each time bin."""

    kind: Literal["pmf"] = "pmf"


class MtlrLossSettings(_BinnedLossSettings):
    """Multi-task logistic regression over time bins."""

    kind: Literal["mtlr"] = "mtlr"


class DeepHitLossSettings(_BinnedLossSettings):
    """DeepHit: a probability for each time bin, and ranking of cumulative incidences."""

    kind: Literal["deephit"] = "deephit"
    likelihood_share: float = Field(0.2, ge=0, le=1, description="Weight of the likelihood; the ranking has the rest.")
    scale: float = Field(0.1, ge=0.02, le=10, description="Difference of incidences that counts in the ranking.")


BinnedLoss = DiscreteLossSettings | PmfLossSettings | MtlrLossSettings | DeepHitLossSettings
Loss = Annotated[CoxLossSettings | BinnedLoss, Field(discriminator="kind")]


class FixedRidgeSettings(Settings):
    """A ridge penalty as it stands."""

    kind: Literal["fixed"] = "fixed"
    penalty: float = Field(
        gt=0, description="Half of this times the squared coefficients is taken from the log likelihood."
    )


class SearchedRidgeSettings(Settings):
    """The ridge penalty with the highest cross-validated partial likelihood on inner folds of a fold's own patients."""

    kind: Literal["inner_folds"] = "inner_folds"
    lowest: float = Field(1.0, gt=0, description="Weakest penalty tried.")
    highest: float = Field(1e4, gt=0, description="Strongest penalty tried.")
    steps: int = Field(13, ge=2, le=200, description="Penalties tried, evenly on a logarithmic scale.")
    folds: int = Field(
        5, ge=2, le=50, description="Inner folds, events shared out evenly; each fits its own transforms."
    )
    seed: int = Field(0, ge=0, description="Seed of the inner folds.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest:g} is not below highest {self.highest:g}")
        return self


RidgeSettings = Annotated[FixedRidgeSettings | SearchedRidgeSettings, Field(discriminator="kind")]


class TrainSettings(Settings):
    """How the model is fitted."""

    loss: Loss = Field(CoxLossSettings(), description="What is minimised.")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="AdamW, or plain gradient steps, which federated control variates are made for."
    )
    learning_rate: float = Field(1e-2, gt=0, le=1, description="Step size.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Whether the step size falls along a cosine until max_epochs."
    )
    warmup_epochs: int = Field(0, ge=0, description="Epochs in which the step size rises to its full size.")
    weight_decay: float = Field(1e-2, ge=0, description="Weight decay.")
    clip_norm: float | None = Field(None, gt=0, description="Gradients longer than this are shortened to it.")
    max_epochs: int = Field(
        200,
        ge=0,
        description="Passes over the training patients. 0 leaves a model on the table alone at its Cox fit, for which the patients"
        " set aside for early stopping are then used too.",
    )
    patience: int = Field(40, ge=1, description="Epochs without a better validation result before training stops.")
    stop_on: Literal["loss", "concordance"] = Field(
        "loss", description="What of the validation patients decides: their loss, or Harrell's concordance."
    )
    batch_patients: int | None = Field(
        None, ge=2, description="Patients of one step; null takes all, so that Cox's risk sets are whole."
    )
    event_balanced: bool = Field(
        default=False,
        description="Whether half of a step's patients have had the event; baseline hazards are estimated on all as they are.",
    )
    max_tiles: int | None = Field(
        None, ge=1, description="Tiles of a patient that an epoch sees, drawn anew each time; null takes all."
    )
    tile_dropout: float = Field(0.0, ge=0, lt=1, description="Share of tiles left out at random in training.")
    feature_noise: float = Field(
        0.0, ge=0, le=10, description="Standard deviation of noise added to tiles in training."
    )
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of parts (slides, clinical columns, each block, gene groups) hidden from the model at random in each"
        " step of training, so that it serves patients who lack them; one part of each patient is left.",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 trains in mixed precision.")
    covariate_ridge: float = Field(
        1.0,
        gt=0,
        description="Ridge penalty of the Cox fits on covariates: the clinical model, and where the model's covariates start.",
    )
    block_ridge: RidgeSettings | None = Field(
        None,
        description="Ridge penalty of the columns of blocks and gene groups where covariates start; null: as the others.",
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, dropout and batch order.")
    members: int = Field(
        1, ge=1, le=100, description="Models of a fold, with a seed each; their predictions are averaged."
    )
    folds_at_once: int = Field(
        1,
        ge=1,
        le=256,
        description="Folds fitted side by side on the CPU, if memory allows; threads are shared out, so last digits may differ.",
        json_schema_extra=NOT_IN_HASH,
    )
    tiles_at_once: int = Field(
        500_000,
        ge=1,
        description="Tiles that go through the model together. A step with more takes each part twice, with the same gradient.",
        json_schema_extra=NOT_IN_HASH,
    )
    kept_mb: int = Field(
        272,
        ge=0,
        description="Memory for what such a step keeps from its first pass, so as not to compute it again.",
        json_schema_extra=NOT_IN_HASH,
    )
    resident_gb: float | None = Field(
        None,
        ge=0,
        description="Memory for tiles that are kept ready for training; null: half of what is free. More are read each epoch.",
        json_schema_extra=NOT_IN_HASH,
    )
    checkpoint_s: float = Field(
        30.0,
        ge=0,
        description="Seconds between records from which a killed training goes on.",
        json_schema_extra=NOT_IN_HASH,
    )

    @model_validator(mode="after")
    def _cox_fit_has_no_loss_of_its_own(self) -> Self:
        if self.max_epochs == 0 and self.loss != CoxLossSettings():
            raise ValueError(
                "max_epochs: 0 leaves the model at its Cox fit, with Breslow's ties and all patients compared with each other; "
                "train.loss would not be used: leave it out, or train for some epochs"
            )
        return self

    @model_validator(mode="after")
    def _balance_needs_steps(self) -> Self:
        if self.event_balanced and self.batch_patients is None:
            raise ValueError("event_balanced: a step of all patients has events as they are; give batch_patients too")
        return self


class TrackingSettings(Settings):
    """Who else is told the numbers of each epoch, besides the file metrics.jsonl."""

    tensorboard: bool = Field(
        default=False,
        description="Whether event files for TensorBoard are written to the folder tensorboard of the output.",
        json_schema_extra=NOT_IN_HASH,
    )
    mlflow: str | None = Field(
        None,
        description="Tracking URI of MLflow, such as sqlite:///mlflow.db or a server of your own; null for none.",
        json_schema_extra=NOT_IN_HASH,
    )
