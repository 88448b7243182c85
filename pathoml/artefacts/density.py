"""Optical density of a slide seen from afar."""

from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.units import RgbImage

Densities = NDArray[np.float32]
_LEAST_GLASS = 200
SAMPLED = 3
"""Rows and columns between the pixels of `Absorption.sample`."""


class Glass(NamedTuple):
    """Grey levels of bare glass.

    Parameters
    ----------
    red, green, blue : int
        Of 255.
    """

    red: int
    green: int
    blue: int


class Absorption:
    """How much light a slide takes, as a picture of it from afar shows; its glass is looked for once.

    Densities are taken part by part where they are needed, each after its own blur: kept for the whole slide, they would take
    four times the memory of the picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The whole slide, RGB.
    mpp : float
        Its microns per pixel.
    """

    def __init__(self, picture: RgbImage, mpp: float) -> None:
        self._picture, self.mpp = picture, mpp
        self.glass = glass_of(picture)
        levels = np.maximum(np.arange(256.0), 1)
        self._tables = [np.log10(level / levels).clip(0).astype(np.float32) for level in self.glass]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return self._picture.shape[0], self._picture.shape[1]

    def of(self, part: tuple[slice, slice], *, blur_um: float = 0.0) -> Densities:
        """Return how much light is lost in a part, against the slide's own glass (Beer-Lambert).

        Parameters
        ----------
        part : tuple of slice
            Rows and columns.
        blur_um : float, optional
            Standard deviation of a blur before; if not 0, of half a pixel at least.

        Returns
        -------
        ndarray of float32, shape (3, rows, columns)
            Decadic optical density in red, green and blue; at least 0.
        """
        pixels = self._picture[part]
        if blur_um <= 0:
            return self._densities(pixels)
        blurred = cv2.GaussianBlur(pixels, (0, 0), sigmaX=max(0.5, blur_um / self.mpp))
        return self._densities(np.asarray(blurred, dtype=np.uint8))

    @cached_property
    def sample(self) -> Densities:
        """Densities of every third pixel of every third row, for what is usual in the whole slide."""
        return self._densities(np.ascontiguousarray(self._picture[::SAMPLED, ::SAMPLED]))

    def _densities(self, pixels: RgbImage) -> Densities:
        densities = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel, (levels, table) in enumerate(zip(cv2.split(pixels), self._tables, strict=True)):
            cv2.LUT(levels, table, dst=densities[channel])
        return densities


def glass_of(picture: RgbImage) -> Glass:
    """Return how bright the glass of a slide is.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The whole slide, RGB.

    Returns
    -------
    Glass
        The level that 1 % of the pixels exceed; a slide full of tissue shows no glass, which is never darker than 200.
    """
    levels = []
    for channel in range(3):
        counts = cv2.calcHist([picture], [channel], None, [256], [0, 256]).ravel()
        levels.append(max(_LEAST_GLASS, int(np.searchsorted(counts.cumsum(), 0.99 * counts.sum()))))
    return Glass(*levels)


def optical_density_statistics(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return mean and standard deviation of the optical density of pixels, by colour.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (pixels, 3)
        RGB of tissue.

    Returns
    -------
    dict of str to float
        ``mean_red``, ``sd_red`` and so on; decadic optical density against white.
    """
    density = -np.log10(np.maximum(pixels.reshape(-1, 3).astype(np.float64), 1) / 255)
    return {
        f"{name}_{colour}": round(float(value), 4)
        for name, values in (("mean", density.mean(axis=0)), ("sd", density.std(axis=0)))
        for colour, value in zip(("red", "green", "blue"), values, strict=True)
    }
