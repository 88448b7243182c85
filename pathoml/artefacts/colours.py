"""Artefacts told by colours that haematoxylin and eosin do not give: ink, blood and pigment."""

import numpy as np

from pathoml.artefacts.blocks import in_blocks
from pathoml.artefacts.density import Absorption, Densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, drop_small, opened, touching
from pathoml.units import BoolArray

_BLUR_UM, _STROKE_UM, _FRINGE_UM, _LEAST_INK_UM2 = 8.0, 16.0, 8.0, 5_000.0
_FOLLOWED_UM = 500.0
"""How far faint ink is followed beyond a block in which it is certain."""
_VIOLET, _FAINTER, _STAINED, _BELOW_TISSUE = 0.42, 1.14, 0.2, 0.7
"""Blue over green density below which ink is violet, by how much that is eased where ink is faint, and what bounds it: a share
of the same ratio of what is stained, which takes more green light than that."""
_BLOOD_BLUR_UM, _LEAST_BLOOD_UM2, _LARGEST_SPECK_UM = 4.0, 600.0, 60.0


def find_ink(slide: Absorption, settings: QualitySettings) -> BoolArray:
    """Find marker pen: black, blue, cyan, green, red, violet, orange and yellow ink.

    Ink is told by ratios of optical densities that H&E does not reach (red over green above 1, nearly none in red,
    nearly none in blue, nothing but blue) or by being dark without colour. From where that is certain it is followed to
    where it is faint. Pink ink cannot be told from dense eosin, nor brown ink from pigment.

    Parameters
    ----------
    slide : Absorption
        Of the whole slide.
    settings : QualitySettings
        Density of ink.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on ink and 8 um around it.
    """
    violet = _violet_limit(slide.sample)

    def find(part: tuple[slice, slice]) -> BoolArray:
        return _ink_in(slide.of(part, blur_um=_BLUR_UM), slide.mpp, settings.ink_density, violet)

    return in_blocks(slide.shape, _FOLLOWED_UM / slide.mpp, find)


def _violet_limit(sample: Densities) -> float:
    """Return the blue over green density below which what is dense is violet ink."""
    _, green, blue = sample
    stained = green > _STAINED
    if not stained.any():
        return _VIOLET
    # The upper quartile: a slide may be half covered by such ink.
    return min(_VIOLET, _BELOW_TISSUE * float(np.percentile(blue[stained] / green[stained], 75)))


def _ink_in(densities: Densities, mpp: float, dense: float, violet_limit: float) -> BoolArray:
    red, green, blue = densities
    bluish = (red > dense) & (red > 1.1 * green)
    cyan = (red > 0.45 * dense) & (red > 1.8 * green)
    royal_blue = (red > dense) & (red > 0.85 * green) & (blue < 0.25 * red)
    yellow = (blue > dense) & (blue > 2.0 * green) & (red < 0.2 * blue)
    black = (red > 1.1 * dense) & (np.minimum(red, blue) > 0.8 * green) & (blue > 0.8 * red)
    crimson = (green > 1.5 * dense) & (blue > 0.75 * green) & (red < 0.25 * green)
    violet = (green > 1.7 * dense) & (blue < violet_limit * green)
    coloured = bluish | cyan | royal_blue | yellow | crimson | violet
    certain = opened(coloured | black, _STROKE_UM / mpp)
    if not certain.any():
        return certain
    faint_bluish = (red > 0.35 * dense) & (red > 1.05 * green)
    faint_crimson = (green > dense) & (blue > 0.7 * green) & (red < 0.35 * green)
    faint_violet = (green > 1.2 * dense) & (blue < _FAINTER * violet_limit * green)
    faint_yellow = (blue > 0.4 * dense) & (blue > 1.7 * green) & (red < 0.22 * blue)
    faint = coloured | faint_bluish | black | faint_crimson | faint_violet | faint_yellow
    return dilate(drop_small(touching(faint, certain), _LEAST_INK_UM2 / mpp**2), _FRINGE_UM / mpp)


def find_blood_or_pigment(slide: Absorption, tissue: BoolArray, settings: QualitySettings) -> BoolArray:
    """Find blood and brown or black pigment: tissue that takes nearly as much blue as green light, or more.

    Parameters
    ----------
    slide : Absorption
        Of the whole slide.
    tissue : ndarray of bool, shape (rows, columns)
        Where the tissue is.
    settings : QualitySettings
        The ratio.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on blood or pigment.
    """

    def find(part: tuple[slice, slice]) -> BoolArray:
        if not tissue[part].any():
            return tissue[part]
        red, green, blue = slide.of(part, blur_um=_BLOOD_BLUR_UM)
        blood = (blue > settings.blood_ratio * green) & (green > 0.35) & (red < 0.6 * green)
        pigment = (blue > 1.1 * green) & (blue > 0.35)
        return drop_small((blood | pigment) & tissue[part], _LEAST_BLOOD_UM2 / slide.mpp**2)

    return in_blocks(slide.shape, _LARGEST_SPECK_UM / slide.mpp, find)
