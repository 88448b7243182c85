"""Focus of tiles, from fine against coarse detail."""

import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts.settings import QualitySettings
from pathoml.units import FloatArray, RgbImage

_FINE_UM, _COARSE_UM = 1.5, 8.0
_COARSEST_MPP = 2.0
"""At coarser resolutions no detail is fine enough to tell."""
_CELLS, _EVERY = 4, 4
_LEAST_DETAIL = 20.0
"""Squared second difference (grey levels) below which a part of a tile is too plain to tell."""


def sharp_share(tiles: RgbImage, mpp: float, settings: QualitySettings) -> FloatArray:
    """Return which share of each tile is in focus.

    Second differences of the green channel are compared at a distance of 1.5 um, where defocus takes nearly everything,
    and of 8 um, where it takes little; the ratio does not depend on the strength of the stain. Each of 4 x 4 parts of a
    tile is judged by itself; parts without detail count as sharp. Every fourth row and column is looked at.

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
    _, coarse = _steps(mpp)
    part = (tiles.shape[1] - 2 * coarse) // _CELLS
    if mpp > _COARSEST_MPP or part < _EVERY:
        return np.ones(len(tiles))
    finely, coarsely = _details(tiles, mpp)
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
    _, coarse = _steps(mpp)
    if mpp > _COARSEST_MPP or (side - 2 * coarse) // _CELLS < _EVERY:
        return float("nan")
    finely, coarsely = _details(picture[None, :side, :side], mpp)
    told = coarsely >= _LEAST_DETAIL
    return float(finely[told].sum() / coarsely[told].sum()) if told.any() else float("nan")


def _steps(mpp: float) -> tuple[int, int]:
    return max(1, round(_FINE_UM / mpp)), max(4, round(_COARSE_UM / mpp))


def _details(tiles: RgbImage, mpp: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return fine and coarse detail of each of 4 x 4 parts, shape (tiles, 4, 4)."""
    fine, coarse = _steps(mpp)
    green = tiles[..., 1]
    lines = (green[:, coarse:-coarse:_EVERY], green[:, :, coarse:-coarse:_EVERY].transpose(0, 2, 1))
    across, down = (np.ascontiguousarray(one) for one in lines)
    finely, coarsely = (
        _second_differences(across, step, coarse) + _second_differences(down, step, coarse).transpose(0, 2, 1)
        for step in (fine, coarse)
    )
    return finely, coarsely


def _second_differences(lines: NDArray[np.uint8], step: int, margin: int) -> NDArray[np.float64]:
    """Return the mean squared second difference along lines, for each of 4 x 4 parts, shape (tiles, 4, 4)."""
    values = lines.astype(np.int16)
    length = lines.shape[2] - 2 * margin
    middle = values[:, :, margin : margin + length]
    before = values[:, :, margin - step : margin - step + length]
    after = values[:, :, margin + step : margin + step + length]
    squared = (2 * middle - before - after).astype(np.float32) ** 2
    rows, columns = squared.shape[1] // _CELLS, length // _CELLS
    parts = squared[:, : rows * _CELLS, : columns * _CELLS].reshape(len(lines), _CELLS, rows, _CELLS, columns)
    return np.asarray(parts.mean(axis=(2, 4)), dtype=np.float64)
