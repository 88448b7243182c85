"""Settings of the aggregators; torch-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pathoml.settings import ConfigPath, Settings


class _WithDropout(Settings):
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of embedding units dropped in training.")


class AbmilSettings(_WithDropout):
    """Attention over tiles, gated or plain, of one head or several (Ilse 2018)."""

    kind: Literal["abmil"] = "abmil"
    hidden_dim: int = Field(32, ge=1, le=4096, description="Width of the tile embedding.")
    attention_dim: int = Field(16, ge=1, le=4096, description="Width of the attention branch.")
    heads: int = Field(1, ge=1, le=64, description="Attention heads, each with its own weights.")
    gated: bool = Field(default=True, description="Whether a sigmoid gates the attention branch.")


class MeanPoolSettings(Settings):
    """The mean of all tiles, then a linear layer."""

    kind: Literal["mean"] = "mean"


class MaxPoolSettings(_WithDropout):
    """The tile with the highest logit."""

    kind: Literal["max"] = "max"
    hidden_dim: int = Field(32, ge=1, le=4096, description="Width of the tile embedding.")


class ChowderSettings(_WithDropout):
    """The highest and lowest tile scores through a network (Courtiol 2018)."""

    kind: Literal["chowder"] = "chowder"
    extremes: int = Field(25, ge=1, le=1000, description="Highest scores, and as many lowest, that are looked at.")
    hidden_dim: int = Field(128, ge=1, le=4096, description="Width of the network's first layer; the second has half.")


class DeepMilSettings(_WithDropout):
    """Gated attention, then a network (Owkin's DeepMIL)."""

    kind: Literal["deepmil"] = "deepmil"
    hidden_dim: int = Field(128, ge=1, le=4096, description="Width of the tile embedding and of the network.")
    attention_dim: int = Field(128, ge=1, le=4096, description="Width of the attention branch.")


class ClamSettings(_WithDropout):
    """Gated attention that also tells its most from its least attended tiles (Lu 2021)."""

    kind: Literal["clam"] = "clam"
    hidden_dim: int = Field(64, ge=1, le=4096, description="Width of the tile embedding; 512 in the paper.")
    attention_dim: int = Field(32, ge=1, le=4096, description="Width of the attention branch; 256 in the paper.")
    instances: int = Field(8, ge=1, le=1000, description="Most, and as many least, attended tiles that are told apart.")
    instance_weight: float = Field(
        0.3, ge=0, lt=1, description="Share of the instance loss; the bag's loss has the rest."
    )


class DsmilSettings(_WithDropout):
    """Attention by likeness to the most critical tile (Li 2021)."""

    kind: Literal["dsmil"] = "dsmil"
    query_dim: int = Field(64, ge=1, le=4096, description="Width of what likeness is measured in; 128 in the paper.")
    dropout: float = Field(0.25, ge=0, lt=1, description="Share of tile columns dropped before the bag's classifier.")


class AcmilSettings(_WithDropout):
    """Several attention branches that have to differ (Zhang 2024)."""

    kind: Literal["acmil"] = "acmil"
    hidden_dim: int = Field(64, ge=1, le=4096, description="Width of the tile embedding.")
    attention_dim: int = Field(32, ge=1, le=4096, description="Width of the attention branches.")
    branches: int = Field(5, ge=1, le=64, description="Attention branches.")
    most_attended: int = Field(
        10, ge=0, le=1000, description="Tiles of each branch of which some are hidden in training."
    )
    hidden_share: float = Field(0.6, ge=0, le=1, description="How many of those.")


class DtfdSettings(_WithDropout):
    """Two tiers of attention over pseudo-bags (Zhang 2022)."""

    kind: Literal["dtfd"] = "dtfd"
    hidden_dim: int = Field(64, ge=1, le=4096, description="Width of the tile embedding; 512 in the paper.")
    attention_dim: int = Field(32, ge=1, le=4096, description="Width of the attention branches; 128 in the paper.")
    pseudo_bags: int = Field(4, ge=1, le=1000, description="Pseudo-bags that a bag is dealt into.")


class _WithHeads(_WithDropout):
    hidden_dim: int = Field(64, ge=1, le=4096, description="Width of a token; a multiple of heads.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of units dropped in training.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not a multiple of heads {self.heads}; set either")
        return self


class IlraSettings(_WithHeads):
    """Exchange through a few latent vectors (Xiang 2023)."""

    kind: Literal["ilra"] = "ilra"
    layers: int = Field(2, ge=1, le=32, description="Blocks from tiles to latent vectors and back.")
    latents: int = Field(16, ge=1, le=1024, description="Latent vectors; 64 in the paper.")


class TransMilSettings(_WithHeads):
    """Self-attention and convolutions over tiles laid out as a square (Shao 2021)."""

    kind: Literal["transmil"] = "transmil"


class TransformerSettings(_WithHeads):
    """Self-attention that falls off with distance; the last head sees everything."""

    kind: Literal["transformer"] = "transformer"
    layers: int = Field(2, ge=1, le=32, description="Layers.")


class PatchGcnSettings(_WithDropout):
    """A graph of neighbouring tiles, then gated attention (Chen 2021)."""

    kind: Literal["patch_gcn"] = "patch_gcn"
    hidden_dim: int = Field(64, ge=1, le=4096, description="Width of a tile's state; 128 in the paper.")
    attention_dim: int = Field(32, ge=1, le=4096, description="Width of the attention branch.")
    layers: int = Field(3, ge=1, le=32, description="How many steps away a tile can see.")
    dropout: float = Field(0.25, ge=0, lt=1, description="Share of units dropped in training.")


AggregatorSettings = Annotated[
    AbmilSettings | MeanPoolSettings | MaxPoolSettings | ChowderSettings | DeepMilSettings | ClamSettings | DsmilSettings
    | AcmilSettings | DtfdSettings | IlraSettings | TransMilSettings | TransformerSettings | PatchGcnSettings,
    Field(discriminator="kind"),
]  # fmt: skip


class LateSettings(Settings):
    """The sum of what each part says by itself."""

    kind: Literal["late"] = "late"


class GatedSettings(_WithDropout):
    """Embeddings of all parts, weighed by gates that see them all (Arevalo 2017)."""

    kind: Literal["gated"] = "gated"
    hidden_dim: int = Field(16, ge=1, le=4096, description="Width of the embedding of each part.")
    dropout: float = Field(0.25, ge=0, lt=1, description="Share of units dropped in training.")


class CoAttentionSettings(_WithDropout):
    """Each block and group of genes attends over the tiles (Chen 2021); takes the place of the aggregator."""

    kind: Literal["co_attention"] = "co_attention"
    hidden_dim: int = Field(32, ge=1, le=4096, description="Width of tokens and tile embeddings; 256 in the paper.")
    attention_dim: int = Field(16, ge=1, le=4096, description="Width of the attention over groups.")
    dropout: float = Field(0.25, ge=0, lt=1, description="Share of units dropped in training.")


FusionSettings = Annotated[LateSettings | GatedSettings | CoAttentionSettings, Field(discriminator="kind")]


class PublishedSettings(Settings):
    """Weights of another tool from which training starts, read without running any code."""

    layout: Literal["clam", "abmil"] = Field(description="CLAM_SB of mahmoodlab/CLAM, or ABMIL of dazhangyu123/ACMIL.")
    weights: ConfigPath = Field(description="Its state dict.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of that file.")


class ModelSettings(Settings):
    """What the prognostic model is made of."""

    aggregator: AggregatorSettings = Field(AbmilSettings(), description="How tiles become one log hazard.")
    fusion: FusionSettings = Field(
        LateSettings(), description="How slides, blocks of columns and gene groups are joined into one log hazard."
    )
    tile_components: int | None = Field(
        32,
        ge=1,
        le=4096,
        description="Principal components kept of the tile features, fitted on training patients only; null keeps all columns.",
    )
    start: PublishedSettings | None = Field(
        None,
        description="Leave out to start at random; tiles then enter as the bags hold them, as those weights expect.",
    )

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.start is None:
            return self
        if self.fusion.kind != "late":
            raise ValueError("start: published weights give logits of slides; set fusion: {kind: late}")
        if self.aggregator.kind != self.start.layout:
            raise ValueError(f"start: layout {self.start.layout} goes with aggregator kind {self.start.layout}")
        if self.tile_components is not None:
            raise ValueError("start: published weights take features as they are; set tile_components: null")
        return self
