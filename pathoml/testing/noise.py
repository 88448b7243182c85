"""Smooth random fields: the raw material of tissue outlines, regions, fibres and grain."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]
"""An array (row, col) or (row, col, channel) of 32-bit floats."""
ByteMap = npt.NDArray[np.uint8]
"""An array (row, col) or (row, col, channel) of bytes."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], step_px: float) -> FloatMap:
    """Draw a smooth field of about zero mean and unit standard deviation.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        Rows and columns of the field.
    step_px
        Distance between independent values, in pixels of the field; bumps are about 3 steps wide.

    Returns
    -------
    numpy.ndarray
        float32 (row, col).
    """
    step_px = max(step_px, 1.0)
    coarse_shape = (int(shape[0] / step_px) + 8, int(shape[1] / step_px) + 8)
    coarse = cv2.GaussianBlur(rng.standard_normal(coarse_shape, dtype=np.float32), (0, 0), 1.0)
    coarse = coarse * np.float32(2.0 * np.sqrt(np.pi))  # the blur shrinks the deviation by this factor
    row, col = rng.uniform(2.0, 3.0, size=2)
    to_coarse = np.array([[1.0 / step_px, 0.0, col], [0.0, 1.0 / step_px, row]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(coarse, to_coarse, (shape[1], shape[0]), flags=flags).astype(np.float32, copy=False)


def periodic_noise(rng: np.random.Generator, size_px: int, sigma_px: tuple[float, float]) -> FloatMap:
    """Draw a Gaussian field that tiles without a seam, with zero mean and unit standard deviation.

    Parameters
    ----------
    rng
        Source of randomness.
    size_px
        Rows and columns of the field.
    sigma_px
        Correlation length along rows and along columns, in pixels.

    Returns
    -------
    numpy.ndarray
        float32 (row, col), whose opposite borders continue each other.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px)))
    row_frequency = np.fft.fftfreq(size_px)[:, None] * sigma_px[0]
    col_frequency = np.fft.rfftfreq(size_px)[None, :] * sigma_px[1]
    spectrum *= np.exp(-2.0 * np.pi**2 * (row_frequency**2 + col_frequency**2))
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size_px, size_px))
    return np.asarray(field / field.std(), dtype=np.float32)


def smooth_step(values: FloatMap, low: float, high: float) -> FloatMap:
    """Map values to 0 below ``low``, to 1 above ``high``, linearly between.

    Parameters
    ----------
    values
        Any map.
    low, high
        Ends of the step.

    Returns
    -------
    ndarray
        Same shape, 0 to 1.
    """
    scale = np.float32(1.0 / (high - low))
    step: FloatMap = np.clip((values - np.float32(low)) * scale, np.float32(0), np.float32(1))
    return step
