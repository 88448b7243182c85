"""Optical density of a slide seen from afar."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.units import RgbImage

Densities = NDArray[np.float32]
_LEAST_GLASS = 200


def optical_densities(picture: RgbImage, *, blur_px: float = 0.0) -> Densities:
    """Return how much light is lost, against the slide's own glass (Beer-Lambert).

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB.
    blur_px : float, optional
        Standard deviation of a blur before.

    Returns
    -------
    ndarray of float32, shape (3, rows, columns)
        Decadic optical density in red, green and blue; at least 0.
    """
    blurred: NDArray[Any] = cv2.GaussianBlur(picture, (0, 0), sigmaX=blur_px) if blur_px > 0 else picture
    return np.stack([_density(np.asarray(blurred[..., channel], dtype=np.uint8)) for channel in range(3)])


def _density(plane: NDArray[np.uint8]) -> Densities:
    counts = np.bincount(plane.ravel(), minlength=256)
    # A slide full of tissue shows no glass, which is never darker than this.
    glass = max(_LEAST_GLASS, int(np.searchsorted(counts.cumsum(), 0.99 * plane.size)))
    steps = np.log10(glass / np.maximum(np.arange(256.0), 1)).clip(0).astype(np.float32)
    densities: Densities = steps[plane]
    return densities
