"""Settings of feature extraction; torch-free."""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from pathoml.artefacts import QualitySettings
from pathoml.encoders.settings import EncoderSettings
from pathoml.provenance import settings_digest
from pathoml.settings import NOT_IN_HASH, ConfigPath, Settings, result_settings
from pathoml.stain_settings import NoStainSettings, StainSettings
from pathoml.tiling import TilingSettings
from pathoml.tissue import TissueSettings

_TISSUE_SOURCES = {"geojson": "folder", "model": "weights"}
"""The path that a recipe does not carry with it."""


class StagingSettings(Settings):
    """A local folder that slides of a slow share or an object store are copied to, ahead of use."""

    folder: ConfigPath = Field(description="Local folder for copies; each is deleted once it has been read.")
    quota_gb: float = Field(100.0, gt=0, description="Most gigabytes of copies at a time.")
    slides_ahead: int = Field(4, ge=1, le=1000, description="Slides that are copied before they can be decoded.")
    copies_at_once: int = Field(2, ge=1, le=64, description="Slides that are copied side by side.")


class ExtractSettings(Settings):
    """How slides become bags."""

    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Number format inside the encoder; 'pathoml encoders show' says which its authors use. float16 is for GPUs.",
    )
    feature_dtype: Literal["float16", "float32"] = Field(
        "float16", description="Number format of the features in the bag."
    )
    batch_tiles: int = Field(8, ge=1, le=4096, description="Tiles of one encoder call; the last one is padded.")
    max_lost_share: float = Field(
        0.1, ge=0, le=1, description="A slide that loses a larger share of its tiles to damage is refused."
    )
    workers: int = Field(
        2,
        ge=0,
        le=256,
        description="Processes that decode slides; 0 decodes in this process, slide by slide.",
        json_schema_extra=NOT_IN_HASH,
    )
    cpu_encoders: int = Field(
        2,
        ge=1,
        le=256,
        description="Batches that are encoded side by side where there is no GPU.",
        json_schema_extra=NOT_IN_HASH,
    )
    threads_per_worker: int = Field(
        1,
        ge=1,
        le=256,
        description="CPU threads of each of them; their number changes the last bits of features.",
    )
    also: tuple[EncoderSettings, ...] = Field(
        (),
        description="Further encoders for the same decoded tiles; their bags lie beside, in '<bags>-<kind>-<name>'.",
        json_schema_extra=NOT_IN_HASH,
    )
    compile: bool = Field(
        default=False,
        description="Whether the encoder goes through torch.compile: slower to start; changes the last bits.",
    )
    staging: StagingSettings | None = Field(
        None,
        description="Copies of slides on a local disk, ahead of use; without, slides are read where they lie.",
        json_schema_extra=NOT_IN_HASH,
    )
    ray_address: str | None = Field(
        None,
        description="Cluster that `pathoml extract --engine ray` works on, for example 'auto'; without, this machine.",
        json_schema_extra=NOT_IN_HASH,
    )
    worker_memory_gb: float = Field(
        8.0,
        gt=0,
        description="A decoding process that holds more gigabytes of its own is ended (on Linux, and not with workers: 0);"
        " its slide is tried once more, alone and fewer tiles at a time.",
        json_schema_extra=NOT_IN_HASH,
    )
    slide_timeout_s: float = Field(
        7200,
        gt=0,
        description="A slide whose decoding takes longer is given up; waiting for the encoder does not count.",
        json_schema_extra=NOT_IN_HASH,
    )

    @model_validator(mode="after")
    def _folders_are_apart(self) -> Self:
        """Refuse further encoders whose bags would lie in one folder, each making those of the other stale."""
        names = [folder_suffix(one) for one in self.also]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(
                f"two of 'also' would write to one folder, '<bags>-{double}'; extract one of them by a configuration of its own"
            )
        return self


def folder_suffix(encoder: EncoderSettings) -> str:
    """Return what the folder of a further encoder's bags has behind the name of the first one's.

    Parameters
    ----------
    encoder : EncoderSettings
        One of ``extract.also``.

    Returns
    -------
    str
        Its kind and name, fit for a folder on any system.
    """
    name = getattr(encoder, "name", None) or getattr(encoder, "architecture", None) or getattr(encoder, "features", "")
    return re.sub(r"[^a-z0-9._-]+", "-", f"{encoder.kind}-{name}".lower())


_DEFAULT_QUALITY, _DEFAULT_STAIN = QualitySettings(), NoStainSettings()


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a slide's bag holds.

    Parameters
    ----------
    tissue : TissueSettings
        How tissue is found.
    tiling : TilingSettings
        How tiles are laid.
    encoder : Lite0Settings, TimmSettings, LocalSettings, RegisteredSettings or ImportedSettings
        Which encoder.
    extract : ExtractSettings
        Precision, batch and limits.
    quality : QualitySettings
        Which artefacts are found and dropped.
    stain : NoStainSettings, MacenkoSettings, ReinhardSettings or AugmentSettings
        How colours are changed.
    """

    tissue: TissueSettings
    tiling: TilingSettings
    encoder: EncoderSettings
    extract: ExtractSettings
    quality: QualitySettings = _DEFAULT_QUALITY
    stain: StainSettings = _DEFAULT_STAIN

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the result."""
        return settings_digest(*(getattr(self, one.name) for one in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """Return what decides the result as plain JSON values; no path of this machine.

        Returns
        -------
        dict
            One entry for each settings object.
        """
        return {one.name: result_settings(getattr(self, one.name)) for one in fields(self)}


def recipe_from_json(
    values: dict[str, Any], *, encoder_weights: str | None = None, tissue_source: str | None = None
) -> Recipe:  # fmt: skip
    """Rebuild a recipe from `Recipe.to_json`.

    Parameters
    ----------
    values : dict
        Plain JSON values.
    encoder_weights : str, optional
        Where the weights file of a ``local`` or ``registered`` encoder lies on this machine; without one, a registered
        encoder's come from the hub.
    tissue_source : str, optional
        Where the folder of regions, or the weights file of a segmentation network, lies on this machine.

    Returns
    -------
    Recipe
        With the same digest.
    """
    encoder, tissue = dict(values["encoder"]), dict(values["tissue"])
    if encoder["kind"] == "local":
        encoder["weights"] = encoder_weights or ""
    if encoder["kind"] == "registered":
        encoder["weights"] = encoder_weights
    if tissue["kind"] in _TISSUE_SOURCES:
        tissue[_TISSUE_SOURCES[tissue["kind"]]] = tissue_source or ""
    return Recipe(
        TypeAdapter[TissueSettings](TissueSettings).validate_python(tissue),
        TilingSettings(**values["tiling"]),
        TypeAdapter[EncoderSettings](EncoderSettings).validate_python(encoder),
        ExtractSettings(**values["extract"]),
        QualitySettings(**values["quality"]),
        TypeAdapter[StainSettings](StainSettings).validate_python(values["stain"]),
    )
