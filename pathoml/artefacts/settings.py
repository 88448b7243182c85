"""Which artefacts there are, how strictly they are looked for, and which are dropped."""

from enum import IntFlag
from typing import Literal

from pydantic import Field

from pathoml.settings import Settings

ArtefactName = Literal["pen", "fold", "bubble", "blood_or_pigment", "out_of_focus"]


class TileFlag(IntFlag):
    """What is notable about a tile; stored per tile in the bag."""

    NONE = 0
    PEN = 1
    OUT_OF_FOCUS = 2
    OVERHANG = 4
    ABSENT_PART = 8
    FOLD = 16
    BUBBLE = 32
    BLOOD_OR_PIGMENT = 64


MAPPED_ARTEFACTS = (TileFlag.PEN, TileFlag.FOLD, TileFlag.BUBBLE, TileFlag.BLOOD_OR_PIGMENT)
"""Those that are found in the picture of the whole slide; focus is judged tile by tile."""


def flag_name(flag: TileFlag) -> str:
    """Return what configuration and tables call a flag.

    Parameters
    ----------
    flag : TileFlag
        One flag.

    Returns
    -------
    str
        For example ``out_of_focus``.
    """
    return (flag.name or "").lower()


class QualitySettings(Settings):
    """Which artefacts are looked for, how strictly, and which are dropped."""

    drop: tuple[ArtefactName, ...] = Field(
        ("pen",),
        description="Artefacts that are cut out: pen, fold, bubble, blood_or_pigment, out_of_focus. The others are flagged in "
        "the bag and counted, and their tiles stay.",
    )
    flag_share: float = Field(
        0.1, ge=0, lt=1, description="A tile is flagged for an artefact that covers more than this share of it."
    )
    ink_density: float = Field(
        0.45,
        gt=0,
        le=3,
        description="Optical density above which colours foreign to H&E, or darkness without colour, are ink.",
    )
    fold_ratio: float = Field(
        2.3,
        gt=1,
        le=5,
        description="How many times as dense as the tissue on both its sides a fold is, in every colour.",
    )
    blood_ratio: float = Field(
        0.85, gt=0.5, le=2, description="Blue over green optical density above which tissue is blood or pigment."
    )
    bubble_rim: float = Field(
        0.075, gt=0, le=1, description="Mean optical density that the rim of a bubble adds to what lies under it."
    )
    min_sharpness: float = Field(
        0.11,
        ge=0,
        le=1,
        description="Least fine over coarse detail (1.5 and 8 um) of a part of a tile that is in focus.",
    )
    min_sharp_share: float = Field(
        0.7, ge=0, le=1, description="Tiles of which a smaller share is in focus are out of focus."
    )

    def drops(self, flag: TileFlag) -> bool:
        """Say whether an artefact is cut out.

        Parameters
        ----------
        flag : TileFlag
            The artefact.

        Returns
        -------
        bool
            True if `drop` names it.
        """
        return flag_name(flag) in self.drop
