"""Air bubbles under the cover slip, by their rim: a thin, dark, colourless, closed curve."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts.blocks import in_blocks
from pathoml.artefacts.density import Absorption, Densities
from pathoml.artefacts.settings import QualitySettings
from pathoml.morphology import dilate, disc, places_of
from pathoml.units import BoolArray, FloatArray, IntArray

_RADII_UM = np.geomspace(90, 450, 10)
_RIM_UM = 24.0
_LEAST_RIM, _FULL_RIM = 0.07, 0.25
_MOST_COLOUR = 1.65
_SAME, _MOST_JUDGED = 0.3, 12
"""Curves whose centres and radii differ by less (radii) are one; of the strongest of a block the focus is measured."""
_WITHIN, _BEYOND, _BLURRED = 0.62, 1.75, 0.5
"""Focus is measured in a square inside the rim and in squares around it (radii); it has to be half of that outside."""
_LEAST_VOTES, _MOST_VOTERS, _MOST_CANDIDATES = 0.2, 60_000, 30
_ANGLES, _REACH, _STEPS, _TURN_COST = 72, 0.3, 21, 0.03
_CLOSED_STEPS, _LEAST_SHOWN = 3, 0.4
_SUPPORT_RADII_UM, _LEAST_SUPPORT = (110.0, 200.0), (0.85, 0.75)

DetailAt = Callable[[float, float, float], float]


class _Curves(NamedTuple):
    """Closed curves around candidates: their radius at each angle (pixels), and what speaks for them."""

    radius: FloatArray  # (candidates, angles)
    support: FloatArray  # share of the curve that is rim
    strength: FloatArray  # mean density of the rim
    shown: FloatArray  # share of the curve that lies in the picture
    closed: BoolArray


def find_bubbles(
    slide: Absorption, settings: QualitySettings, detail: DetailAt, *, ink: BoolArray | None = None
) -> BoolArray:  # fmt: skip
    """Find bubbles of 0.15 to 1 mm; others by nothing but what they do to the focus of tiles.

    Every rim pixel votes for centres on both sides of the rim it lies on; around each centre with many votes the
    strongest closed curve is found. It is a bubble if most of it is rim, dark in every colour, and what lies inside is
    out of focus: rings of nuclei around glands, follicles and vessels are sharp.

    Parameters
    ----------
    slide : Absorption
        Of the whole slide.
    settings : QualitySettings
        Density of a rim, and what is in focus.
    detail : callable
        Column, row and half the side (pixels of the picture) of a square -> its fine over coarse detail, as
        `pathoml.artefacts.fine_over_coarse` measures it at full resolution; NaN where it cannot be told.
    ink : ndarray of bool, shape (rows, columns), optional
        Marker pen, whose edges are no rims.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True on rims and what they enclose.

    References
    ----------
    Voting along normals: Ballard DH. Generalizing the Hough transform to detect arbitrary shapes. Pattern Recognition 13
    (1981) 111-122. The confirmation by focus is pathoml's own.
    """
    mpp = slide.mpp

    def find(part: tuple[slice, slice]) -> BoolArray:
        densities = slide.of(part)
        rows, columns = part

        def detail_here(x: float, y: float, half: float) -> float:
            return detail(columns.start + x, rows.start + y, half)

        return _bubbles_in(densities, mpp, settings, detail_here, ink[part] if ink is not None else None)

    return in_blocks(slide.shape, 2 * (1 + _REACH) * _RADII_UM[-1] / mpp, find)


def _bubbles_in(
    densities: Densities, mpp: float, settings: QualitySettings, detail: DetailAt, ink: BoolArray | None
) -> BoolArray:  # fmt: skip
    added = _added_by_thin_structures(densities, mpp)
    rim = np.ascontiguousarray(added.min(axis=0))
    if ink is not None and ink.any():
        rim[dilate(ink, _RIM_UM / mpp)] = 0
    inside = np.zeros(rim.shape, dtype=np.uint8)
    centres = _candidates(rim, _RADII_UM / mpp)
    if len(centres) == 0:
        return inside > 0
    curves = _curves(rim, centres)
    needed = np.interp(centres[:, 2] * mpp, _SUPPORT_RADII_UM, _LEAST_SUPPORT)
    likely = (curves.support >= needed) & (curves.strength >= settings.bubble_rim) & curves.closed
    likely &= (curves.shown > _LEAST_SHOWN) & (_colour(added, centres, curves.radius) < _MOST_COLOUR)
    angle = _angles()
    for index in _distinct(centres, curves, likely):
        (x, y, _), radius = centres[index], curves.radius[index]
        if not _out_of_focus((x, y, float(radius.mean())), settings, detail):
            continue
        outline = np.stack([x + (radius + 1) * np.cos(angle), y + (radius + 1) * np.sin(angle)], axis=1)
        cv2.fillPoly(inside, [np.rint(outline).astype(np.int32)], 1)
    return inside > 0


def _distinct(centres: FloatArray, curves: _Curves, likely: BoolArray) -> list[int]:
    """Return the strongest of the likely curves, without those that only repeat a stronger one."""
    kept: list[int] = []
    places = np.column_stack([centres[:, :2], curves.radius.mean(axis=1)])
    for index in np.flatnonzero(likely)[np.argsort(-(curves.support * curves.strength)[likely], kind="stable")]:
        away = np.abs(places[kept] - places[index]).max(axis=1, initial=0)
        if not (away < _SAME * places[index, 2]).any():
            kept.append(int(index))
        if len(kept) == _MOST_JUDGED:
            break
    return kept


def _out_of_focus(circle: tuple[float, float, float], settings: QualitySettings, detail: DetailAt) -> bool:
    """Say whether the inside of a circle is out of focus, for itself and against four places around it."""
    x, y, radius = circle
    within = detail(x, y, _WITHIN * radius)
    if not within < settings.min_sharpness:  # nor where it is NaN, without any detail: bare glass is no loss
        return False
    beyond = [
        detail(x + _BEYOND * radius * right, y + _BEYOND * radius * down, _WITHIN * radius)
        for right, down in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    seen = [one for one in beyond if not np.isnan(one)]
    return not seen or within < _BLURRED * float(np.median(seen))


def _added_by_thin_structures(densities: Densities, mpp: float) -> NDArray[np.float32]:
    """Return the density that thin structures add to what lies around them, shape (3, rows, columns)."""
    added = [cv2.morphologyEx(one, cv2.MORPH_TOPHAT, disc(_RIM_UM / mpp)) for one in densities]
    return np.asarray(np.stack(added), dtype=np.float32)


def _colour(added: NDArray[np.float32], centres: FloatArray, radius: FloatArray) -> FloatArray:
    """Return by how many times curves add more in one colour than in another: 1 for a shadow, 2 and more for stain."""
    along = [_along(channel, centres, radius).mean(axis=1) for channel in added]
    return np.asarray(np.max(along, axis=0) / np.maximum(np.min(along, axis=0), 1e-3), dtype=np.float64)


def _along(channel: NDArray[np.float32], centres: FloatArray, radius: FloatArray) -> NDArray[np.float32]:
    """Return values along curves, shape (curves, angles); 0 outside the picture."""
    angle = _angles()
    x = (centres[:, :1] + radius * np.cos(angle)).astype(np.float32)
    y = (centres[:, 1:2] + radius * np.sin(angle)).astype(np.float32)
    parts = [
        cv2.remap(channel, part_x, part_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        for part_x, part_y in zip(_parts(x), _parts(y), strict=True)
    ]
    return np.asarray(np.concatenate(parts), dtype=np.float32)


def _candidates(rim: NDArray[np.float32], radii_px: FloatArray) -> FloatArray:
    """Return centres with many votes: x, y and radius in pixels, shape (candidates, 3)."""
    rows, columns = places_of(rim > _LEAST_RIM)
    every = 1 + len(rows) // _MOST_VOTERS
    rows, columns = rows[::every], columns[::every]
    normal = _normals(rim, (rows, columns))
    across = (np.cos(normal), np.sin(normal))
    weight = np.asarray(np.minimum(rim[rows, columns], _FULL_RIM) * every, dtype=np.float64)
    found = [_most_voted((rows, columns), across, weight, radius, rim.shape) for radius in radii_px]
    return np.concatenate(found) if found else np.zeros((0, 3))


def _normals(rim: NDArray[np.float32], at: tuple[IntArray, IntArray]) -> NDArray[np.float32]:
    """Return the direction (radians) across the ridge at some pixels, from second derivatives."""
    soft = cv2.GaussianBlur(rim, (0, 0), 1.0)
    xx, yy, xy = (cv2.Sobel(soft, cv2.CV_32F, *order)[at] for order in ((2, 0), (0, 2), (1, 1)))
    return np.asarray(0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2, dtype=np.float32)


def _most_voted(
    at: tuple[IntArray, IntArray], across: tuple[NDArray[np.float32], NDArray[np.float32]],
    weight: FloatArray, radius: float, shape: tuple[int, ...],
) -> FloatArray:  # fmt: skip
    cell = max(1.0, radius / 4)
    width, height = int(shape[1] / cell) + 3, int(shape[0] / cell) + 3
    # Around the cells that count lies room for every vote, so that none has to be looked at.
    room = int(np.ceil(radius / cell)) + 1
    wide, high = width + 2 * room, height + 2 * room
    votes = np.zeros(wide * high)
    here_x, here_y = at[1] / cell + (1 + room), at[0] / cell + (1 + room)
    reach_x, reach_y = across[0] * (radius / cell), across[1] * (radius / cell)
    for x, y in ((here_x + reach_x, here_y + reach_y), (here_x - reach_x, here_y - reach_y)):
        place = y.astype(np.int64)
        place *= wide
        place += x.astype(np.int64)
        votes += np.bincount(place, weights=weight, minlength=wide * high)
    votes = np.ascontiguousarray(votes.reshape(high, wide)[room:-room, room:-room])
    around: FloatArray = np.asarray(cv2.blur(votes, (3, 3)), dtype=np.float64)
    around *= 9 / (2 * np.pi * radius * _FULL_RIM)
    rows, columns = places_of((around == cv2.dilate(around, np.ones((3, 3)))) & (around > _LEAST_VOTES))
    best = np.argsort(-around[rows, columns], kind="stable")[:_MOST_CANDIDATES]
    return np.column_stack([(columns[best] - 0.5) * cell, (rows[best] - 0.5) * cell, np.full(len(best), radius)])


def _angles() -> FloatArray:
    return np.arange(_ANGLES) * 2 * np.pi / _ANGLES


def _curves(rim: NDArray[np.float32], centres: FloatArray) -> _Curves:
    """Find the strongest smooth closed curve around each centre, within 30 % of its radius."""
    stretch = 1 + np.linspace(-_REACH, _REACH, _STEPS)
    radius = centres[:, 2, None, None] * stretch
    angle = _angles()[None, :, None]
    x = (centres[:, 0, None, None] + radius * np.cos(angle)).astype(np.float32)
    y = (centres[:, 1, None, None] + radius * np.sin(angle)).astype(np.float32)
    flat = (len(centres) * _ANGLES, _STEPS)
    values = np.concatenate(
        [
            cv2.remap(rim, part_x, part_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            for part_x, part_y in zip(_parts(x.reshape(flat)), _parts(y.reshape(flat)), strict=True)
        ]
    ).reshape(x.shape)
    shown = (x >= 0) & (y >= 0) & (x < rim.shape[1]) & (y < rim.shape[0])
    # What lies outside the picture speaks neither for nor against.
    values = np.where(shown, np.minimum(values, _FULL_RIM), 0.1)
    path = _strongest_lap(values)
    on_path = np.take_along_axis(values, path[..., None], 2)[..., 0]
    on_shown = np.take_along_axis(shown, path[..., None], 2)[..., 0]
    count = np.maximum(on_shown.sum(axis=1), 1)
    curve = centres[:, 2, None] * stretch[path]
    return _Curves(
        radius=curve,
        support=((on_path > 0.06) & on_shown).sum(axis=1) / count,
        strength=(on_path * on_shown).sum(axis=1) / count,
        shown=on_shown.mean(axis=1),
        closed=np.abs(path[:, _ANGLES // 2] - path[:, _ANGLES // 2 - 1]) <= _CLOSED_STEPS,
    )


def _parts(maps: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cut maps into pieces of at most 32,000 rows, which OpenCV can take."""
    return [maps[start : start + 32_000] for start in range(0, len(maps), 32_000)]


def _strongest_lap(values: FloatArray) -> IntArray:
    """Return for every angle the radius step of the strongest way around: the middle of two laps, whose ends are free."""
    path = _strongest_path(np.concatenate([values, values], axis=1))
    half = _ANGLES // 2
    return np.roll(path[:, half : half + _ANGLES], half, axis=1)


def _strongest_path(values: FloatArray) -> IntArray:
    """Return for every angle the radius step of the path with the largest sum that turns by one step at most."""
    lanes = np.ascontiguousarray(np.moveaxis(values, 1, 0))  # (angles, candidates, steps)
    angles, count, steps = lanes.shape
    turns = np.zeros(lanes.shape, dtype=np.int8)
    before = np.full((count, steps + 2), -np.inf)
    inner, lower, upper = before[:, 1:-1], before[:, :-2], before[:, 2:]
    inner[:] = lanes[0]
    for angle in range(1, angles):
        turn = turns[angle]
        from_lower, from_upper = lower - _TURN_COST, upper - _TURN_COST
        best = np.maximum(from_lower, inner)
        np.subtract(inner > from_lower, 1, out=turn, dtype=np.int8)
        turn[from_upper > best] = 1
        np.maximum(best, from_upper, out=best)
        np.add(best, lanes[angle], out=inner)
    path = np.zeros(values.shape[:2], dtype=np.int64)
    path[:, -1] = inner.argmax(axis=1)
    each = np.arange(count)
    for angle in range(angles - 1, 0, -1):
        path[:, angle - 1] = path[:, angle] + turns[angle, each, path[:, angle]]
    return path
