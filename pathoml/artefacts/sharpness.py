"""Focus of tiles, from fine against coarse detail."""

import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts.settings import QualitySettings
from pathoml.units import FloatArray, RgbImage

_FINE_UM, _COARSE_UM = 1.5, 8.0
_COARSEST_MPP = 2.0
"""At coarser resolutions no detail is fine enough to tell."""
_MOST_PARTS, _LEAST_PART_UM, _EVERY = 4, 24.0, 8
"""Parts of a tile along each side, fewer where they would be smaller: of little tissue chance decides how fine it looks."""
_AT_ONCE = 8
"""Tiles whose intermediate values stay in a processor's cache."""
_LEAST_DETAIL = 20.0
"""Squared second difference (grey levels) below which a part of a tile is too plain to tell."""


def sharp_share(tiles: RgbImage, mpp: float, settings: QualitySettings) -> FloatArray:
    """Return which share of each tile is in focus.

    Second differences of the green channel are compared at a distance of 1.5 um, where defocus takes nearly everything,
    and of 8 um, where it takes little; the ratio does not depend on the strength of the stain. Each of 4 x 4
    parts of a tile (fewer where they would be smaller than 24 um) is judged by itself; parts without detail count as sharp. Every
    eighth row and column is looked at.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (tiles, side, side, 3)
        RGB.
    mpp : float
        Their microns per pixel.
    settings : QualitySettings
        Least ratio.

    Returns
    -------
    ndarray of float64, shape (tiles,)
        0 (all of it blurred) to 1; 1 where the resolution is too coarse or the tile too small to tell.
    """
    if not _can_be_told(tiles.shape[1], mpp):
        return np.ones(len(tiles))
    # From the last to the first: what was read last is still in the cache.
    few = [_details(tiles[start : start + _AT_ONCE], mpp) for start in reversed(range(0, len(tiles), _AT_ONCE))]
    if not few:
        return np.ones(0)
    finely, coarsely = (np.concatenate(parts) for parts in zip(*reversed(few), strict=True))
    sharp = (coarsely < _LEAST_DETAIL) | (finely > settings.min_sharpness * coarsely)
    return np.asarray(sharp.mean(axis=(1, 2)), dtype=np.float64)


def fine_over_coarse(picture: RgbImage, mpp: float) -> float:
    """Return the detail of 1.5 um against that of 8 um in a picture, by the same measure as `sharp_share`.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB.
    mpp : float
        Its microns per pixel.

    Returns
    -------
    float
        About 0.2 to 0.5 in focus and near 0 out of it; NaN where the resolution is too coarse, the picture too small or
        too plain to tell.
    """
    side = min(picture.shape[:2])
    if not _can_be_told(side, mpp):
        return float("nan")
    finely, coarsely = _details(picture[None, :side, :side], mpp)
    told = coarsely >= _LEAST_DETAIL
    return float(finely[told].sum() / coarsely[told].sum()) if told.any() else float("nan")


def _steps(mpp: float) -> tuple[int, int]:
    return max(1, round(_FINE_UM / mpp)), max(4, round(_COARSE_UM / mpp))


def _can_be_told(side: int, mpp: float) -> bool:
    """Say whether the resolution is fine enough, and a square large enough."""
    _, coarse = _steps(mpp)
    return mpp <= _COARSEST_MPP and (side - 2 * coarse) // _MOST_PARTS >= _EVERY


def _details(tiles: RgbImage, mpp: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return fine and coarse detail of each part, shape (tiles, parts, parts): squares along rows, and along columns, summed."""
    steps = _steps(mpp)
    margin, length, green = max(steps), tiles.shape[1] - 2 * max(steps), tiles[..., 1]
    rows, columns = green[:, margin:-margin:_EVERY], green[:, :, margin:-margin:_EVERY].transpose(0, 2, 1)
    lines = np.concatenate([rows, columns], axis=1, dtype=np.int16)

    def from_place(first: int) -> NDArray[np.int16]:
        return lines[:, :, first : first + length]

    parts = min(_MOST_PARTS, max(1, round(length * mpp / _LEAST_PART_UM)))
    twice, found = 2 * from_place(margin), []
    for step in steps:
        second = twice - from_place(margin - step)
        second -= from_place(margin + step)
        found.append(_mean_squares(second, parts))
    return found[0], found[1]


def _mean_squares(second: NDArray[np.int16], parts: int) -> NDArray[np.float64]:
    """Return the mean square in each part of numbers along rows plus that of numbers along as many columns."""
    count, length = second.shape[1] // 2, second.shape[2] // parts
    pieces = second[:, :, : parts * length].astype(np.float32).reshape(-1, length)
    squared = np.einsum("ij,ij->i", pieces, pieces).reshape(len(second), 2, count, parts)
    beside = count // parts
    summed = squared[:, :, : parts * beside].reshape(len(second), 2, parts, beside, parts).sum(axis=3)
    means = (summed[:, 0] + summed[:, 1].transpose(0, 2, 1)) / (beside * length)
    return np.asarray(means, dtype=np.float64)
