"""From tissue to pixels: nuclei stamped on the ground, seen through a hospital's stain."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from pathoml.testing.cells import Anatomy, Cells
from pathoml.testing.ground import BLOCK_PX, Ground, lay_ground
from pathoml.testing.histology import Layout, TissuePlan
from pathoml.testing.noise import ByteMap
from pathoml.testing.nuclei import ANGLES, Cell, sprite_library
from pathoml.testing.staining import StainProfile, StainRenderer

_HIDDEN_EOSIN = 0.30  # share of the eosin under a nucleus that it hides


def render(plan: TissuePlan, layout: Layout, anatomy: Anatomy, stain: StainProfile, mpp: float) -> ByteMap:
    """Render a slide at full resolution.

    Parameters
    ----------
    plan, layout, anatomy
        The tissue.
    stain
        The slide's stain.
    mpp
        Micrometres per pixel.

    Returns
    -------
    numpy.ndarray
        uint8 (row, col, 3), red, green, blue.
    """
    shape = (round(plan.height_um / mpp), round(plan.width_um / mpp))
    ground = lay_ground(plan, layout, anatomy, mpp)
    chromatin, coverage = _stamp(anatomy.cells, shape, mpp, plan.generator(7))
    colours = StainRenderer(stain, plan.generator(3))
    image = np.empty((*shape, 3), dtype=np.uint8)
    zoom = round(ground.mpp / mpp)
    for window in _blocks(shape, BLOCK_PX * zoom):
        haematoxylin, eosin = _ground_block(ground, window, zoom)
        if coverage[window].any():
            haematoxylin, eosin = _under_nuclei(haematoxylin, eosin, coverage[window])
            haematoxylin = _bytes(cv2.add(haematoxylin, chromatin[window]))
        image[window] = colours.render(haematoxylin, eosin)
    return image


def _under_nuclei(haematoxylin: ByteMap, eosin: ByteMap, coverage: ByteMap) -> tuple[ByteMap, ByteMap]:
    """Take from the ground what the nuclei hide: all of its haematoxylin and some of its eosin."""
    around = cv2.bitwise_not(coverage)
    seen = cv2.addWeighted(around, _HIDDEN_EOSIN, around, 0, 255 * (1 - _HIDDEN_EOSIN))
    return (
        _bytes(cv2.multiply(haematoxylin, around, scale=1 / 255)),
        _bytes(cv2.multiply(eosin, seen, scale=1 / 255)),
    )


def _bytes(image: cv2.typing.MatLike) -> ByteMap:
    """Tell the type checker what OpenCV returns for bytes."""
    return np.asarray(image, dtype=np.uint8)


def _blocks(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    """Windows that cover an image."""
    for row in range(0, shape[0], side):
        for col in range(0, shape[1], side):
            yield slice(row, min(row + side, shape[0])), slice(col, min(col + side, shape[1]))


def _ground_block(ground: Ground, window: tuple[slice, slice], zoom: int) -> tuple[ByteMap, ByteMap]:
    """Haematoxylin and eosin of the ground in a window of the slide."""
    rows, cols = window
    height, width = rows.stop - rows.start, cols.stop - cols.start
    if ground.is_glass(rows.start // zoom, cols.start // zoom):
        glass: ByteMap = np.zeros((height, width), dtype=np.uint8)
        return glass, glass
    haematoxylin, eosin = ground.block(rows.start // zoom, cols.start // zoom)
    if zoom != 1:
        side = (BLOCK_PX * zoom, BLOCK_PX * zoom)
        haematoxylin, eosin = (
            _bytes(cv2.resize(block, side, interpolation=cv2.INTER_CUBIC)) for block in (haematoxylin, eosin)
        )
    return haematoxylin[:height, :width], eosin[:height, :width]


def _stamp(cells: Cells, shape: tuple[int, int], mpp: float, rng: np.random.Generator) -> tuple[ByteMap, ByteMap]:
    """Stamp every nucleus; where two meet, the darker shows. Returns chromatin and coverage."""
    chromatin, coverage = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    library = sprite_library(mpp)
    count = len(cells.kind)
    rows, cols = (
        np.rint(cells.y_um / mpp).astype(int).tolist(),
        np.rint(cells.x_um / mpp).astype(int).tolist(),
    )
    orientation = (np.rint(cells.angle * (ANGLES / np.pi)).astype(np.int64) % ANGLES).tolist()
    draws, flips = rng.integers(0, 1 << 30, count).tolist(), rng.integers(0, 4, count).tolist()
    for row, col, kind, turn, draw, flip in zip(
        rows, cols, cells.kind.tolist(), orientation, draws, flips, strict=True
    ):
        sprites = library[Cell(kind)]
        index = draw % sprites.variants
        if sprites.is_oriented:
            index += turn * sprites.variants
        mirrored = 3 * (flip & 1) if sprites.is_oriented else flip  # half a turn keeps the orientation
        _stamp_one(chromatin, coverage, (row, col), (sprites.chromatin[index], sprites.coverage[index]), mirrored)
    return chromatin, coverage


def _stamp_one(
    chromatin: ByteMap,
    coverage: ByteMap,
    centre: tuple[int, int],
    sprite: tuple[ByteMap, ByteMap],
    mirrored: int,
) -> None:
    """Stamp one nucleus, mirrored along the axes of the set bits, if it lies wholly on the canvas."""
    flipped = np.s_[:: (-1 if mirrored & 1 else 1), :: (-1 if mirrored & 2 else 1)]
    dark, cover = sprite[0][flipped], sprite[1][flipped]
    top, left = centre[0] - dark.shape[0] // 2, centre[1] - dark.shape[1] // 2
    bottom, right = top + dark.shape[0], left + dark.shape[1]
    if top < 0 or left < 0 or bottom > chromatin.shape[0] or right > chromatin.shape[1]:
        return
    below = chromatin[top:bottom, left:right]
    np.maximum(below, dark, out=below)
    below = coverage[top:bottom, left:right]
    np.maximum(below, cover, out=below)
