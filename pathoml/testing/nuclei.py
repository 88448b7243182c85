"""A library of drawn nuclei: many small pictures of chromatin, made once a process for each resolution."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pathoml.testing.noise import ByteMap, FloatMap, periodic_noise, smooth_step
from pathoml.testing.staining import CONCENTRATION_STEP

FloatArray = npt.NDArray[np.float64]

ANGLES = 24
"""Orientations over half a turn that each elongated nucleus is drawn in."""
_LIBRARY_SEED = 7_919
_BATCH = 48  # pictures drawn at once
_GRAIN_PX = 512
_EDGE_UM = 0.55  # width of the blur that a light microscope gives an edge


class Cell(IntEnum):
    """What a cell is drawn as."""

    FIBROBLAST = 0
    TUMOUR = 1
    EPITHELIUM = 2
    LYMPHOCYTE = 3
    PYKNOTIC = 4
    DUST = 5
    GHOST = 6


@dataclass(frozen=True)
class Sprites:
    """Pictures of one kind of cell, ordered by orientation.

    Parameters
    ----------
    chromatin
        Haematoxylin of each picture, uint8 (row, col), in steps of concentration.
    coverage
        How far each picture hides the cytoplasm under it, uint8 (row, col), 255 is wholly.
    variants
        Pictures of each orientation; picture ``orientation * variants + variant``.
    """

    chromatin: list[ByteMap]
    coverage: list[ByteMap]
    variants: int

    @property
    def is_oriented(self) -> bool:
        """Whether there are pictures of each of the `ANGLES`."""
        return len(self.chromatin) > self.variants


@dataclass(frozen=True)
class _Look:
    """How nuclei of one kind are drawn: uniform ranges, lengths in micrometres, stains in concentration."""

    length_um: tuple[float, float]
    aspect: tuple[float, float]
    chromatin: tuple[float, float]
    irregularity: float = 0.05
    rim: float = 0.2
    clumps: float = 0.25
    nucleoli: float = 0.0
    oriented: bool = False
    variants: int = 240


_LOOKS = {
    Cell.FIBROBLAST: _Look((7.5, 18.0), (0.13, 0.30), (0.60, 1.05), 0.08, 0.05, 0.12, 0.0, oriented=True, variants=18),
    Cell.TUMOUR: _Look((8.5, 14.8), (0.58, 0.97), (0.30, 0.78), 0.09, 0.20, 0.22, 1.3),
    Cell.EPITHELIUM: _Look((9.0, 13.5), (0.40, 0.66), (0.42, 0.85), 0.065, 0.14, 0.18, 0.8, oriented=True, variants=14),
    Cell.LYMPHOCYTE: _Look((5.2, 7.8), (0.80, 1.0), (0.75, 1.22), 0.05, 0.06, 0.22, 0.0, variants=160),
    Cell.PYKNOTIC: _Look((3.2, 5.8), (0.55, 1.0), (0.9, 1.5), 0.14, 0.0, 0.10, 0.0, variants=60),
}


@lru_cache(maxsize=4)
def sprite_library(mpp: float) -> dict[Cell, Sprites]:
    """Draw the library of every kind of cell.

    Parameters
    ----------
    mpp
        Micrometres per pixel of the slides to draw on.

    Returns
    -------
    dict
        The same pictures in every process; kept for the last few resolutions.
    """
    rng = np.random.default_rng(_LIBRARY_SEED)
    library = {cell: _draw_nuclei(look, mpp, rng) for cell, look in _LOOKS.items()}
    library[Cell.DUST] = _draw_dust(mpp, rng)
    library[Cell.GHOST] = _draw_ghosts(mpp, rng)
    return library


def _draw_nuclei(look: _Look, mpp: float, rng: np.random.Generator) -> Sprites:
    """Draw all nuclei of one look, in batches that keep the stacks small."""
    count = look.variants * (ANGLES if look.oriented else 1)
    if look.oriented:
        angles = np.repeat(np.arange(ANGLES), look.variants) * (np.pi / ANGLES) + rng.normal(0, 0.07, count)
    else:
        angles = rng.uniform(0, np.pi, size=count)
    grain = periodic_noise(rng, _GRAIN_PX, (0.5 / mpp, 0.5 / mpp))
    batches = [_draw_batch(look, batch, mpp, grain, rng) for batch in np.array_split(angles, -(-count // _BATCH))]
    return Sprites(
        chromatin=[picture for batch in batches for picture in batch.chromatin],
        coverage=[picture for batch in batches for picture in batch.coverage],
        variants=look.variants,
    )


def _draw_batch(look: _Look, angle: FloatArray, mpp: float, grain: FloatMap, rng: np.random.Generator) -> Sprites:
    """Draw one nucleus for each angle."""
    count = len(angle)
    length = rng.uniform(*look.length_um, size=count)
    width = length * rng.uniform(*look.aspect, size=count)
    x, y = _pixel_grid(look.length_um[1] * 1.25, mpp)
    inside_um = _depth_in_blob(x, y, np.stack([length, width, angle]), look.irregularity, rng)
    coverage = smooth_step(inside_um, -_EDGE_UM, _EDGE_UM)
    density = _column(rng.uniform(*look.chromatin, size=count))
    texture = 1 + np.float32(look.clumps) * _windows(grain, count, x.shape[-1], rng)
    rim = np.exp(-(((inside_um - np.float32(0.5)) / np.float32(0.55)) ** 2))
    chromatin = density * texture + _column(rng.uniform(0.3, 1.7, count) * look.rim) * rim
    if look.nucleoli > 0:
        chromatin += _nucleoli(x, y, width, look.nucleoli, rng)
    return _as_sprites(chromatin * coverage, coverage, count)


def _pixel_grid(extent_um: float, mpp: float) -> tuple[FloatMap, FloatMap]:
    """Coordinates of a square picture's pixels from its centre, each (1, row, col)."""
    half = int(np.ceil(extent_um / 2 / mpp))
    axis = np.arange(-half, half + 1, dtype=np.float32) * np.float32(mpp)
    x, y = np.meshgrid(axis, axis)
    return x[None], y[None]


def _column(values: FloatArray) -> FloatMap:
    """One value a picture, shaped to multiply a stack of pictures."""
    return values.astype(np.float32)[:, None, None]


def _depth_in_blob(
    x: FloatMap, y: FloatMap, ellipse: FloatArray, irregularity: float, rng: np.random.Generator
) -> FloatMap:
    """Depth below an ellipse's wavy outline in micrometres; ``ellipse`` holds lengths, widths and angles."""
    length, width, angle = (_column(values) for values in ellipse)
    along = (x * np.cos(angle) + y * np.sin(angle)) / (length / 2)
    across = (y * np.cos(angle) - x * np.sin(angle)) / (width / 2)
    across += _column(rng.normal(0, 3.2 * irregularity, len(length))) * along**2  # a slight bend
    radius = np.hypot(along, across)
    direction = np.arctan2(across, along)
    outline = np.ones_like(radius)
    for wave in (2, 3, 4, 5):
        amplitude = rng.normal(0, irregularity * 1.6 / wave, len(length))
        phase = rng.uniform(0, 2 * np.pi, len(length))
        outline += _column(amplitude) * np.cos(np.float32(wave) * direction + _column(phase))
    # An ellipse is steeper across than along: dividing by the slope blurs the tips as much as the sides.
    tiny = np.float32(1e-3)
    slope = np.hypot(along / (length / 2), across / (width / 2)) / np.maximum(radius, tiny)
    return np.asarray((outline - radius) / np.maximum(slope, tiny), dtype=np.float32)


def _windows(field: FloatMap, count: int, size_px: int, rng: np.random.Generator) -> FloatMap:
    """Cut square windows out of a seamless field, (window, row, col)."""
    rows, cols = rng.integers(0, len(field), size=(2, count, 1, 1))
    window = np.arange(size_px)
    windows: FloatMap = field[(rows + window[:, None]) % len(field), (cols + window) % len(field)]
    return windows


def _nucleoli(x: FloatMap, y: FloatMap, width: FloatArray, mean: float, rng: np.random.Generator) -> FloatMap:
    """Round dark bodies, up to three a nucleus."""
    count = len(width)
    total = np.zeros((count, *x.shape[1:]), dtype=np.float32)
    number = rng.poisson(mean, size=count)
    for index in range(3):
        distance, angle = rng.uniform(0, 0.26, count) * width, rng.uniform(0, 2 * np.pi, count)
        squared = (x - _column(distance * np.cos(angle))) ** 2 + (y - _column(distance * np.sin(angle))) ** 2
        spread = _column(rng.uniform(0.32, 0.66, count))
        strength = _column(np.where(index < number, rng.uniform(0.4, 0.9, count), 0.0))
        total += strength * np.exp(-squared / (2 * spread**2))
    return total


def _draw_dust(mpp: float, rng: np.random.Generator, count: int = 80) -> Sprites:
    """Fragments of broken nuclei: small clusters of dark grains."""
    x, y = _pixel_grid(13.0, mpp)
    chromatin = np.zeros((count, *x.shape[1:]), dtype=np.float32)
    number = rng.integers(2, 10, size=count)
    for index in range(9):
        cx, cy = rng.normal(0, 2.0, size=(2, count))
        radius = _column(rng.uniform(0.3, 0.95, count))
        strength = _column(np.where(index < number, rng.uniform(0.4, 1.3, count), 0.0))
        squared = (x - _column(cx)) ** 2 + (y - _column(cy)) ** 2
        chromatin = np.maximum(chromatin, strength * smooth_step(radius - np.sqrt(squared), -0.4, 0.4))
    return _as_sprites(chromatin, np.minimum(chromatin, 1), count)


def _draw_ghosts(mpp: float, rng: np.random.Generator, count: int = 120) -> Sprites:
    """Outlines of dead cells: a nucleus that has lost its chromatin leaves a pale, smudged shape."""
    look = _Look((7.0, 12.5), (0.6, 1.0), (0.0, 0.10))
    length = rng.uniform(*look.length_um, size=count)
    ellipse = np.stack([length, length * rng.uniform(*look.aspect, size=count), rng.uniform(0, np.pi, count)])
    x, y = _pixel_grid(15.0, mpp)
    inside_um = _depth_in_blob(x, y, ellipse, 0.12, rng)
    body = smooth_step(inside_um, -1.0, 1.0)
    rim = np.exp(-((inside_um / np.float32(0.9)) ** 2))
    chromatin = rim * _column(rng.uniform(0.03, 0.20, count))
    chromatin += body * _column(rng.uniform(*look.chromatin, size=count))
    grain = periodic_noise(rng, _GRAIN_PX, (0.5 / mpp, 0.5 / mpp))
    chromatin *= 1 + np.float32(0.3) * _windows(grain, count, x.shape[-1], rng)
    return _as_sprites(chromatin, body * _column(rng.uniform(0.2, 1.0, count)), count)


def _as_sprites(chromatin: FloatMap, coverage: FloatMap, variants: int) -> Sprites:
    """Turn stacks into bytes and cut each picture to what it shows."""
    chromatin_steps = np.clip(np.rint(chromatin / CONCENTRATION_STEP), 0, 255).astype(np.uint8)
    coverage_steps = np.clip(np.rint(coverage * 255), 0, 255).astype(np.uint8)
    windows = [_shown(picture) for picture in coverage_steps]
    return Sprites(
        chromatin=[np.ascontiguousarray(p[w]) for p, w in zip(chromatin_steps, windows, strict=True)],
        coverage=[np.ascontiguousarray(p[w]) for p, w in zip(coverage_steps, windows, strict=True)],
        variants=variants,
    )


def _shown(picture: ByteMap) -> tuple[slice, slice]:
    """Window of a square picture, centred, that holds all that is not empty."""
    rows, cols = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    last = picture.shape[0] - 1
    margin_rows = min(rows[0], last - rows[-1]) if len(rows) else 0
    margin_cols = min(cols[0], last - cols[-1]) if len(cols) else 0
    return slice(margin_rows, last + 1 - margin_rows), slice(margin_cols, last + 1 - margin_cols)
