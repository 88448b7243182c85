"""Settings of feature extraction; torch-free."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from pathoml.encoders.settings import EncoderSettings
from pathoml.provenance import settings_digest
from pathoml.settings import NOT_IN_HASH, Settings, result_settings
from pathoml.tiling import TilingSettings
from pathoml.tissue import TissueSettings


class ExtractSettings(Settings):
    """How slides become bags."""

    precision: Literal["float32", "bfloat16"] = Field("float32", description="Number format inside the encoder.")
    feature_dtype: Literal["float16", "float32"] = Field(
        "float16", description="Number format of the features in the bag."
    )
    batch_tiles: int = Field(8, ge=1, le=4096, description="Tiles of one encoder call; the last one is padded.")
    min_focus: float = Field(
        15.0,
        ge=0,
        description="Tiles whose Laplacian has a smaller variance are flagged OUT_OF_FOCUS (they stay in the bag).",
    )
    max_lost_share: float = Field(
        0.1, ge=0, le=1, description="A slide that loses a larger share of its tiles to damage is refused."
    )
    workers: int = Field(
        2,
        ge=0,
        le=256,
        description="Processes that read and encode slides; 0 works in this process.",
        json_schema_extra=NOT_IN_HASH,
    )
    threads_per_worker: int = Field(
        1,
        ge=1,
        le=256,
        description="CPU threads of the encoder in each process; their number changes the last bits of features.",
    )
    slide_timeout_s: float = Field(
        7200, gt=0, description="A slide that takes longer is given up.", json_schema_extra=NOT_IN_HASH
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a slide's bag holds.

    Parameters
    ----------
    tissue : TissueSettings
        How tissue is found.
    tiling : TilingSettings
        How tiles are laid.
    encoder : Lite0Settings, TimmSettings or LocalSettings
        Which encoder.
    extract : ExtractSettings
        Precision, batch and limits.
    """

    tissue: TissueSettings
    tiling: TilingSettings
    encoder: EncoderSettings
    extract: ExtractSettings

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the result."""
        return settings_digest(self.tissue, self.tiling, self.encoder, self.extract)

    def to_json(self) -> dict[str, Any]:
        """Return what decides the result as plain JSON values; no path of this machine.

        Returns
        -------
        dict
            One entry for each settings object.
        """
        return {name: result_settings(getattr(self, name)) for name in ("tissue", "tiling", "encoder", "extract")}


def recipe_from_json(values: dict[str, Any], *, encoder_weights: str | None = None) -> Recipe:
    """Rebuild a recipe from `Recipe.to_json`.

    Parameters
    ----------
    values : dict
        Plain JSON values.
    encoder_weights : str, optional
        Where the weights file of a ``local`` encoder lies on this machine.

    Returns
    -------
    Recipe
        With the same digest.
    """
    encoder = dict(values["encoder"])
    if encoder["kind"] == "local":
        encoder["weights"] = encoder_weights or ""
    return Recipe(
        TissueSettings(**values["tissue"]),
        TilingSettings(**values["tiling"]),
        TypeAdapter[EncoderSettings](EncoderSettings).validate_python(encoder),
        ExtractSettings(**values["extract"]),
    )
