"""Artefacts told by colours that haematoxylin and eosin do not give: ink, blood and pigment."""

import numpy as np

from pathoml.artefacts.density import optical_densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, drop_small, opened, touching
from pathoml.units import BoolArray, RgbImage

_BLUR_UM, _STROKE_UM, _FRINGE_UM, _LEAST_INK_UM2 = 8.0, 20.0, 8.0, 5_000.0
_LEAST_BLOOD_UM2 = 600.0


def find_ink(picture: RgbImage, mpp: float, settings: QualitySettings) -> BoolArray:
    """Find marker pen: black, blue, green, red and violet ink.

    Ink is told by ratios of optical densities that H&E does not reach (red over green above 1, nearly none in red,
    nearly none in blue) or by being dark without colour. From where that is certain it is followed to where it is faint.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The whole slide, RGB.
    mpp : float
        Its microns per pixel.
    settings : QualitySettings
        Density of ink.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on ink and 8 um around it.
    """
    red, green, blue = optical_densities(picture, blur_px=max(0.5, _BLUR_UM / mpp))
    dense = settings.ink_density
    bluish = (red > dense) & (red > 1.1 * green)
    black = (red > 1.1 * dense) & (np.minimum(red, blue) > 0.8 * green) & (blue > 0.8 * red)
    crimson = (green > 1.5 * dense) & (blue > 0.75 * green) & (red < 0.25 * green)
    violet = (green > 1.7 * dense) & (blue < 0.42 * green)
    certain = opened(bluish | black | crimson | violet, _STROKE_UM / mpp)
    if not certain.any():
        return certain
    faint_bluish = (red > 0.35 * dense) & (red > 1.05 * green)
    faint_crimson = (green > dense) & (blue > 0.7 * green) & (red < 0.35 * green)
    faint_violet = (green > 1.2 * dense) & (blue < 0.48 * green)
    faint = certain | faint_bluish | black | faint_crimson | faint_violet
    return dilate(drop_small(touching(faint, certain), _LEAST_INK_UM2 / mpp**2), _FRINGE_UM / mpp)


def find_blood_or_pigment(
    picture: RgbImage, tissue: BoolArray, mpp: float, settings: QualitySettings
) -> BoolArray:  # fmt: skip
    """Find blood and brown or black pigment: tissue that takes nearly as much blue as green light, or more.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The whole slide, RGB.
    tissue : ndarray of bool, shape (rows, columns)
        Where the tissue is.
    mpp : float
        Its microns per pixel.
    settings : QualitySettings
        The ratio.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on blood or pigment.
    """
    red, green, blue = optical_densities(picture, blur_px=max(0.5, 4.0 / mpp))
    blood = (blue > settings.blood_ratio * green) & (green > 0.35) & (red < 0.6 * green)
    pigment = (blue > 1.1 * green) & (blue > 0.35)
    return drop_small((blood | pigment) & tissue, _LEAST_BLOOD_UM2 / mpp**2)
