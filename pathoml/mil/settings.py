"""Settings of the aggregators; torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from pathoml.settings import Settings


class AbmilSettings(Settings):
    """Gated attention over tiles (Ilse 2018)."""

    kind: Literal["abmil"] = "abmil"
    hidden_dim: int = Field(32, ge=1, le=4096, description="Width of the tile embedding.")
    attention_dim: int = Field(16, ge=1, le=4096, description="Width of the attention branch.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of embedding units dropped in training.")


class MeanPoolSettings(Settings):
    """The mean of all tiles, then a linear layer."""

    kind: Literal["mean"] = "mean"


Aggregator = Annotated[AbmilSettings | MeanPoolSettings, Field(discriminator="kind")]


class ModelSettings(Settings):
    """What the prognostic model is made of."""

    aggregator: Aggregator = Field(AbmilSettings(), description="How tiles become one log hazard.")
    tile_components: int = Field(
        32,
        ge=1,
        le=4096,
        description="Principal components kept of the tile features, fitted on training patients only.",
    )
