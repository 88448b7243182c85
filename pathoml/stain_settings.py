"""Settings of stain normalisation and augmentation; torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from pathoml.settings import Settings


class NoStainSettings(Settings):
    """Colours as they are in the slide."""

    kind: Literal["none"] = "none"


class MacenkoSettings(Settings):
    """Each slide's haematoxylin and eosin, found by Macenko's method, brought to reference colours and strengths."""

    kind: Literal["macenko"] = "macenko"
    sampled_tiles: int = Field(64, ge=4, le=1024, description="Tiles of a slide from which its stains are estimated.")
    angle_percentile: float = Field(1.0, gt=0, lt=25, description="Robust extremes of the stains' angles (percent).")
    least_density: float = Field(0.15, gt=0, lt=1, description="Natural optical density below which a pixel is glass.")


class ReinhardSettings(Settings):
    """Mean and spread of each slide's tissue in the CIE L*a*b* space brought to reference values."""

    kind: Literal["reinhard"] = "reinhard"
    sampled_tiles: int = Field(64, ge=4, le=1024, description="Tiles of a slide from which its colours are estimated.")
    mean: tuple[float, float, float] = Field((66.0, 23.0, -16.0), description="Reference mean of L*, a* and b*.")
    spread: tuple[float, float, float] = Field(
        (14.0, 9.0, 7.0), description="Reference standard deviation of L*, a* and b*."
    )


class AugmentSettings(Settings):
    """Each tile's haematoxylin, eosin and residual made stronger or weaker at random, the same for the same tile and seed."""

    kind: Literal["augment"] = "augment"
    strength: float = Field(
        0.05, gt=0, le=0.5, description="Half the range of factors around 1, and of offsets around 0."
    )
    seed: int = Field(0, ge=0, description="Seed of the draws.")


StainSettings = Annotated[
    NoStainSettings | MacenkoSettings | ReinhardSettings | AugmentSettings, Field(discriminator="kind")
]
