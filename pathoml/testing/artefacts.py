"""What goes wrong on a glass slide: marker pen and regions out of focus."""

from __future__ import annotations

import cv2
import numpy as np

from pathoml.testing.histology import GRID_UM, Layout
from pathoml.testing.noise import ByteMap, FloatMap, smooth_noise

PEN_COLOURS = {
    "blue": (1.05, 0.72, 0.16),
    "green": (0.95, 0.26, 0.62),
    "black": (0.90, 0.88, 0.84),
}
"""Optical density of marker ink in red, green and blue."""


def draw_pen(image: ByteMap, layout: Layout, colour: str, mpp: float, rng: np.random.Generator) -> None:
    """Draw a marker stroke that runs along the tissue's edge and covers some of it; changes ``image``.

    Parameters
    ----------
    image
        uint8 (row, col, 3) at full resolution.
    layout
        Where the tissue lies.
    colour
        A key of `PEN_COLOURS`.
    mpp
        Micrometres per pixel of the image.
    rng
        Source of randomness.
    """
    ink = _stroke(layout, rng)
    rows, cols = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if rows.size == 0:
        return
    window_grid = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    scale = GRID_UM / mpp
    top, left = round(rows[0] * scale), round(cols[0] * scale)
    bottom, right = (
        min(round((rows[-1] + 1) * scale), image.shape[0]),
        min(round((cols[-1] + 1) * scale), image.shape[1]),
    )
    steps = np.clip(ink[window_grid] * 150, 0, 255).astype(np.uint8)
    steps = cv2.resize(steps, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    window = image[top:bottom, left:right]
    for channel, density in enumerate(PEN_COLOURS[colour]):
        through = np.rint(255 * 10 ** (-density * np.arange(256) / 150)).astype(np.uint8)
        window[..., channel] = cv2.multiply(window[..., channel], cv2.LUT(steps, through), scale=1 / 255)


def _stroke(layout: Layout, rng: np.random.Generator) -> FloatMap:
    """Amount of ink on the layout's grid, 1 in the middle of a stroke, with streaks and dry patches."""
    shape = layout.depth_um.shape
    edge_rows, edge_cols = np.nonzero(np.abs(layout.depth_um + 40) < GRID_UM)
    start = rng.integers(len(edge_rows))
    row, col = float(edge_rows[start]), float(edge_cols[start])
    down, right = np.gradient(cv2.GaussianBlur(layout.depth_um, (0, 0), 20))
    direction = np.arctan2(right[int(row), int(col)], -down[int(row), int(col)])  # along the outline
    turn = rng.uniform(-0.5, 0.5)
    points = []
    for step in np.linspace(-1, 1, 24) * rng.uniform(240, 420) / GRID_UM:
        bend = direction + turn * step * GRID_UM / 400
        points.append((col + step * np.cos(bend), row + step * np.sin(bend)))
    half_width_um = rng.uniform(55, 95)
    path = np.ones(shape, dtype=np.uint8)
    cv2.polylines(path, [np.rint(points).astype(np.int32)], isClosed=False, color=0, thickness=1)
    distance_um = cv2.distanceTransform(path, cv2.DIST_L2, 5) * np.float32(GRID_UM)
    distance_um += 4 * smooth_noise(rng, shape, 60 / GRID_UM) + 1.5 * smooth_noise(rng, shape, 10 / GRID_UM)
    inside = np.clip((half_width_um - distance_um) / 9, 0, 1)
    rim = 0.3 * np.exp(-(((distance_um - half_width_um + 14) / 9) ** 2))  # ink gathers where it dries last
    bristles = np.interp(distance_um, np.linspace(0, 120, 60), rng.normal(0, 0.09, 60))  # streaks run along the stroke
    wetness = 0.68 + 0.16 * smooth_noise(rng, shape, 110 / GRID_UM) + bristles
    return np.asarray(inside * (np.clip(wetness, 0.15, 1.2) + rim), dtype=np.float32)


def defocus(image: ByteMap, layout: Layout, mpp: float, rng: np.random.Generator) -> None:
    """Put a round region of the tissue out of focus, most in its middle; changes ``image``.

    Parameters
    ----------
    image
        uint8 (row, col, 3) at full resolution.
    layout
        Where the tissue lies.
    mpp
        Micrometres per pixel of the image.
    rng
        Source of randomness.
    """
    rows, cols = np.nonzero(layout.depth_um > 60)
    if rows.size == 0:
        return
    chosen = rng.integers(len(rows))
    radius_px = round(rng.uniform(170, 300) / mpp)
    row, col = round(rows[chosen] * GRID_UM / mpp), round(cols[chosen] * GRID_UM / mpp)
    window = image[max(0, row - radius_px) : row + radius_px, max(0, col - radius_px) : col + radius_px]
    y, x = np.ogrid[: window.shape[0], : window.shape[1]]
    y_middle, x_middle = row - max(0, row - radius_px), col - max(0, col - radius_px)
    distance = np.hypot(
        ((y - y_middle) / radius_px).astype(np.float32), ((x - x_middle) / radius_px).astype(np.float32)
    )
    for sigma_um, reach in ((0.8, 1.0), (1.4, 0.82), (2.2, 0.62)):
        share = np.clip((np.float32(reach) - distance) * np.float32(1 / 0.2), 0, 1)
        window[:] = cv2.blendLinear(_blurred(window, sigma_um / mpp), window, share, 1 - share)


def _blurred(image: ByteMap, sigma_px: float) -> ByteMap:
    """Blur by way of a smaller copy, which costs little and loses nothing that the blur would keep."""
    factor = max(1, int(sigma_px / 1.5))
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / factor)
    whole = cv2.resize(small, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return whole.astype(np.uint8, copy=False)
