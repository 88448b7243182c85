"""Artefacts told by colours that haematoxylin and eosin do not give: ink, blood and pigment."""

import numpy as np

from pathoml.artefacts.blocks import in_blocks
from pathoml.artefacts.density import Densities, glass_of, optical_densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, drop_small, opened, touching
from pathoml.units import BoolArray, RgbImage

_BLUR_UM, _STROKE_UM, _FRINGE_UM, _LEAST_INK_UM2 = 8.0, 16.0, 8.0, 5_000.0
_FOLLOWED_UM = 500.0
"""How far faint ink is followed beyond a block in which it is certain."""
_LEAST_BLOOD_UM2, _LARGEST_SPECK_UM = 600.0, 60.0


def find_ink(picture: RgbImage, mpp: float, settings: QualitySettings) -> BoolArray:
    """Find marker pen: black, blue, cyan, green, red, violet, orange and yellow ink.

    Ink is told by ratios of optical densities that H&E does not reach (red over green above 1, nearly none in red,
    nearly none in blue, nothing but blue) or by being dark without colour. From where that is certain it is followed to
    where it is faint. Pink ink cannot be told from dense eosin, nor brown ink from pigment.

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
    glass = glass_of(picture)

    def find(part: tuple[slice, slice]) -> BoolArray:
        densities = optical_densities(picture[part], glass, blur_px=max(0.5, _BLUR_UM / mpp))
        return _ink_in(densities, mpp, settings.ink_density)

    return in_blocks(picture.shape, _FOLLOWED_UM / mpp, find)


def _ink_in(densities: Densities, mpp: float, dense: float) -> BoolArray:
    red, green, blue = densities
    bluish = (red > dense) & (red > 1.1 * green)
    cyan = (red > 0.45 * dense) & (red > 1.8 * green)
    royal_blue = (red > dense) & (red > 0.85 * green) & (blue < 0.25 * red)
    yellow = (blue > dense) & (blue > 2.0 * green) & (red < 0.2 * blue)
    black = (red > 1.1 * dense) & (np.minimum(red, blue) > 0.8 * green) & (blue > 0.8 * red)
    crimson = (green > 1.5 * dense) & (blue > 0.75 * green) & (red < 0.25 * green)
    violet = (green > 1.7 * dense) & (blue < 0.42 * green)
    coloured = bluish | cyan | royal_blue | yellow | crimson | violet
    certain = opened(coloured | black, _STROKE_UM / mpp)
    if not certain.any():
        return certain
    faint_bluish = (red > 0.35 * dense) & (red > 1.05 * green)
    faint_crimson = (green > dense) & (blue > 0.7 * green) & (red < 0.35 * green)
    faint_violet = (green > 1.2 * dense) & (blue < 0.48 * green)
    faint_yellow = (blue > 0.4 * dense) & (blue > 1.7 * green) & (red < 0.22 * blue)
    faint = coloured | faint_bluish | black | faint_crimson | faint_violet | faint_yellow
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
    glass = glass_of(picture)

    def find(part: tuple[slice, slice]) -> BoolArray:
        red, green, blue = optical_densities(picture[part], glass, blur_px=max(0.5, 4.0 / mpp))
        blood = (blue > settings.blood_ratio * green) & (green > 0.35) & (red < 0.6 * green)
        pigment = (blue > 1.1 * green) & (blue > 0.35)
        return drop_small((blood | pigment) & tissue[part], _LEAST_BLOOD_UM2 / mpp**2)

    return in_blocks(picture.shape, _LARGEST_SPECK_UM / mpp, find)
