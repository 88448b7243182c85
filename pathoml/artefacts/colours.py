"""Artefacts told by colours that haematoxylin and eosin do not give: ink, blood and pigment."""

from typing import NamedTuple

import numpy as np

from pathoml.artefacts.blocks import in_blocks
from pathoml.artefacts.density import Absorption, Densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, drop_small, opened, touching
from pathoml.units import BoolArray

_BLUR_UM, _STROKE_UM, _FRINGE_UM, _LEAST_INK_UM2 = 8.0, 16.0, 8.0, 5_000.0
_FOLLOWED_UM = 500.0
"""How far faint ink is followed beyond a block in which it is certain."""
_VIOLET, _FAINTER, _STAINED, _BELOW_TISSUE, _DENSER_THAN_TISSUE = 0.42, 1.14, 0.1, 0.7, 3.4
"""Blue over green density below which ink may be violet; by how much limits are eased where ink is faint; the green density
from which something is stained; and what sets ink apart from tissue that is as violet: a share of the ratio that is usual in
what is stained, or a multiple of the green density that is."""
_BLOOD_BLUR_UM, _LEAST_BLOOD_UM2, _LARGEST_SPECK_UM = 4.0, 600.0, 60.0


def find_ink(slide: Absorption, settings: QualitySettings) -> BoolArray:
    """Find marker pen: black, blue, cyan, green, red, violet, orange and yellow ink.

    Ink is told by ratios of optical densities that H&E does not reach (red over green above 1, nearly none in red,
    nearly none in blue, nothing but blue) or by being dark without colour. From where that is certain it is followed to
    where it is faint. Pink ink cannot be told from dense eosin, brown ink from pigment, nor red ink from thick clotted blood
    (a green density above 0.85).

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
    violet = _violet_of(slide.sample, settings.ink_density)

    def find(part: tuple[slice, slice]) -> BoolArray:
        return _ink_in(slide.of(part, blur_um=_BLUR_UM), slide.mpp, settings.ink_density, violet)

    return in_blocks(slide.shape, _FOLLOWED_UM / slide.mpp, find)


class _Violet(NamedTuple):
    """What sets violet ink apart from the tissue of one slide: either is enough."""

    ratio: float
    """Blue over green density below it."""
    density: float
    """Green density above it."""

    def of(self, green: Densities, blue: Densities, *, eased: float = 1.0) -> BoolArray:
        """Return which pixels are violet, and not as the tissue is."""
        apart = (blue < eased * self.ratio * green) | (green > self.density / eased)
        return (blue < eased * _VIOLET * green) & apart


def _violet_of(sample: Densities, dense: float) -> _Violet:
    _, green, blue = sample
    # Without what may be ink, which covers half of some slides.
    tissue = (green > _STAINED) & ~((green > 1.7 * dense) & (blue < _VIOLET * green))
    if not tissue.any():
        return _Violet(ratio=_VIOLET, density=np.inf)
    usual_ratio = float(np.percentile(blue[tissue] / green[tissue], 75))
    return _Violet(_BELOW_TISSUE * usual_ratio, _DENSER_THAN_TISSUE * float(np.median(green[tissue])))


def _ink_in(densities: Densities, mpp: float, dense: float, violet_here: _Violet) -> BoolArray:
    red, green, blue = densities
    much_red = red > dense
    bluish = much_red & (red > 1.1 * green)
    cyan = (red > 0.45 * dense) & (red > 1.8 * green)
    royal_blue = much_red & (red > 0.85 * green) & (blue < 0.25 * red)
    yellow = (blue > dense) & (blue > 2.0 * green) & (red < 0.2 * blue)
    black = (red > 1.1 * dense) & (np.minimum(red, blue) > 0.8 * green) & (blue > 0.8 * red)
    crimson = (green > 1.9 * dense) & (blue > 0.75 * green) & (red < 0.25 * green)
    violet = (green > 1.7 * dense) & violet_here.of(green, blue)
    coloured = bluish | cyan | royal_blue | yellow | crimson | violet
    certain: BoolArray = coloured | black
    if not certain.any():
        return certain
    certain = opened(certain, _STROKE_UM / mpp)
    if not certain.any():
        return certain
    faint_bluish = (red > 0.35 * dense) & (red > 1.05 * green)
    faint_crimson = (green > dense) & (blue > 0.7 * green) & (red < 0.35 * green)
    faint_violet = (green > 1.2 * dense) & violet_here.of(green, blue, eased=_FAINTER)
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
