"""Folds: narrow bands where the tissue lies double or triple."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts.blocks import in_blocks
from pathoml.artefacts.density import SAMPLED, Absorption, Densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, disc, drop_short, drop_small, opened, touching
from pathoml.units import BoolArray, FloatArray, IntArray

_BLUR_UM, _GRADIENT_UM, _AROUND_UM = 6.0, 10.0, 40.0
_DENSE = 1.2
"""Times the slide's median density from which a pixel is looked at."""
_LIKELY, _MANY = 0.5, 30_000
"""Share of `fold_ratio` that a pixel has to reach against the denser of two places beside it to be looked at closely."""
_SURROUNDINGS_UM, _ABOVE = 260.0, 1.2
"""The same against the mean around it, which a fold that counts exceeds by more; it saves looking at most pixels."""
_MIDDLE_UM, _ALONG_UM = (-8.0, 0.0, 8.0), (-50.0, -25.0, 0.0, 25.0, 50.0)
_FLANKS_UM, _FLANKS_ALONG_UM, _FLANK_BLUR_UM = (52.0, 68.0, 84.0), (-40.0, 0.0, 40.0), 10.0
_LEAST_FLANK, _CONTINUOUS, _MOST_CHROMA, _FAINT = 0.7, 1.15, 1.25, 0.65
_HALF_WIDTH_UM, _LEAST_LENGTH_UM = 44.0, 80.0
_PINK_RATIO, _PINK_CHROMA, _PINK_RED = 1.7, 1.05, 1.2
_WIDEST_UM, _LEAST_PINK_LENGTH_UM, _LEAST_PINK_UM2 = 50.0, 120.0, 800.0
_REACH_UM = 400.0
"""How far around a block is looked at: beyond surroundings and flanks, and along a fold."""


class _Usual(NamedTuple):
    """What is usual in the tissue of a slide."""

    density: FloatArray  # median optical density in red, green and blue
    chroma: float  # median of red over green density


def find_folds(slide: Absorption, tissue: BoolArray, settings: QualitySettings) -> BoolArray:
    """Find folds.

    A fold is denser than the tissue on both its sides by about the same factor in red, green and blue, since it is the
    same tissue twice or three times; nuclei-rich tissue is denser in red light above all, and is seldom a narrow band
    with tissue of ordinary density left and right. Where that is certain, it is followed to where it is faint. Beside
    that, narrow bands count that are much denser than the slide's tissue and not bluer: nuclei make tissue bluer.

    Parameters
    ----------
    slide : Absorption
        Of the whole slide.
    tissue : ndarray of bool, shape (rows, columns)
        Where the tissue is.
    settings : QualitySettings
        The factor.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on folds.

    References
    ----------
    That folds stand out by their density was used by Bautista PA, Yagi Y. Detection of tissue folds in whole slide
    images. EMBC (2009) 3669-3672; the comparison with both flanks is pathoml's own.
    """
    nothing = np.zeros_like(tissue)
    if not tissue.any():
        return nothing
    usual = _usual(slide.sample, tissue[::SAMPLED, ::SAMPLED])

    def find(part: tuple[slice, slice]) -> BoolArray:
        if not tissue[part].any():
            return nothing[part]
        return _folds_in(slide.of(part, blur_um=_BLUR_UM), tissue[part], usual, slide.mpp, settings)

    return in_blocks(slide.shape, _REACH_UM / slide.mpp, find)


def _usual(densities: Densities, tissue: BoolArray) -> _Usual:
    if not tissue.any():
        return _Usual(np.full(3, 0.02), 1.0)
    red, green, _ = densities
    return _Usual(
        np.array([max(float(np.median(channel[tissue])), 0.02) for channel in densities]),
        float(np.median(red[tissue] / np.maximum(green[tissue], 0.05))),
    )


def _folds_in(
    densities: Densities, tissue: BoolArray, usual: _Usual, mpp: float, settings: QualitySettings
) -> BoolArray:  # fmt: skip
    dense = tissue.copy()
    for channel, middle in zip(densities, usual.density, strict=True):
        dense &= channel > _DENSE * middle
    pink = _dense_but_not_bluer(densities, usual, tissue, mpp)
    rows, columns = np.nonzero(dense & _above_surroundings(densities[1], tissue, mpp))
    if len(rows) > _MANY:
        # Every second pixel, as on a chessboard, is enough: those of a fold still touch at their corners.
        white = (rows + columns) % 2 == 0
        rows, columns = rows[white], columns[white]
    if len(rows) == 0:
        return pink
    around = _Surroundings(densities, mpp)
    likely = around.quick_ratio((rows, columns)) > _LIKELY * settings.fold_ratio
    rows, columns = rows[likely], columns[likely]
    if len(rows) == 0:
        return pink
    ratio = np.zeros(tissue.shape)
    ratio[rows, columns] = around.ratio_to_flanks(usual.density, (rows, columns))
    certain = ratio > settings.fold_ratio
    band = touching(ratio > _FAINT * settings.fold_ratio, certain)
    found: BoolArray = dilate(drop_short(band, _LEAST_LENGTH_UM / mpp), _HALF_WIDTH_UM / mpp) & dense
    return found | pink


def _dense_but_not_bluer(densities: Densities, usual: _Usual, tissue: BoolArray, mpp: float) -> BoolArray:
    """Return narrow bands of much more density than usual whose share of red light taken is not above the usual."""
    red, green, blue = densities
    dense = np.minimum(green / usual.density[1], blue / usual.density[2]) > _PINK_RATIO
    pink = dense & (red > _PINK_RED * usual.density[0]) & (red < _PINK_CHROMA * usual.chroma * green) & tissue
    pink = cv2.morphologyEx(pink.astype(np.uint8), cv2.MORPH_CLOSE, disc(1)) > 0
    narrow = pink & ~opened(pink, _WIDEST_UM / mpp)
    return drop_small(drop_short(narrow, _LEAST_PINK_LENGTH_UM / mpp), _LEAST_PINK_UM2 / mpp**2)


def _above_surroundings(density: NDArray[np.float32], tissue: BoolArray, mpp: float) -> BoolArray:
    side = (max(3, round(_SURROUNDINGS_UM / mpp)),) * 2
    weight = tissue.astype(np.float32)
    mean = cv2.blur(density * weight, side) / np.maximum(cv2.blur(weight, side), 1e-3)
    return np.asarray(density > _ABOVE * mean)


class _Surroundings:
    """Densities beside pixels, across the band that each may lie in."""

    def __init__(self, densities: Densities, mpp: float) -> None:
        self._mpp = mpp
        self._change = _changes(densities[1], mpp)
        self._fine: Densities = np.ascontiguousarray(np.moveaxis(densities, 0, -1))
        # Flanks are means over a width, which is taken once for all pixels.
        wide = cv2.GaussianBlur(self._fine, (0, 0), _FLANK_BLUR_UM / mpp)
        self._wide: Densities = np.asarray(wide, dtype=np.float32)

    def quick_ratio(self, at: tuple[IntArray, IntArray]) -> FloatArray:
        """Return by how many times each pixel is denser than the denser of two places beside it, in the least colour."""
        profile = self._profile(self._wide, at, smooth=True)
        sides = [profile.mean((way * _FLANKS_UM[-1],), (0.0,)) for way in (-1, 1)]
        shown = [profile.shown(way * _FLANKS_UM[-1]) for way in (-1, 1)]
        left, right = np.where(shown[0], sides[0], sides[1]), np.where(shown[1], sides[1], sides[0])
        return np.asarray((self._fine[at].T / np.maximum(np.maximum(left, right), 0.04)).min(axis=0), dtype=np.float64)

    def ratio_to_flanks(self, usual: FloatArray, at: tuple[IntArray, IntArray]) -> FloatArray:
        """Return by how many times each pixel is denser than both sides, in the colour where it is least; 0 if no fold."""
        fine, wide = self._profile(self._fine, at), self._profile(self._wide, at, smooth=True)
        middle = [fine.mean(_MIDDLE_UM, (along,)) for along in _ALONG_UM]
        centre, least = np.mean(middle, axis=0), np.min(middle, axis=0)
        best = np.zeros(len(at[0]))
        for flank_um in _FLANKS_UM:
            left, right = wide.mean((-flank_um,), _FLANKS_ALONG_UM), wide.mean((flank_um,), _FLANKS_ALONG_UM)
            # Where the picture ends beside a fold, the side that can be seen has to do.
            shown_left, shown_right = wide.shown(-flank_um), wide.shown(flank_um)
            left, right = np.where(shown_left, left, right), np.where(shown_right, right, left)
            flank = np.maximum(np.maximum(left, right), 0.04)
            ratios = centre / flank
            same_colour = ratios[0] < _MOST_CHROMA * np.maximum(ratios[1], 0.1)
            tissue_beside = np.minimum(left, right)[1] > _LEAST_FLANK * usual[1]
            continuous = least[1] > _CONTINUOUS * flank[1]
            best = np.maximum(best, ratios.min(axis=0) * (same_colour & tissue_beside & continuous))
        return best

    def _profile(
        self, densities: NDArray[np.float32], at: tuple[IntArray, IntArray], *, smooth: bool = False
    ) -> "_Profile":
        xx, yy, xy = (product[at] for product in self._change)
        normal = 0.5 * np.arctan2(2 * xy, xx - yy)  # the direction in which density changes most
        return _Profile(densities, at, (np.cos(normal), np.sin(normal)), self._mpp, smooth=smooth)


def _changes(density: NDArray[np.float32], mpp: float) -> tuple[NDArray[np.float32], ...]:
    """Return the structure tensor around each pixel: mean products xx, yy, xy of the changes of density in x and y."""
    blurred = cv2.GaussianBlur(density, (0, 0), _GRADIENT_UM / mpp)
    x, y = cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    side = (max(3, round(_AROUND_UM * np.sqrt(12) / mpp)),) * 2  # a box as wide as a Gaussian of that deviation
    return tuple(np.asarray(cv2.blur(product, side), dtype=np.float32) for product in (x * x, y * y, x * y))


class _Profile:
    """Densities (rows, columns, 3) along lines across pixels: offsets run across the band, and along it.

    Of smooth densities the nearest pixel is taken, which is several times as fast as interpolating between four.
    """

    def __init__(
        self,
        densities: NDArray[np.float32],
        at: tuple[IntArray, IntArray],
        normal: tuple[FloatArray, FloatArray],
        mpp: float,
        *,
        smooth: bool,
    ) -> None:
        self._densities, self._mpp, self._smooth = densities, mpp, smooth
        self._rows, self._columns = at
        self._x, self._y = normal

    def mean(self, across_um: tuple[float, ...], along_um: tuple[float, ...]) -> FloatArray:
        """Return the mean over all pairs of offsets, shape (3, pixels)."""
        offsets = [(across, along) for across in across_um for along in along_um]
        total = self._at(*offsets[0])
        for one in offsets[1:]:
            total += self._at(*one)
        return np.asarray(total.T / len(offsets), dtype=np.float64)

    def shown(self, across_um: float) -> BoolArray:
        """Say for which pixels the place beside them lies in the picture."""
        x, y = self._place(across_um, 0.0)
        height, width = self._densities.shape[:2]
        return np.asarray((x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1))

    def _place(self, across_um: float, along_um: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x = self._columns + (self._x * across_um - self._y * along_um) / self._mpp
        y = self._rows + (self._y * across_um + self._x * along_um) / self._mpp
        return x.astype(np.float32), y.astype(np.float32)

    def _at(self, across_um: float, along_um: float) -> NDArray[np.float32]:
        x, y = self._place(across_um, along_um)
        if self._smooth:
            return self._nearest(x, y)
        side = int(np.ceil(np.sqrt(len(x))))
        # OpenCV takes maps of at most 32,767 columns.
        padded = [np.resize(values, (side, side)) for values in (x, y)]
        sampled = cv2.remap(
            self._densities, padded[0], padded[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )  # fmt: skip
        return np.asarray(sampled, dtype=np.float32).reshape(-1, 3)[: len(x)]

    def _nearest(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        rows, columns = self._densities.shape[:2]
        column = np.clip(np.rint(x), 0, columns - 1).astype(np.int64)
        row = np.clip(np.rint(y), 0, rows - 1).astype(np.int64)
        return np.asarray(np.take(self._densities.reshape(-1, 3), row * columns + column, axis=0), dtype=np.float32)
