"""Settings that choose an encoder; torch-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pathoml.encoders.registry import find_record
from pathoml.settings import NOT_IN_HASH, ConfigPath, Settings


class Lite0Settings(Settings):
    """EfficientNet-Lite0 with ImageNet weights from an installed package: for trying things out, not a pathology encoder."""

    kind: Literal["lite0"] = "lite0"
    features: Literal["stages", "head"] = Field(
        "stages", description="stages: means of the strides 8 and 16 (152 columns); head: the last layer (1280)."
    )


class TimmSettings(Settings):
    """Any model of timm with the weights that its hub page names; needs the network once."""

    kind: Literal["timm"] = "timm"
    name: str = Field(description="timm's model name, for example 'resnet50.a1_in1k' or 'hf-hub:owner/name'.")
    mpp: float = Field(0.5, ge=0.05, le=10, description="Microns per pixel that the encoder was trained at.")


class LocalSettings(Settings):
    """An architecture of timm with weights from a local file."""

    kind: Literal["local"] = "local"
    architecture: str = Field(description="timm's architecture name, for example 'vit_small_patch16_224'.")
    weights: ConfigPath = Field(
        description="State dict: .safetensors, or .pth read without unpickling code.", json_schema_extra=NOT_IN_HASH
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of that file.")
    mpp: float = Field(0.5, ge=0.05, le=10, description="Microns per pixel that the encoder was trained at.")
    tile_px: int | None = Field(
        None, ge=16, le=4096, description="Side of the tiles that it takes, where that is not the architecture's own."
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="Mean of each colour in training (0-1)."
    )
    std: tuple[float, float, float] = Field(
        (0.229, 0.224, 0.225), description="Standard deviation of each colour in training."
    )


class ImportedSettings(Settings):
    """No encoder: the bags are given, as 'pathoml bags import' makes them. Nothing is extracted; slides need not exist."""

    kind: Literal["imported"] = "imported"
    name: str = Field(
        min_length=1, description="Encoder as the bags call it ('pathoml bags inspect'); bags of another are refused."
    )
    licence: str = Field("not stated", description="Licence of the encoder's weights, for report and model package.")
    pretraining: str = Field("not stated", description="What the encoder was pretrained on, for the same.")


class RegisteredSettings(Settings):
    """A published encoder of the registry, whose input is known; weights from a local file, or once from the hub."""

    kind: Literal["registered"] = "registered"
    name: str = Field(description="As in 'pathoml encoders list', for example 'uni_v2'.")
    weights: ConfigPath | None = Field(
        None, description="Downloaded weights file; left out, the hub's is used.", json_schema_extra=NOT_IN_HASH
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the file; needed with weights, checked without as well."
    )
    other_tiles: bool = Field(
        default=False,
        description="Take tiles of another resolution or size than the encoder was made for, resized to its input.",
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        record = find_record(self.name)
        if record.kind != "tile":
            raise ValueError(
                f"{self.name} encodes whole slides; encoder.name takes a tile encoder, as {record.tile_encoder}"
            )
        if self.weights is not None and self.sha256 is None:
            raise ValueError("weights need their SHA-256; add sha256: (the output of 'sha256sum FILE')")
        return self


EncoderSettings = Annotated[
    Lite0Settings | TimmSettings | LocalSettings | RegisteredSettings | ImportedSettings, Field(discriminator="kind")
]
