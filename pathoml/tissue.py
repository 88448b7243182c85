"""Where the tissue is: a low-resolution picture of the slide -> tissue mask and pen mask."""

from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import Field

from pathoml.settings import Settings
from pathoml.units import BoolArray, RgbImage


class TissueSettings(Settings):
    """How tissue is told from background and pen."""

    mask_mpp: float = Field(8.0, ge=1, le=64, description="Microns per pixel of the mask.")
    min_saturation: float = Field(
        0.05, gt=0, lt=1, description="Lowest colour saturation of tissue (0-1), whatever the automatic threshold says."
    )
    min_area_um2: float = Field(20_000, ge=0, description="Smaller pieces of tissue are dropped (square micrometres).")
    max_hole_um2: float = Field(10_000, ge=0, description="Smaller holes in tissue are filled (square micrometres).")
    drop_pen: bool = Field(
        default=True, description="Whether blue, green and black pen marks are cut out of the tissue."
    )


@dataclass(frozen=True)
class TissueMask:
    """Tissue and pen over a whole slide.

    Parameters
    ----------
    tissue : ndarray of bool, shape (rows, columns)
        True where there is tissue.
    pen : ndarray of bool, shape (rows, columns)
        True where there is pen ink.
    """

    tissue: BoolArray
    pen: BoolArray


def find_tissue(picture: RgbImage, mpp: float, settings: TissueSettings) -> TissueMask:
    """Find the tissue in a picture of a whole slide.

    Tissue is what is more saturated than Otsu's threshold (and than `min_saturation`), since glass is grey and
    haematoxylin and eosin are not. Pen ink is told by its hue (green, cyan, pure blue) or, for black ink, by being
    dark without colour.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB.
    mpp : float
        Its microns per pixel.
    settings : TissueSettings
        Thresholds.

    Returns
    -------
    TissueMask
        Same rows and columns as the picture.

    References
    ----------
    Otsu N. A threshold selection method from gray-level histograms. IEEE Trans. Syst. Man Cybern. 9 (1979) 62-66.
    """
    blurred = cv2.GaussianBlur(picture, (0, 0), sigmaX=max(0.5, 8.0 / mpp))
    hsv = np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    pen = _pen_mask(hsv, mpp) if settings.drop_pen else np.zeros(picture.shape[:2], dtype=bool)
    saturation = hsv[..., 1]
    threshold = max(_otsu(saturation[~pen]), settings.min_saturation * 255)
    tissue = (saturation > threshold) & ~pen
    tissue = _smooth(tissue, radius_px=max(1, round(16 / mpp)))
    tissue = _fill_holes(tissue, settings.max_hole_um2 / mpp**2)
    tissue = _drop_small(tissue, settings.min_area_um2 / mpp**2)
    return TissueMask(tissue & ~pen, pen)


def _pen_mask(hsv: RgbImage, mpp: float) -> BoolArray:
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    # OpenCV hues are half degrees: 35-118 is green to pure blue; haematoxylin starts near 120, eosin near 160.
    coloured = (hue >= 35) & (hue <= 118) & (saturation >= 90)
    black = (value <= 80) & (saturation <= 90)
    ink = _drop_small(coloured | black, 5_000 / mpp**2)
    return _dilate(ink, max(1, round(24 / mpp))) if ink.any() else ink


def _otsu(values: RgbImage) -> float:
    if values.size == 0:
        return 255.0
    threshold, _ = cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # Otsu splits tissue from tissue where a slide is nearly full of it; glass is never above 0.15.
    return min(float(threshold), 0.15 * 255)


def _disc(radius_px: int) -> RgbImage:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1)))


def _dilate(mask: BoolArray, radius_px: int) -> BoolArray:
    return cv2.dilate(mask.astype(np.uint8), _disc(radius_px)) > 0


def _smooth(mask: BoolArray, radius_px: int) -> BoolArray:
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, _disc(radius_px))
    return cv2.morphologyEx(closed, cv2.MORPH_OPEN, _disc(radius_px)) > 0


def _drop_small(mask: BoolArray, min_area_px: float) -> BoolArray:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = statistics[:, cv2.CC_STAT_AREA] >= min_area_px
    keep[0] = False
    kept: BoolArray = keep[labels]
    return kept


def _fill_holes(mask: BoolArray, max_area_px: float) -> BoolArray:
    holes = ~mask
    large = _drop_small(holes, max_area_px) if max_area_px > 0 else holes
    return ~large
