"""Where the tissue is: a low-resolution picture of the slide -> tissue mask."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import BeforeValidator, Field

from pathoml.artefacts import TileFlag
from pathoml.morphology import closed, drop_small, fill_holes, opened, touching
from pathoml.settings import NOT_IN_HASH, ConfigPath, Settings
from pathoml.units import BoolArray, RgbImage

_MOST_TINT, _LEAST_GLASS = 1.3, 0.1
"""Glass never takes more than the one of one colour against another, what does is stained; with less of a slide than the other
it is full of tissue."""
_SMOOTH_UM, _FRAYED = 16.0, 0.7
"""Gaps of twice that width are closed; tissue is followed from where it is certain down to this share of the threshold."""


IGNORED_CLASSES = ("tile", "pen (kept)", "fold (kept)", "bubble (kept)", "blood or pigment (kept)")
"""Regions that pathoml writes to be looked at: tiles, and artefacts that were not cut out of the tissue."""


class ClassicalTissueSettings(Settings):
    """Tissue is what is coloured: no model, the same on every machine."""

    kind: Literal["classical"] = "classical"
    mask_mpp: float = Field(8.0, ge=1, le=64, description="Microns per pixel of the mask.")
    min_saturation: float = Field(
        0.05, gt=0, lt=1, description="Lowest colour saturation of tissue (0-1), whatever the automatic threshold says."
    )
    min_area_um2: float = Field(20_000, ge=0, description="Smaller pieces of tissue are dropped (square micrometres).")
    max_hole_um2: float = Field(10_000, ge=0, description="Smaller holes in tissue are filled (square micrometres).")


class GeojsonTissueSettings(Settings):
    """Tissue is what a person outlined, for example in QuPath: one file a slide, in level-0 pixels."""

    kind: Literal["geojson"] = "geojson"
    mask_mpp: float = Field(4.0, ge=1, le=64, description="Microns per pixel at which the outlines are filled.")
    folder: ConfigPath = Field(
        description="Folder with <slide_id>.geojson for every slide; their content enters each bag's record.",
        json_schema_extra=NOT_IN_HASH,
    )
    include: tuple[str, ...] = Field(
        (), description="Classes (or names) of regions that are taken; none given: all that are not excluded."
    )
    exclude: tuple[str, ...] = Field(
        ("exclude", "ignore", "ignore*", "artifact", "artefact", "pen", "fold", "bubble", "blood or pigment"),
        description="Classes (or names) of regions that are taken away.",
    )
    ignore: tuple[str, ...] = Field(
        IGNORED_CLASSES,
        description="Classes (or names) of regions that are neither: what `pathoml slide regions` writes beside the tissue.",
    )


class ModelTissueSettings(Settings):
    """Tissue is what a segmentation network says, with weights from a local file."""

    kind: Literal["model"] = "model"
    mask_mpp: float = Field(8.0, ge=1, le=64, description="Microns per pixel of the mask that is kept.")
    architecture: Literal[
        "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"
    ] = Field("deeplabv3_resnet50", description="torchvision's segmentation network.")
    weights: ConfigPath = Field(
        description="State dict: .safetensors, or .pth read without unpickling code.", json_schema_extra=NOT_IN_HASH
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of that file.")
    classes: tuple[str, ...] = Field(
        ("background", "tissue"), min_length=2, description="Names of the network's classes in its order."
    )
    tissue_classes: tuple[str, ...] = Field(("tissue",), min_length=1, description="Those that are tissue.")
    mpp: float = Field(1.0, ge=0.25, le=32, description="Microns per pixel that the network was trained at.")
    window_px: int = Field(512, ge=64, le=4096, description="Side of the windows that it is given.")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="Mean of each colour in its training.")
    std: tuple[float, float, float] = Field((0.229, 0.224, 0.225), description="Standard deviation of each colour.")


def _classical_by_default(value: Any) -> Any:
    return {"kind": "classical", **value} if isinstance(value, dict) and "kind" not in value else value


TissueSettings = Annotated[
    ClassicalTissueSettings | GeojsonTissueSettings | ModelTissueSettings,
    Field(discriminator="kind"),
]
TissueSettingsField = Annotated[TissueSettings, BeforeValidator(_classical_by_default)]
"""`TissueSettings`, with ``kind: classical`` where none is said."""


@dataclass(frozen=True)
class TissueMask:
    """Tissue and artefacts over a whole slide.

    Parameters
    ----------
    tissue : ndarray of bool, shape (rows, columns)
        True where there is tissue; artefacts that are dropped are cut out.
    artefacts : mapping of TileFlag to ndarray of bool, shape (rows, columns)
        True where each artefact was found, dropped or not.
    cut : mapping of TileFlag to ndarray of bool, shape (rows, columns)
        What of the tissue was cut out for each artefact that is dropped.
    """

    tissue: BoolArray
    artefacts: Mapping[TileFlag, BoolArray] = field(default_factory=dict)
    cut: Mapping[TileFlag, BoolArray] = field(default_factory=dict)

    def of(self, artefact: TileFlag) -> BoolArray:
        """Return where an artefact is.

        Parameters
        ----------
        artefact : TileFlag
            Which.

        Returns
        -------
        ndarray of bool, shape (rows, columns)
            All False if it was not looked for.
        """
        return self.artefacts.get(artefact, np.zeros_like(self.tissue))


def find_tissue(
    picture: RgbImage, mpp: float, settings: ClassicalTissueSettings, *, hidden: BoolArray | None = None
) -> BoolArray:
    """Find the tissue in a picture of a whole slide.

    Tissue is what is more saturated than Otsu's threshold (and than `min_saturation`), since glass is grey and
    haematoxylin and eosin are not. On a slide with hardly any glass all that is more saturated than `min_saturation` is tissue.
    From there it is followed to where it frays out: pale or torn parts that touch it, and strands too narrow to be tissue
    by themselves.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB.
    mpp : float
        Its microns per pixel.
    settings : ClassicalTissueSettings
        Thresholds.
    hidden : ndarray of bool, shape (rows, columns), optional
        Under marker pen, or damaged: takes no part in the threshold; what lies there cannot be told, and counts as tissue.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on tissue.

    References
    ----------
    Otsu N. A threshold selection method from gray-level histograms. IEEE Trans. Syst. Man Cybern. 9 (1979) 62-66.
    """
    hidden = np.zeros(picture.shape[:2], dtype=bool) if hidden is None else hidden
    blurred = cv2.GaussianBlur(_on_white_glass(picture), (0, 0), sigmaX=max(0.5, 8.0 / mpp))
    saturation = np.asarray(cv2.extractChannel(cv2.cvtColor(blurred, cv2.COLOR_RGB2HSV), 1), dtype=np.uint8)
    least = settings.min_saturation * 255
    shown = ~hidden
    threshold = _threshold(saturation[shown] if hidden.any() else saturation.ravel(), least)
    pale = (saturation > max(least, _FRAYED * threshold)) & shown
    seen = closed(touching(pale, (saturation > threshold) & shown), _SMOOTH_UM / mpp)
    # A strand counts with the piece it hangs on, and not by itself: dust and fibres on glass are as narrow.
    solid = drop_small(opened(seen, _SMOOTH_UM / mpp), settings.min_area_um2 / mpp**2)
    return fill_holes(touching(seen, solid), settings.max_hole_um2 / mpp**2) | hidden


def _on_white_glass(picture: RgbImage) -> RgbImage:
    """Bring the colour of the brightest part, which is glass or the gaps in tissue, to neutral: yellowed glass is no tissue."""
    sample = picture[::2, ::2]
    red, green, blue = cv2.split(sample)
    bright = red.astype(np.uint16) + green + blue
    # As numpy's percentile would part them, but from counts: sorting takes several times as long.
    upto = np.cumsum(np.bincount(bright.ravel(), minlength=1))
    place = np.ceil(round(0.98 * (int(upto[-1]) - 1), 6))
    glass = np.median(sample[bright >= np.searchsorted(upto, place, side="right")], axis=0)
    factors = np.clip(glass.max() / np.maximum(glass, 1), 1, _MOST_TINT)
    steps = np.arange(256)[:, None] * factors
    table = np.clip(np.rint(steps), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, table[None]), dtype=np.uint8)


def _threshold(values: RgbImage, least: float) -> float:
    """Return the saturation (0-255) that parts glass from tissue."""
    if values.size == 0:
        return 255.0
    if np.count_nonzero(values < least) < _LEAST_GLASS * values.size:
        return least
    threshold, _ = cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # Otsu splits tissue from tissue where a slide is nearly full of it; glass is never above 0.15.
    return max(min(float(threshold), 0.15 * 255), least)
