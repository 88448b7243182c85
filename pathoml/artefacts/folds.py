"""Folds: narrow bands where the tissue lies double or triple."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts.blocks import in_blocks
from pathoml.artefacts.density import SAMPLED, Absorption, Densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, disc, drop_short, opened, places_of, touching
from pathoml.units import BoolArray, FloatArray, IntArray

_BLUR_UM, _GRADIENT_UM, _AROUND_UM = 6.0, 10.0, 40.0
_DENSE = 1.2
"""Times the slide's median density from which a pixel is looked at."""
_LIKELY, _MANY = 0.5, 30_000
"""Share of `fold_ratio` that a pixel has to reach against the denser of two places beside it to be looked at closely."""
_SURROUNDINGS_UM, _ABOVE = 260.0, 1.2
"""The same against the mean around it, which a fold that counts exceeds by more; it saves looking at most pixels."""
_MIDDLE_UM, _ALONG_UM = (-8.0, 0.0, 8.0), (0.0, 25.0, -25.0, 50.0, -50.0)
"""Where a band is sampled across and along, from its middle outwards: most pixels are told by the first."""
_FLANKS_UM, _FLANKS_ALONG_UM, _FLANK_BLUR_UM = (52.0, 68.0, 84.0), (-40.0, 0.0, 40.0), 10.0
_LEAST_FLANK, _CONTINUOUS, _MOST_CHROMA, _FAINT, _LEAST_DENSITY = 0.7, 1.15, 1.25, 0.65, 0.04
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
    rows, columns = places_of(dense & _above_surroundings(densities[1], tissue, mpp))
    if len(rows) > _MANY:
        # Every second pixel, as on a chessboard, is enough: those of a fold still touch at their corners.
        white = (rows + columns) % 2 == 0
        rows, columns = rows[white], columns[white]
    if len(rows) == 0:
        return pink
    around = _Surroundings(densities, mpp)
    places = around.places((rows, columns))
    places = places.some(around.quick_ratio(places) > _LIKELY * settings.fold_ratio)
    ratio = np.zeros(tissue.shape, dtype=np.float32)
    ratio[places.rows, places.columns] = around.ratio_to_flanks(usual.density, places)
    certain = ratio > settings.fold_ratio
    if not certain.any():
        return pink
    band = touching(ratio > _FAINT * settings.fold_ratio, certain)
    found: BoolArray = dilate(drop_short(band, _LEAST_LENGTH_UM / mpp), _HALF_WIDTH_UM / mpp) & dense
    return found | pink


def _dense_but_not_bluer(densities: Densities, usual: _Usual, tissue: BoolArray, mpp: float) -> BoolArray:
    """Return narrow bands of much more density than usual whose share of red light taken is not above the usual."""
    red, green, blue = densities
    dense: BoolArray = (green > _PINK_RATIO * usual.density[1]) & (blue > _PINK_RATIO * usual.density[2]) & tissue
    if not dense.any():
        return np.zeros_like(tissue)
    pink = dense & (red > _PINK_RED * usual.density[0]) & (red < _PINK_CHROMA * usual.chroma * green)
    pink = cv2.morphologyEx(pink.astype(np.uint8), cv2.MORPH_CLOSE, disc(1)) > 0
    narrow = pink & ~opened(pink, _WIDEST_UM / mpp)
    return drop_short(narrow, _LEAST_PINK_LENGTH_UM / mpp, min_area_px=_LEAST_PINK_UM2 / mpp**2)


def _above_surroundings(density: NDArray[np.float32], tissue: BoolArray, mpp: float) -> BoolArray:
    side = (max(3, round(_SURROUNDINGS_UM / mpp)),) * 2
    weight = tissue.astype(np.float32)
    mean = cv2.blur(density * weight, side) / np.maximum(cv2.blur(weight, side), 1e-3)
    return np.asarray(density > _ABOVE * mean)


class _Places(NamedTuple):
    """Pixels, and the direction across the band that each may lie in."""

    rows: IntArray
    columns: IntArray
    right: NDArray[np.float32]  # pixels to the right and down, for each um across the band
    down: NDArray[np.float32]

    def some(self, which: BoolArray | IntArray) -> "_Places":
        """Return some of them."""
        return _Places(self.rows[which], self.columns[which], self.right[which], self.down[which])


class _Surroundings:
    """Densities beside pixels, across the band that each may lie in."""

    def __init__(self, densities: Densities, mpp: float) -> None:
        self._mpp = mpp
        self._change = _changes(densities[1], mpp)
        self._fine = np.asarray(cv2.merge(list(densities)), dtype=np.float32)
        # Flanks are means over a width, which is taken once for all pixels.
        wide = cv2.GaussianBlur(self._fine, (0, 0), _FLANK_BLUR_UM / mpp)
        self._wide = np.asarray(wide, dtype=np.float32)
        self._green, self._wide_green = densities[1], np.ascontiguousarray(self._wide[..., 1])

    def places(self, at: tuple[IntArray, IntArray]) -> _Places:
        """Return pixels with the direction in which density changes most."""
        xx, yy, xy = (product[at] for product in self._change)
        normal = 0.5 * np.arctan2(2 * xy, xx - yy)
        return _Places(*at, np.cos(normal) / np.float32(self._mpp), np.sin(normal) / np.float32(self._mpp))

    def quick_ratio(self, places: _Places) -> NDArray[np.float32]:
        """Return by how many times each pixel is denser than the denser of two places beside it, in the least colour."""
        profile = _Profile(places, self._wide.shape)
        left, right = profile.both(self._wide, _FLANKS_UM[-1], (0.0,))
        own = self._fine[places.rows, places.columns]
        return _least(own / np.maximum(np.maximum(left, right), _LEAST_DENSITY))

    def ratio_to_flanks(self, usual: FloatArray, places: _Places) -> NDArray[np.float32]:
        """Return by how many times each pixel is denser than both sides, in the colour where it is least; 0 if no fold."""
        ratio = np.zeros(len(places.rows), dtype=np.float32)
        bands, possible = self._bands(usual, places)
        profile = _Profile(places.some(bands), self._fine.shape)
        middle = profile.mean(self._fine, _MIDDLE_UM, _ALONG_UM)
        best = np.zeros(len(bands), dtype=np.float32)
        for flank_um, each in zip(_FLANKS_UM, possible, strict=True):
            left, right = profile.both(self._wide, flank_um, _FLANKS_ALONG_UM)
            ratios = middle / np.maximum(np.maximum(left, right), _LEAST_DENSITY)
            same_colour = ratios[:, 0] < _MOST_CHROMA * np.maximum(ratios[:, 1], 0.1)
            best = np.maximum(best, _least(ratios) * (each & same_colour))
        ratio[bands] = best
        return ratio

    def _bands(self, usual: FloatArray, places: _Places) -> tuple[IntArray, list[BoolArray]]:
        """Return which pixels lie in an unbroken band with tissue beside it, by their green density, and for which flanks."""
        flanks, possible = [], []
        profile = _Profile(places, self._green.shape)
        for flank_um in _FLANKS_UM:
            left, right = profile.both(self._wide_green, flank_um, _FLANKS_ALONG_UM)
            flanks.append(np.maximum(np.maximum(left, right), _LEAST_DENSITY))
            possible.append(np.minimum(left, right) > _LEAST_FLANK * usual[1])
        left_over = np.arange(len(places.rows))
        # What is looked at gets less as the band proves to be broken.
        for along_um in _ALONG_UM:
            still = np.flatnonzero(np.any(possible, axis=0))
            left_over = left_over[still]
            flanks, possible = [flank[still] for flank in flanks], [each[still] for each in possible]
            middle = _Profile(places.some(left_over), self._green.shape).mean(self._green, _MIDDLE_UM, (along_um,))
            possible = [each & (middle > _CONTINUOUS * flank) for each, flank in zip(possible, flanks, strict=True)]
        still = np.flatnonzero(np.any(possible, axis=0))
        return left_over[still], [each[still] for each in possible]


def _least(colours: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the least of three columns, which is several times as fast as a minimum along so short an axis."""
    return np.asarray(np.minimum(np.minimum(colours[:, 0], colours[:, 1]), colours[:, 2]), dtype=np.float32)


def _changes(density: NDArray[np.float32], mpp: float) -> tuple[NDArray[np.float32], ...]:
    """Return the structure tensor around each pixel: mean products xx, yy, xy of the changes of density in x and y."""
    blurred = cv2.GaussianBlur(density, (0, 0), _GRADIENT_UM / mpp)
    x, y = cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    side = (max(3, round(_AROUND_UM * np.sqrt(12) / mpp)),) * 2  # a box as wide as a Gaussian of that deviation
    return tuple(np.asarray(cv2.blur(product, side), dtype=np.float32) for product in (x * x, y * y, x * y))


class _Profile:
    """Samples pictures, of one colour or of three, along lines across pixels: offsets run across the band, and along it."""

    def __init__(self, places: _Places, shape: tuple[int, ...]) -> None:
        self._count, self._shape = len(places.rows), shape
        side = int(np.ceil(np.sqrt(self._count)))
        # OpenCV takes maps of at most 32,767 columns.
        self._y, self._x, self._down, self._right = (
            np.resize(values.astype(np.float32, copy=False), (side, side))
            for values in (places.rows, places.columns, places.down, places.right)
        )

    def mean(
        self, picture: NDArray[np.float32], across_um: tuple[float, ...], along_um: tuple[float, ...]
    ) -> NDArray[np.float32]:
        """Return the mean over all pairs of offsets, interpolated, shape (pixels,) or (pixels, 3)."""
        return self._mean(picture, across_um, along_um, cv2.INTER_LINEAR)

    def both(
        self, smooth: NDArray[np.float32], across_um: float, along_um: tuple[float, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the means on the left and on the right, of a picture that is smooth, shaped as those of `mean`.

        There the nearest pixel is taken, which is several times as fast as interpolating between four. Where the picture
        ends beside a pixel, the side that can be seen has to do.
        """
        left, right = (self._mean(smooth, (way * across_um,), along_um, cv2.INTER_NEAREST) for way in (-1, 1))
        shown_left, shown_right = self._shown(-across_um), self._shown(across_um)
        only_right, only_left = np.flatnonzero(~shown_left), np.flatnonzero(~shown_right)
        left[only_right], right[only_left] = right[only_right], left[only_left]
        return left, right

    def _mean(
        self, picture: NDArray[np.float32], across_um: tuple[float, ...], along_um: tuple[float, ...], method: int
    ) -> NDArray[np.float32]:
        colours = picture.shape[2:]
        if self._count == 0:
            return np.zeros((0, *colours), dtype=np.float32)
        total = np.zeros((*self._x.shape, *colours), dtype=np.float32)
        for across, along in ((across, along) for across in across_um for along in along_um):
            x, y = self._place(across, along)
            total += cv2.remap(picture, x, y, method, borderMode=cv2.BORDER_REPLICATE)
        total /= len(across_um) * len(along_um)
        return total.reshape(-1, *colours)[: self._count]

    def _shown(self, across_um: float) -> BoolArray:
        """Say for which pixels the place beside them lies in the picture."""
        x, y = (values.ravel()[: self._count] for values in self._place(across_um, 0.0))
        return np.asarray((x >= 0) & (y >= 0) & (x <= self._shape[1] - 1) & (y <= self._shape[0] - 1))

    def _place(self, across_um: float, along_um: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        across, along = np.float32(across_um), np.float32(along_um)
        x, y = self._x + across * self._right, self._y + across * self._down
        if along_um:
            x -= along * self._down
            y += along * self._right
        return x, y
