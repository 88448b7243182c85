"""Stain normalisation and augmentation of batches of tiles, on the device that holds them."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pathoml.errors import BadStainError
from pathoml.stain_settings import (
    AugmentSettings,
    MacenkoSettings,
    NoStainSettings,
    ReinhardSettings,
    StainSettings,
)
from pathoml.units import FloatArray

Tiles = UInt8[Tensor, "batch height width 3"]
StainChange = Callable[[Tiles, NDArray[np.int64]], Tiles]
"""(tiles, row of each in the slide's grid order) -> tiles of the same shape with other colours."""

_MACENKO_LIGHT = 240.0
_REFERENCE_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
_REFERENCE_STRENGTHS = np.array([1.9705, 1.0308])
"""Haematoxylin and eosin of the reference image published with the method's implementation (rows; red, green, blue)."""
_STRENGTH_PERCENTILE = 99.0
_RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_LEAST_PIXELS = 500
_LEAST_ANGLE = np.deg2rad(12)
"""Between two stains; the reference's are 27 degrees apart, a single one with its noise two or three."""
_RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)


def fit_stain(
    pixels: NDArray[np.uint8], settings: MacenkoSettings | ReinhardSettings, slide_name: str
) -> FloatArray:  # fmt: skip
    """Estimate what of the colours of one slide decides how they are changed.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (pixels, 3)
        RGB of tissue, sampled over the whole slide: stains belong to a slide, not to a tile, whose share of either may be
        nil.
    settings : MacenkoSettings or ReinhardSettings
        Which change.
    slide_name : str
        For messages.

    Returns
    -------
    ndarray of float64
        Macenko: the 9 numbers of the matrix that takes the slide's optical densities to the reference's. Reinhard: mean
        and standard deviation of L*, a* and b*. For `stain_change`.

    Raises
    ------
    BadStainError
        If the slide does not show two stains.
    """
    if len(pixels) < _LEAST_PIXELS:
        raise BadStainError(
            f"{slide_name}: {len(pixels)} pixels of tissue are too few to estimate stains; set stain.kind: none"
        )
    if isinstance(settings, MacenkoSettings):
        stains, strengths = macenko_stains(pixels, settings, slide_name)
        return _macenko_matrix(stains, strengths).ravel()
    own = _lab(torch.as_tensor(pixels.reshape(-1, 3)).float() / 255)
    return np.concatenate([own.mean(dim=0).double().numpy(), own.std(dim=0).clamp_min(1e-3).double().numpy()])


def stain_change(settings: StainSettings, fitted: FloatArray | None) -> StainChange | None:
    """Return how the colours of one slide are changed.

    Parameters
    ----------
    settings : StainSettings
        Which change.
    fitted : ndarray of float64, or None
        From `fit_stain`, where the change depends on the slide.

    Returns
    -------
    StainChange or None
        None where colours stay as they are, or nothing has been fitted yet.
    """
    if isinstance(settings, AugmentSettings):
        return _augmentation(settings)
    if isinstance(settings, NoStainSettings) or fitted is None:
        return None
    if isinstance(settings, MacenkoSettings):
        return _in_density(fitted.reshape(3, 3))
    return _reinhard(fitted, settings)


def macenko_stains(
    pixels: NDArray[np.uint8], settings: MacenkoSettings, slide_name: str = "slide"
) -> tuple[FloatArray, FloatArray]:
    """Estimate the two stains of a slide.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (pixels, 3)
        RGB of tissue.
    settings : MacenkoSettings
        Percentile of angles and the density of glass.
    slide_name : str, optional
        For messages.

    Returns
    -------
    tuple of ndarray of float64, shapes (2, 3) and (2,)
        Optical density (natural logarithm) of haematoxylin and of eosin in red, green and blue, each of length 1; and the
        99th percentile of the concentration of each.

    Raises
    ------
    BadStainError
        If all pixels are glass, or all of one colour.

    References
    ----------
    Macenko M, Niethammer M, Marron JS, et al. A method for normalizing histology slides for quantitative analysis. ISBI
    (2009) 1107-1110.
    """
    density = -np.log((pixels.reshape(-1, 3).astype(np.float64) + 1) / _MACENKO_LIGHT)
    seen = density[(density >= settings.least_density).all(axis=1)]
    if len(seen) < _LEAST_PIXELS:
        raise BadStainError(
            f"{slide_name}: hardly a pixel is stained; set stain.kind: none, or look at its contact sheet"
        )
    _, vectors = np.linalg.eigh(np.cov(seen.T))
    plane = vectors[:, 1:3]
    # Which way eigenvectors point is arbitrary: angles are counted from the mean density, so that none lies at +-pi.
    along, across = seen.mean(axis=0) @ plane
    turned = np.array([[along, -across], [across, along]]) / np.hypot(along, across)
    plane = plane @ turned
    angle = np.arctan2(seen @ plane[:, 1], seen @ plane[:, 0])
    ends = np.percentile(angle, [settings.angle_percentile, 100 - settings.angle_percentile])
    one, other = (plane @ np.array([np.cos(end), np.sin(end)]) for end in ends)
    # Haematoxylin is the stain that takes more of the red light.
    stains = np.stack([one, other] if one[0] > other[0] else [other, one])
    if not np.isfinite(stains).all() or stains[0] @ stains[1] > np.cos(_LEAST_ANGLE):
        raise BadStainError(f"{slide_name}: only one stain can be told; set stain.kind: none")
    amounts = np.linalg.lstsq(stains.T, density.T, rcond=None)[0]
    return stains, np.percentile(amounts, _STRENGTH_PERCENTILE, axis=1)


def _macenko_matrix(stains: FloatArray, strengths: FloatArray) -> FloatArray:
    """Return what takes a slide's optical densities to the reference's: one 3 x 3 matrix."""
    scale = np.diag(_REFERENCE_STRENGTHS / strengths)
    matrix: FloatArray = _REFERENCE_STAINS.T @ scale @ np.linalg.pinv(stains.T)
    return matrix


def _in_density(matrix: FloatArray) -> StainChange:
    def change(tiles: Tiles, rows: NDArray[np.int64]) -> Tiles:
        # A matrix product in float32, never in the rounded inputs of a GPU's fast matrix units.
        weights = torch.as_tensor(matrix, dtype=torch.float32, device=tiles.device)
        density = -torch.log((tiles.float() + 1) / _MACENKO_LIGHT)
        changed = (density.unsqueeze(-2) * weights).sum(dim=-1)
        return _bytes(_MACENKO_LIGHT * torch.exp(-changed))

    return change


def _reinhard(fitted: FloatArray, settings: ReinhardSettings) -> StainChange:
    own_mean, own_spread = fitted[:3], fitted[3:]

    def change(tiles: Tiles, rows: NDArray[np.int64]) -> Tiles:
        mean, spread, from_mean, from_spread = (
            torch.as_tensor(values, dtype=torch.float32, device=tiles.device)
            for values in (settings.mean, settings.spread, own_mean, own_spread)
        )
        lab = (_lab(tiles.float() / 255) - from_mean) / from_spread * spread + mean
        return _bytes(_rgb(lab) * 255)

    return change


def _augmentation(settings: AugmentSettings) -> StainChange:
    stains = _RUIFROK / np.linalg.norm(_RUIFROK, axis=1, keepdims=True)
    apart = np.linalg.inv(stains)

    def change(tiles: Tiles, rows: NDArray[np.int64]) -> Tiles:
        factors, offsets = _draws(rows, settings)
        # Densities are rows: density @ apart gives the amount of each stain, amounts @ stains the density again.
        matrices = apart[None] @ (factors[:, :, None] * stains[None])
        shift = offsets @ stains
        weights = torch.as_tensor(matrices, dtype=torch.float32, device=tiles.device)[:, None, None]
        moved = torch.as_tensor(shift, dtype=torch.float32, device=tiles.device)[:, None, None]
        density = -torch.log((tiles.float() + 1) / 256)
        changed = (density.unsqueeze(-1) * weights).sum(dim=-2) + moved
        return _bytes(256 * torch.exp(-changed) - 1)

    return change


def _draws(rows: NDArray[np.int64], settings: AugmentSettings) -> tuple[FloatArray, FloatArray]:
    """Return factor and offset of each stain for each tile: by its own generator, so that batches do not matter.

    References
    ----------
    Tellez D, Balkenhol M, Otte-Holler I, et al. Whole-slide mitosis detection in H&E breast histology using PHH3 as a
    reference. IEEE Trans. Med. Imaging 37 (2018) 2126-2136.
    """
    draws = np.stack([np.random.default_rng([settings.seed, int(row)]).uniform(-1, 1, 6) for row in rows])
    return 1 + settings.strength * draws[:, :3], settings.strength * draws[:, 3:]


def _lab(rgb: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Convert sRGB (0-1) to CIE L*a*b* (D65)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    weights = torch.tensor(_RGB_TO_XYZ, dtype=rgb.dtype, device=rgb.device)
    xyz = (linear.unsqueeze(-2) * weights).sum(dim=-1) / torch.tensor(_WHITE, dtype=rgb.dtype, device=rgb.device)
    root = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def _rgb(lab: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Convert CIE L*a*b* (D65) to sRGB (0-1), clipped."""
    lightness, a, b = lab.unbind(dim=-1)
    y = (lightness + 16) / 116
    root = torch.stack([y + a / 500, y, y - b / 200], dim=-1)
    xyz = torch.where(root > 0.2068966, root**3, (root - 16 / 116) / 7.787)
    xyz = xyz * torch.tensor(_WHITE, dtype=lab.dtype, device=lab.device)
    weights = torch.tensor(np.linalg.inv(np.array(_RGB_TO_XYZ)), dtype=lab.dtype, device=lab.device)
    linear = (xyz.unsqueeze(-2) * weights).sum(dim=-1).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055, 12.92 * linear)


def _bytes(values: Float[Tensor, "batch height width 3"]) -> Tiles:
    return values.round().clamp(0, 255).to(torch.uint8)
