"""From concentrations of haematoxylin and eosin to the colours a hospital's scanner records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pathoml.testing.noise import ByteMap

CONCENTRATION_STEP = 0.01
"""Concentration of a stain that one step of a byte stands for."""
_NOISE_PX = 800


@dataclass(frozen=True)
class StainProfile:
    """How a laboratory stains and a scanner sees.

    Parameters
    ----------
    haematoxylin, eosin
        Optical density per unit of concentration in red, green and blue.
    background
        Colour of empty glass, 0 to 255 in red, green and blue.
    noise
        Standard deviation of the sensor noise in grey levels.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    background: tuple[float, float, float] = (243.0, 242.0, 244.0)
    noise: float = 1.3

    def varied(self, rng: np.random.Generator) -> StainProfile:
        """Return the profile of one slide: staining strength and hue differ a little from slide to slide.

        Parameters
        ----------
        rng
            Of the slide.

        Returns
        -------
        StainProfile
            Near this one.
        """
        strength_h, strength_e = rng.normal(1.0, 0.06, size=2)
        hue_h, hue_e = rng.normal(1.0, 0.025, size=(2, 3))
        return StainProfile(
            haematoxylin=_scaled(self.haematoxylin, strength_h * hue_h),
            eosin=_scaled(self.eosin, strength_e * hue_e),
            background=_scaled(self.background, np.full(3, rng.uniform(0.99, 1.008))),
            noise=self.noise,
        )


def _scaled(values: tuple[float, float, float], factors: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Multiply three values."""
    red, green, blue = (float(v * f) for v, f in zip(values, factors, strict=True))
    return red, green, blue


@lru_cache(maxsize=8)
def _sensor_noise(deviation: float) -> ByteMap:
    """Draw the noise of a sensor, lifted by three deviations so that it can be added to bytes."""
    rng = np.random.default_rng(32_452_843)
    noise = rng.standard_normal((_NOISE_PX, _NOISE_PX, 3), dtype=np.float32) * np.float32(deviation)
    return np.asarray(np.clip(np.rint(noise + 3 * deviation), 0, 6 * deviation), dtype=np.uint8)


class StainRenderer:
    """The Beer-Lambert law as byte tables: colour = background * 10 ** -(density), one product a channel.

    Parameters
    ----------
    profile
        The stain to render with.
    rng
        Source of the sensor noise.
    """

    def __init__(self, profile: StainProfile, rng: np.random.Generator) -> None:
        concentration = np.arange(256) * CONCENTRATION_STEP
        density_h = np.outer(np.array(profile.haematoxylin), concentration)
        density_e = np.outer(np.array(profile.eosin), concentration)
        self._noise = _sensor_noise(profile.noise)
        background = np.array(profile.background)[:, None] - float(self._noise.mean())
        self._through_h = np.rint(255 * 10**-density_h).astype(np.uint8)
        self._through_e = np.rint(background * 10**-density_e).astype(np.uint8)
        self._rng = rng

    def render(self, haematoxylin: ByteMap, eosin: ByteMap) -> ByteMap:
        """Return the colours of a block.

        Parameters
        ----------
        haematoxylin, eosin
            Concentrations in steps of `CONCENTRATION_STEP`, uint8 (row, col), at most 512 pixels a side.

        Returns
        -------
        numpy.ndarray
            uint8 (row, col, 3), red, green, blue.
        """
        channels = [
            cv2.multiply(cv2.LUT(haematoxylin, by_h), cv2.LUT(eosin, by_e), scale=1 / 255)
            for by_h, by_e in zip(self._through_h, self._through_e, strict=True)
        ]
        rows, cols = haematoxylin.shape
        row, col = self._rng.integers(0, _NOISE_PX - 512, size=2)
        return cv2.add(cv2.merge(channels), self._noise[row : row + rows, col : col + cols]).astype(
            np.uint8, copy=False
        )
