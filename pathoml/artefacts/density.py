"""Optical density of a slide seen from afar."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.units import RgbImage

Densities = NDArray[np.float32]
_LEAST_GLASS = 200


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


def optical_densities(picture: RgbImage, glass: Glass, *, blur_px: float = 0.0) -> Densities:
    """Return how much light is lost, against the slide's own glass (Beer-Lambert).

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB; the slide or a part of it.
    glass : Glass
        Of the whole slide.
    blur_px : float, optional
        Standard deviation of a blur before.

    Returns
    -------
    ndarray of float32, shape (3, rows, columns)
        Decadic optical density in red, green and blue; at least 0.
    """
    blurred = cv2.GaussianBlur(picture, (0, 0), sigmaX=blur_px) if blur_px > 0 else picture
    levels = np.maximum(np.arange(256.0), 1)
    planes = [
        cv2.LUT(plane, np.log10(level / levels).clip(0).astype(np.float32))
        for plane, level in zip(cv2.split(blurred), glass, strict=True)
    ]
    return np.asarray(np.stack(planes), dtype=np.float32)


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
