"""Where the cells, glands and vessels of a synthetic slide lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pathoml.testing.histology import GRID_UM, Layout, TissuePlan
from pathoml.testing.noise import FloatMap, smooth_noise, smooth_step
from pathoml.testing.nuclei import Cell

FloatArray = npt.NDArray[np.float64]


class Cells(NamedTuple):
    """Cells of a slide, one entry each.

    Parameters
    ----------
    x_um, y_um
        Centres.
    kind
        A `Cell` as an integer.
    angle
        Orientation in radians, from the x axis towards the y axis.
    """

    x_um: FloatArray
    y_um: FloatArray
    kind: npt.NDArray[np.int64]
    angle: FloatArray


@dataclass(frozen=True)
class Tube:
    """A gland or a vessel cut across.

    Parameters
    ----------
    outline_um, lumen_um
        Corners (x, y) of the outer outline and of the hollow, float64 (corner, 2).
    is_vessel
        Whether it is a blood vessel, lined by flat cells, and no gland.
    """

    outline_um: FloatArray
    lumen_um: FloatArray
    is_vessel: bool


@dataclass(frozen=True)
class Anatomy:
    """What the renderer needs beside the layout.

    Parameters
    ----------
    cells
        Every nucleus.
    tubes
        Glands and vessels.
    solid
        float32 (row, col), share of the layout's pixel that is solid tumour: nests, no septa, no glands.
    fibres
        float32 (row, col, 2), coordinates along and across the collagen, in micrometres.
    """

    cells: Cells
    tubes: tuple[Tube, ...]
    solid: FloatMap
    fibres: FloatMap


# By Cell: half the distance that two neighbours of a kind keep.
_RADIUS_UM = np.array([4.2, 5.4, 4.0, 3.55, 3.0, 3.0, 5.0])
_PER_MM2 = {
    Cell.FIBROBLAST: 1500.0,
    Cell.TUMOUR: 7600.0,
    Cell.LYMPHOCYTE: 20000.0,
    Cell.PYKNOTIC: 520.0,
    Cell.DUST: 2400.0,
    Cell.GHOST: 3000.0,
}


def populate(plan: TissuePlan, layout: Layout) -> Anatomy:
    """Place the cells of a layout.

    Parameters
    ----------
    plan, layout
        What was planned and where its kinds of tissue lie.

    Returns
    -------
    Anatomy
        In micrometres, the same at every resolution.
    """
    rng = plan.generator(1)
    stroma, tumour, lymphocytes, necrosis = np.moveaxis(layout.shares, -1, 0)
    septa = smooth_step(np.abs(smooth_noise(rng, plan.grid_shape, 55.0 / GRID_UM)), 0.06, 0.16)
    solid = tumour * (1 - layout.glandular) * septa
    fibres = _fibre_coordinates(plan, tumour, rng)
    glands = _place_tubes(
        rng,
        layout,
        tumour * layout.glandular,
        attempts=round(1000 * min(1.0, plan.tissue_area_mm2)),
        is_vessel=False,
    )
    vessels = _place_tubes(rng, layout, stroma * stroma, attempts=16, is_vessel=True)
    connective = np.clip(stroma + tumour - solid, 0, 1)
    density = {
        Cell.FIBROBLAST: connective + 0.35 * lymphocytes,
        Cell.TUMOUR: solid,
        Cell.LYMPHOCYTE: lymphocytes + 0.018 * connective + 0.006 * solid,
        Cell.PYKNOTIC: necrosis + 0.02 * solid,
        Cell.DUST: necrosis**2,
        Cell.GHOST: necrosis,
    }
    free = _scatter(rng, plan, layout, density)
    tubes = (*glands, *vessels)
    lining = _line_tubes(rng, tubes)
    free = _keep(free, ~_is_in_tubes(free, tubes, reach_um=2.5))
    cells = _pushed_apart(_joined(free, lining), fixed_from=len(free.x_um))
    cells = _keep(cells, _at(layout.depth_um, cells.x_um, cells.y_um) > 4.0)
    cells = cells._replace(angle=_along_fibres(cells, fibres, rng))
    return Anatomy(cells=cells, tubes=tubes, solid=solid, fibres=fibres)


def _at(field: FloatMap, x_um: FloatArray, y_um: FloatArray) -> FloatArray:
    """Values of a layout's map at points."""
    rows = np.clip((y_um / GRID_UM).astype(np.int64), 0, field.shape[0] - 1)
    cols = np.clip((x_um / GRID_UM).astype(np.int64), 0, field.shape[1] - 1)
    values: FloatArray = field[rows, cols].astype(np.float64)
    return values


def _keep(cells: Cells, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Cells:
    """Choose cells by mask or by index."""
    return Cells(cells.x_um[chosen], cells.y_um[chosen], cells.kind[chosen], cells.angle[chosen])


def _joined(first: Cells, second: Cells) -> Cells:
    """Concatenate two sets of cells."""
    return Cells(
        np.concatenate([first.x_um, second.x_um]),
        np.concatenate([first.y_um, second.y_um]),
        np.concatenate([first.kind, second.kind]),
        np.concatenate([first.angle, second.angle]),
    )


def _fibre_coordinates(plan: TissuePlan, tumour: FloatMap, rng: np.random.Generator) -> FloatMap:
    """Coordinates along and across collagen that swings, crimps and gives way around the tumour."""
    shape = plan.grid_shape
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) * np.float32(GRID_UM)
    angle = rng.uniform(0, np.pi)
    along = cols * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    across = rows * np.float32(np.cos(angle)) - cols * np.float32(np.sin(angle))
    along += 50 * smooth_noise(rng, shape, 170.0 / GRID_UM)
    across += 75 * smooth_noise(rng, shape, 190.0 / GRID_UM) + 15 * smooth_noise(rng, shape, 50.0 / GRID_UM)
    across += 4.5 * smooth_noise(rng, shape, 16.0 / GRID_UM) + 30 * cv2.GaussianBlur(tumour, (0, 0), 6.0)
    return np.dstack([along, across]).astype(np.float32, copy=False)


def _along_fibres(cells: Cells, fibres: FloatMap, rng: np.random.Generator) -> FloatArray:
    """Orient fibroblasts along the level lines of the coordinate across the fibres."""
    across = fibres[..., 1]
    down, right = np.gradient(across, axis=0), np.gradient(across, axis=1)
    along = np.arctan2(-_at(right, cells.x_um, cells.y_um), _at(down, cells.x_um, cells.y_um))
    along += rng.normal(0, 0.18, len(along))
    return np.where((cells.kind == Cell.FIBROBLAST) & np.isnan(cells.angle), along, np.nan_to_num(cells.angle))


def _scatter(rng: np.random.Generator, plan: TissuePlan, layout: Layout, density: dict[Cell, FloatMap]) -> Cells:
    """Throw points of each kind with a chance that follows its density."""
    x_parts, y_parts, kinds = [], [], []
    for cell, field in density.items():
        count = rng.poisson(_PER_MM2[cell] * plan.width_um * plan.height_um * 1e-6)
        x_um, y_um = rng.uniform(0, plan.width_um, count), rng.uniform(0, plan.height_um, count)
        chance = rng.uniform(size=count)
        taken = (chance < _at(field, x_um, y_um)) & (_at(layout.depth_um, x_um, y_um) > 2.0)
        x_parts.append(x_um[taken])
        y_parts.append(y_um[taken])
        kinds.append(np.full(int(taken.sum()), int(cell), dtype=np.int64))
    x_um, y_um = np.concatenate(x_parts), np.concatenate(y_parts)
    return Cells(x_um, y_um, np.concatenate(kinds), np.full(len(x_um), np.nan))


def _pushed_apart(cells: Cells, fixed_from: int, rounds: int = 7) -> Cells:
    """Let crowded cells give way to each other and drop those that still overlap; the last ones stay put."""
    centres = np.stack([cells.x_um, cells.y_um], axis=1)
    radius = _RADIUS_UM[cells.kind]
    pairs = cKDTree(centres).query_pairs(11.5, output_type="ndarray")
    solid = (cells.kind[pairs] < Cell.DUST).all(axis=1)
    first, second = pairs[solid].T
    wanted = radius[first] + radius[second]
    mobile = (np.arange(len(centres)) < fixed_from).astype(np.float64)
    for _ in range(rounds):
        gap = centres[second] - centres[first]
        distance = np.maximum(np.hypot(*gap.T), 0.05)
        push = gap * (np.maximum(wanted - distance, 0) * 0.3 / distance)[:, None]
        for axis in range(2):
            move = np.bincount(second, push[:, axis], len(centres))
            move -= np.bincount(first, push[:, axis], len(centres))
            centres[:, axis] += np.clip(move, -3, 3) * mobile
    overlap = np.hypot(*(centres[second] - centres[first]).T) < 0.70 * wanted
    kept = np.ones(len(centres), dtype=np.bool_)
    kept[first[overlap & (first < fixed_from)]] = False
    moved = cells._replace(x_um=centres[:, 0], y_um=centres[:, 1])
    return _keep(moved, kept)


def _place_tubes(
    rng: np.random.Generator, layout: Layout, where: FloatMap, *, attempts: int, is_vessel: bool
) -> tuple[Tube, ...]:
    """Throw tubes where a map is high, each clear of the others and of the tissue's outline."""
    low, high = (12.0, 30.0) if is_vessel else (20.0, 54.0)
    likely = np.argwhere(where > 0.5)
    if len(likely) == 0:
        return ()
    centres = (likely[rng.integers(len(likely), size=attempts)] + rng.uniform(size=(attempts, 2))) * GRID_UM
    sizes = np.sort(rng.uniform(size=attempts) ** 2.0)[::-1]  # large ones first, small ones find room between
    y, x, radius = centres[:, 0], centres[:, 1], low + (high - low) * sizes
    ring = np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None]
    around = _at(where, x + 0.8 * radius * np.cos(ring), y + 0.8 * radius * np.sin(ring)).min(axis=0)
    fits = (around > 0.35) & (_at(layout.depth_um, x, y) > radius + 10)
    placed: list[tuple[float, float, float]] = []
    for tube in zip(x[fits].tolist(), y[fits].tolist(), radius[fits].tolist(), strict=True):
        if all(math.hypot(tube[0] - px, tube[1] - py) > tube[2] + reach + 5 for px, py, reach in placed):
            placed.append(tube)
    return tuple(_draw_tube(rng, (x, y), radius, is_vessel=is_vessel) for x, y, radius in placed)


def _draw_tube(rng: np.random.Generator, centre: tuple[float, float], radius_um: float, *, is_vessel: bool) -> Tube:
    """Draw a wavy, oval outline and the hollow inside it."""
    direction = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wave = sum(
        rng.normal(0, amplitude) * np.cos(k * direction + rng.uniform(0, 2 * np.pi))
        for k, amplitude in ((2, 0.13), (3, 0.07), (4, 0.05), (6, 0.03))
    )
    outer = radius_um * np.clip(1 + wave, 0.6, 1.12)
    wall = rng.uniform(3.0, 5.0) if is_vessel else rng.uniform(16.0, 22.0)
    ripple = sum(rng.normal(0, 0.9) * np.cos(k * direction + rng.uniform(0, 2 * np.pi)) for k in (5, 7, 9, 12))
    inner = np.maximum(outer - wall + (0 if is_vessel else ripple), 0)
    if not is_vessel and radius_um < 32 and rng.uniform() < 0.25:
        inner = inner * 0.0  # cut beside the hollow: a nest
    squeeze = rng.uniform(0.35, 0.9) if is_vessel else rng.uniform(0.75, 1.0)
    turn = rng.uniform(0, np.pi)

    def corners(radius: FloatArray) -> FloatArray:
        along, across = radius * np.cos(direction), radius * np.sin(direction) * squeeze
        x = centre[0] + along * np.cos(turn) - across * np.sin(turn)
        y = centre[1] + along * np.sin(turn) + across * np.cos(turn)
        return np.stack([x, y], axis=1)

    return Tube(corners(outer), corners(inner), is_vessel)


def _line_tubes(rng: np.random.Generator, tubes: tuple[Tube, ...]) -> Cells:
    """Place the nuclei of the lining: tall and crowded at the base of a gland, flat along a vessel."""
    lining = Cells(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), np.empty(0))
    for tube in tubes:
        lining = _joined(lining, _line_tube(rng, tube))
    return lining


def _line_tube(rng: np.random.Generator, tube: Tube) -> Cells:
    """Nuclei of one tube, spaced along its outline."""
    closed = np.vstack([tube.outline_um, tube.outline_um[:1]])
    run = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    rows = (0.0,) if tube.is_vessel else (7.6, 11.5)
    spacing = 17.0 if tube.is_vessel else 6.6
    centre = tube.outline_um.mean(axis=0)
    x_parts, y_parts, angles = [], [], []
    for layer, depth_um in enumerate(rows):
        count = max(3, int(run[-1] / (spacing * (1 + 0.9 * layer))))
        at = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * run[-1] / count % run[-1]
        point = np.stack([np.interp(at, run, closed[:, axis]) for axis in range(2)], axis=1)
        inward = centre - point
        reach = np.maximum(np.hypot(*inward.T), 1e-3)
        inward /= reach[:, None]
        point += inward * (depth_um + rng.normal(0, 0.9, count))[:, None]
        x_parts.append(point[:, 0])
        y_parts.append(point[:, 1])
        angles.append(np.arctan2(inward[:, 1], inward[:, 0]) + (np.pi / 2 if tube.is_vessel else 0.0))
    angle = np.concatenate(angles)
    kind = np.full(len(angle), int(Cell.FIBROBLAST if tube.is_vessel else Cell.EPITHELIUM), dtype=np.int64)
    return Cells(np.concatenate(x_parts), np.concatenate(y_parts), kind, angle + rng.normal(0, 0.15, len(angle)))


def _is_in_tubes(cells: Cells, tubes: tuple[Tube, ...], reach_um: float) -> npt.NDArray[np.bool_]:
    """Whether a cell's centre lies in a tube or within ``reach_um`` of its outline, about."""
    hidden = np.zeros(len(cells.x_um), dtype=np.bool_)
    tree = cKDTree(np.stack([cells.x_um, cells.y_um], axis=1))
    for tube in tubes:
        centre = tube.outline_um.mean(axis=0)
        corner = tube.outline_um - centre
        reach, direction = np.hypot(*corner.T), np.arctan2(corner[:, 1], corner[:, 0])
        near = np.array(tree.query_ball_point(centre, reach.max() + reach_um), dtype=np.int64)
        if near.size == 0:
            continue
        offset = np.stack([cells.x_um[near], cells.y_um[near]], axis=1) - centre
        limit = np.interp(np.arctan2(offset[:, 1], offset[:, 0]), direction, reach, period=2 * np.pi)
        hidden[near[np.hypot(*offset.T) < limit + reach_um]] = True
    return hidden
