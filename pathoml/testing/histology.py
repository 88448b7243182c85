"""Where each kind of tissue lies on a synthetic slide.

A layout is drawn in micrometres and knows nothing of pixels, stains or scanners: the same plan gives the same
tissue at every resolution, and the shares of its kinds are known before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pathoml.testing.noise import ByteMap, FloatMap, smooth_noise

KINDS = ("stroma", "tumour", "lymphocytes", "necrosis")
GRID_UM = 4.0
"""Pixel size of a layout's maps."""
TRUTH_UM = 8.0
"""Pixel size of a composition map; canvas sides are multiples of it."""

_BORDER_SOFTNESS = np.float32(0.05)  # in deviations of a region field: a border blends over about 30 um
_CANVAS_MARGIN_UM = 45.0


@dataclass(frozen=True)
class TissuePlan:
    """What a piece of tissue is to contain.

    Parameters
    ----------
    seed
        Seed of the cohort and index of the slide in it.
    width_um, height_um
        Extent of the slide's canvas.
    tissue_area_mm2
        Area covered by tissue.
    necrosis, lymphocytes
        Share of the tissue, 0 to 1.
    tumour
        Share of the remaining tissue that is tumour; what is left is stroma.
    glands
        Share of the tumour that forms glands; the rest is solid.
    pieces
        Number of separate pieces of tissue, 1 or 2.
    """

    seed: tuple[int, int]
    width_um: float
    height_um: float
    tissue_area_mm2: float
    necrosis: float
    lymphocytes: float
    tumour: float
    glands: float
    pieces: int = 1

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of the layout's maps."""
        return round(self.height_um / GRID_UM), round(self.width_um / GRID_UM)

    def generator(self, purpose: int) -> np.random.Generator:
        """Return the generator for one purpose, so that drawing more of one thing never changes another.

        Parameters
        ----------
        purpose
            A number for each thing drawn.

        Returns
        -------
        Generator
            Seeded by the plan and the purpose.
        """
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(purpose,)))


@dataclass(frozen=True)
class Layout:
    """Maps of one slide's tissue at `GRID_UM` per pixel.

    Parameters
    ----------
    depth_um
        float32 (row, col), distance to the tissue's outline, negative outside.
    shares
        float32 (row, col, kind), sums to 1 over `KINDS` everywhere.
    glandular
        float32 (row, col), how far the tumour forms glands here, 0 to 1.
    """

    depth_um: FloatMap
    shares: FloatMap
    glandular: FloatMap

    def composition(self) -> ByteMap:
        """Return the shares of each kind at `TRUTH_UM` per pixel.

        Returns
        -------
        numpy.ndarray
            uint8 (row, col, kind); sums to 255 where at least half of the pixel is tissue and is 0 elsewhere.
        """
        factor = round(TRUTH_UM / GRID_UM)
        size = (self.depth_um.shape[1] // factor, self.depth_um.shape[0] // factor)
        tissue = (self.depth_um > 0).astype(np.float32)
        covered = cv2.resize(tissue, size, interpolation=cv2.INTER_AREA)
        shares = cv2.resize(self.shares * tissue[..., None], size, interpolation=cv2.INTER_AREA)
        shares = shares / np.maximum(covered, np.float32(1e-6))[..., None]
        composition = np.floor(shares * np.float32(255)).astype(np.int32)
        largest = composition.argmax(axis=-1)[..., None]
        rounded = np.take_along_axis(composition, largest, -1) + 255 - composition.sum(axis=-1, keepdims=True)
        np.put_along_axis(composition, largest, rounded, -1)
        composition[covered < 0.5] = 0
        return np.asarray(composition, dtype=np.uint8)


def lay_out(plan: TissuePlan) -> Layout:
    """Draw the layout of a slide.

    Parameters
    ----------
    plan
        What the slide is to contain.

    Returns
    -------
    Layout
        The same maps for the same plan, always.

    Notes
    -----
    Each kind is cut out of a smooth random field at the level that gives it the planned share: necrosis,
    then lymphocytes from what is left, then tumour. Shares are therefore met within about a hundredth.
    """
    rng = plan.generator(0)
    depth_um = _signed_distance_um(_tissue_mask(plan, rng))
    inside = depth_um > 0
    necrosis = _region(_region_field(rng, plan.grid_shape), inside, np.ones_like(depth_um), plan.necrosis)
    rest = 1 - necrosis
    lymphocytes = rest * _region(_region_field(rng, plan.grid_shape), inside, rest, plan.lymphocytes)
    rest = rest - lymphocytes
    tumour_share = plan.tumour * (1 - plan.necrosis - plan.lymphocytes)
    tumour = rest * _region(_region_field(rng, plan.grid_shape), inside, rest, tumour_share)
    glandular = _region(_region_field(rng, plan.grid_shape), inside, np.ones_like(depth_um), plan.glands)
    shares = np.dstack([rest - tumour, tumour, lymphocytes, necrosis])
    return Layout(depth_um=depth_um, shares=shares, glandular=glandular)


def _octaves(rng: np.random.Generator, shape: tuple[int, int], steps_um: tuple[tuple[float, float], ...]) -> FloatMap:
    """Sum smooth fields given as (step in micrometres, amplitude)."""
    total = np.zeros(shape, dtype=np.float32)
    for step_um, amplitude in steps_um:
        total += np.float32(amplitude) * smooth_noise(rng, shape, step_um / GRID_UM)
    return total


def _region_field(rng: np.random.Generator, shape: tuple[int, int]) -> FloatMap:
    """Field whose upper level sets are blobs of a few hundred micrometres with fingered borders."""
    return _octaves(rng, shape, ((140.0, 1.0), (45.0, 0.22), (18.0, 0.16)))


def _region(field: FloatMap, inside: npt.NDArray[np.bool_], available: FloatMap, share: float) -> FloatMap:
    """Soft mask of the highest parts of a field, covering ``share`` of the tissue."""
    sample = np.s_[::2, ::2]
    values, weights = field[sample][inside[sample]], available[sample][inside[sample]]

    def covered(level: float) -> float:
        return float((_soft_mask(values, level) * weights).mean())

    return _soft_mask(field, _bisect(covered, share, float(field.min()) - 1.0, float(field.max()) + 1.0))


def _soft_mask(field: FloatMap, level: float) -> FloatMap:
    """Logistic step of a field around a level."""
    exponent = np.clip((field - np.float32(level)) / _BORDER_SOFTNESS, np.float32(-12), np.float32(12))
    mask: FloatMap = 1 / (1 + np.exp(-exponent))
    return mask


def _bisect(covered: Callable[[float], float], share: float, low: float, high: float) -> float:
    """Level at which a falling function reaches ``share``."""
    for _ in range(18):
        middle = (low + high) / 2
        if covered(middle) > share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _tissue_mask(plan: TissuePlan, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Irregular outline of the planned area, clear of the canvas's borders."""
    rows, cols = plan.grid_shape
    y, x = np.mgrid[0:rows, 0:cols].astype(np.float32) * np.float32(GRID_UM)
    centres, radius = _piece_centres(plan, rng)
    heights = [
        1 - np.hypot((x - cx) / (radius * plan.width_um), (y - cy) / (0.5 * plan.height_um)) for cx, cy in centres
    ]
    field = np.maximum.reduce(heights) + _octaves(rng, (rows, cols), ((150.0, 0.16), (50.0, 0.06), (16.0, 0.025)))
    border_um = np.minimum.reduce([x, y, plan.width_um - x, plan.height_um - y])
    field -= np.clip(1 - border_um / np.float32(4 * _CANVAS_MARGIN_UM), 0, 1) ** 2 * np.float32(0.9)
    field[border_um < _CANVAS_MARGIN_UM / 2] = -np.inf
    if len(centres) > 1:
        (x0, y0), (x1, y1) = centres
        side = ((x - (x0 + x1) / 2) * (x1 - x0) + (y - (y0 + y1) / 2) * (y1 - y0)) / np.hypot(x1 - x0, y1 - y0)
        gap_um = np.abs(side + 18 * smooth_noise(rng, (rows, cols), 80.0 / GRID_UM))
        field[gap_um < 40] = -np.inf
    share = plan.tissue_area_mm2 * 1e6 / (plan.width_um * plan.height_um)
    mask: npt.NDArray[np.bool_] = field > np.quantile(field[::2, ::2], 1 - share)
    return mask


def _piece_centres(plan: TissuePlan, rng: np.random.Generator) -> tuple[list[tuple[float, float]], float]:
    """Centres of the pieces in micrometres, and their half width as a share of the canvas width."""
    jitter_x, jitter_y = rng.uniform(-0.04, 0.04, size=2)
    tilt = rng.uniform(-0.1, 0.1)
    width, height = plan.width_um, plan.height_um
    if plan.pieces == 1:
        return [(width * (0.5 + jitter_x), height * (0.5 + jitter_y))], 0.5
    return [(width * 0.3, height * (0.5 + tilt)), (width * (0.76 + jitter_x), height * (0.5 - tilt))], 0.3


def _signed_distance_um(mask: npt.NDArray[np.bool_]) -> FloatMap:
    """Distance to the mask's outline in micrometres, positive inside."""
    inside = mask.astype(np.uint8)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    to_inside = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    distance: FloatMap = ((to_outside - to_inside) * np.float32(GRID_UM)).astype(np.float32)
    return cv2.GaussianBlur(distance, (0, 0), 0.8).astype(np.float32, copy=False)
