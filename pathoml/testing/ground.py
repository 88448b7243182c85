"""Everything between the nuclei: collagen, cytoplasm, debris, hollows, as concentrations of both stains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pathoml.testing.cells import Anatomy, Tube
from pathoml.testing.histology import GRID_UM, KINDS, Layout, TissuePlan
from pathoml.testing.noise import ByteMap, FloatMap, periodic_noise, smooth_noise, smooth_step
from pathoml.testing.staining import CONCENTRATION_STEP

BLOCK_PX = 256
"""Side of a block at the ground's resolution."""
_GRID_PX = 8  # pixels of the ground in one pixel of the layout
_TEXTURE_PX = 1024
_COARSEST_FINE_MPP = 0.4
_OUTSIDE_UM = -9.0  # farther out than this the outline's raggedness never reaches
_SUBPIXEL_BITS = 4


class _Textures(NamedTuple):
    """Seamless fields of unit deviation at about 0.5 um per pixel, continued by a block beyond one period."""

    fine: FloatMap
    medium: FloatMap
    coarse: FloatMap


class _Stains(NamedTuple):
    """Concentrations of a block."""

    haematoxylin: FloatMap
    eosin: FloatMap


@lru_cache(maxsize=1)
def _textures() -> _Textures:
    """Draw the grain of a process."""
    rng = np.random.default_rng(104_729)
    fields = (periodic_noise(rng, _TEXTURE_PX, (sigma_px, sigma_px)) for sigma_px in (0.8, 2.6, 9.0))
    return _Textures(*(np.pad(field, (0, BLOCK_PX), mode="wrap") for field in fields))


@lru_cache(maxsize=1)
def _collagen() -> ByteMap:
    """Draw collagen whose fibres run along the rows: body and looseness, uint8 (row, col, 2).

    A byte is 128 + 40 deviations. Two periods each way: reading across a border is much slower than reading
    inside, and few blocks span more than one.
    """
    rng = np.random.default_rng(15_485_863)

    def field(across_px: float, along_px: float) -> FloatMap:
        return periodic_noise(rng, _TEXTURE_PX, (across_px, along_px))

    body = 0.62 * field(5.5, 26.0) + 0.60 * field(1.9, 17.0) + 0.45 * field(0.8, 8.0)
    looseness = 0.70 * field(2.4, 13.0) + 0.55 * field(5.0, 17.0) + 0.40 * field(1.1, 7.0)
    return np.tile(np.clip(np.rint(128 + 40 * np.dstack([body, looseness])), 0, 255).astype(np.uint8), (2, 2, 1))


@dataclass(frozen=True)
class Ground:
    """The maps of a slide from which blocks of ground are made.

    The ground has the slide's resolution, or half of it for a fine scanner: it is smooth, nuclei are not.

    Parameters
    ----------
    mpp
        Micrometres per pixel of the ground.
    planes
        Maps on a grid of 8 pixels of the ground, float32 (row, col) each, with a margin of one.
    walls, lumina
        Coverage by the linings and by the hollows of glands and vessels, uint8 (row, col).
    shift_px
        Where in each texture this slide begins, int64 (texture, 2).
    """

    mpp: float
    planes: dict[str, FloatMap]
    walls: ByteMap
    lumina: ByteMap
    shift_px: npt.NDArray[np.int64]

    def is_glass(self, row: int, col: int) -> bool:
        """Whether the block that begins at a pixel is clear of tissue.

        Parameters
        ----------
        row, col
            First pixel of the block.

        Returns
        -------
        bool
            True on glass.
        """
        return bool(self.planes["depth_um"][_grid_window(row, col)].max() < _OUTSIDE_UM)

    def block(self, row: int, col: int) -> tuple[ByteMap, ByteMap]:
        """Make one block of ground.

        Parameters
        ----------
        row, col
            Its first pixel.

        Returns
        -------
        tuple of numpy.ndarray
            Haematoxylin and eosin, uint8 (`BLOCK_PX`, `BLOCK_PX`), in steps of concentration.
        """
        plane = {name: _enlarged(values[_grid_window(row, col)]) for name, values in self.planes.items()}
        grain = _Textures(*(self._grain(which, row, col) for which in range(3)))
        body, looseness = self._collagen(plane, grain)
        stains = _stroma(body, looseness + plane["looseness"])
        ragged = 0.13 * grain.coarse + 0.08 * grain.medium
        window = np.s_[row : row + BLOCK_PX, col : col + BLOCK_PX]
        thin_stroma = partial(_infiltrated, stains, grain)
        stains = _over(stains, thin_stroma, smooth_step(plane["lymphocytes"] + ragged, 0.15, 0.85))
        stains = _over(stains, partial(_cytoplasm, grain), smooth_step(plane["solid"] + ragged, 0.40, 0.60))
        stains = _over(stains, partial(_lining, grain), _as_share(self.walls[window]))
        stains = _over(stains, partial(_debris, grain), smooth_step(plane["necrosis"] + ragged, 0.35, 0.65))
        stains = _over(stains, partial(_secretion, plane), _as_share(self.lumina[window]))
        outline_um = plane["depth_um"] + 1.0 * grain.medium + 1.6 * grain.coarse + 1.8 * body
        tissue = smooth_step(outline_um, 0.0, 1.6)
        haematoxylin = stains.haematoxylin * tissue * plane["strength_h"]
        return _steps(haematoxylin), _steps(stains.eosin * tissue * plane["strength_e"])

    def _grain(self, which: int, row: int, col: int) -> FloatMap:
        """Window of a texture."""
        top, left = (self.shift_px[which] + (row, col)) % _TEXTURE_PX
        return _textures()[which][top : top + BLOCK_PX, left : left + BLOCK_PX]

    def _collagen(self, plane: dict[str, FloatMap], grain: _Textures) -> tuple[FloatMap, FloatMap]:
        """Body and looseness of the collagen, each of about unit deviation."""
        along = _within_first_period(plane["along_px"] + 3 * grain.coarse)
        across = _within_first_period(plane["across_px"] + np.float32(1.1) * grain.medium)
        texture = cv2.remap(_collagen(), along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        deviation: FloatMap = (np.asarray(texture, dtype=np.float32) - np.float32(128)) * np.float32(1 / 40)
        rough = np.float32(0.22) * grain.fine + np.float32(0.15) * grain.medium
        looseness = np.asarray(deviation[..., 1] + 0.3 * rough, dtype=np.float32)
        return deviation[..., 0] + rough, looseness


def lay_ground(plan: TissuePlan, layout: Layout, anatomy: Anatomy, mpp: float) -> Ground:
    """Prepare the ground of a slide.

    Parameters
    ----------
    plan, layout, anatomy
        The tissue.
    mpp
        Micrometres per pixel of the slide.

    Returns
    -------
    Ground
        At the slide's resolution, or at half of it below 0.4 micrometres per pixel.
    """
    rng = plan.generator(2)
    ground_mpp = mpp * 2 if mpp < _COARSEST_FINE_MPP else mpp

    def slow(step_um: float) -> FloatMap:
        return smooth_noise(rng, plan.grid_shape, step_um / GRID_UM)

    maps = {
        "depth_um": layout.depth_um,
        "solid": anatomy.solid,
        "lymphocytes": layout.shares[..., KINDS.index("lymphocytes")],
        "necrosis": layout.shares[..., KINDS.index("necrosis")],
        "along_px": anatomy.fibres[..., 0] / np.float32(0.5),
        "across_px": anatomy.fibres[..., 1] / np.float32(0.5),
        "looseness": 0.40 * slow(120.0),
        "strength_h": 1 + 0.08 * slow(200.0),
        "strength_e": 1 + 0.08 * slow(160.0),
        "secretion": slow(60.0),
    }
    shape_px = round(plan.height_um / ground_mpp), round(plan.width_um / ground_mpp)
    walls, lumina = _draw_tubes(anatomy.tubes, _whole_blocks(shape_px), ground_mpp)
    return Ground(
        mpp=ground_mpp,
        planes={name: _on_grid(values, shape_px, ground_mpp) for name, values in maps.items()},
        walls=walls,
        lumina=lumina,
        shift_px=rng.integers(0, _TEXTURE_PX, size=(3, 2)),
    )


def _stroma(body: FloatMap, looseness: FloatMap) -> _Stains:
    """Pink bundles and the clefts between them."""
    gap = smooth_step(looseness, 1.0, 1.75)
    solid = 1 - 0.90 * gap
    return _Stains((0.045 + 0.010 * body) * solid, np.maximum(0.56 + 0.115 * body, 0.06) * solid)


def _infiltrated(stroma: _Stains, grain: _Textures) -> _Stains:
    """Thin stroma between lymphocytes."""
    return _Stains(0.10 + 0.03 * grain.medium, 0.09 + 0.28 * stroma.eosin + 0.03 * grain.medium)


def _cytoplasm(grain: _Textures) -> _Stains:
    """Purple, granular cytoplasm of solid tumour."""
    return _Stains(
        0.20 + 0.035 * grain.coarse + 0.018 * grain.medium + 0.018 * grain.fine,
        0.36 + 0.04 * grain.coarse + 0.035 * grain.medium + 0.03 * grain.fine,
    )


def _lining(grain: _Textures) -> _Stains:
    """Cytoplasm of glandular epithelium."""
    return _Stains(0.17 + 0.03 * grain.medium + 0.02 * grain.fine, 0.36 + 0.05 * grain.medium + 0.04 * grain.fine)


def _debris(grain: _Textures) -> _Stains:
    """Smudged, granular remains of dead cells."""
    dusty = 0.085 + 0.035 * grain.coarse + 0.03 * grain.medium
    return _Stains(dusty, 0.55 + 0.05 * grain.coarse + 0.06 * grain.medium + 0.055 * grain.fine)


def _secretion(plane: dict[str, FloatMap]) -> _Stains:
    """Contents of a hollow: mostly nothing, in places pale pink."""
    pale = smooth_step(plane["secretion"], 0.6, 1.2)
    return _Stains(0.02 * pale, 0.015 + 0.17 * pale)


def _over(below: _Stains, above: Callable[[], _Stains], share: FloatMap) -> _Stains:
    """Lay one tissue over another where its share is high; it is made only if it shows at all."""
    if not share.any():
        return below
    over = above()
    return _Stains(
        below.haematoxylin + (over.haematoxylin - below.haematoxylin) * share,
        below.eosin + (over.eosin - below.eosin) * share,
    )


def _within_first_period(values_px: FloatMap) -> FloatMap:
    """Shift coordinates by whole periods of a texture so that they begin in its first one."""
    return values_px - np.float32(_TEXTURE_PX * np.floor(values_px.min() / _TEXTURE_PX))


def _as_share(coverage: ByteMap) -> FloatMap:
    """Bytes as 0 to 1."""
    return coverage.astype(np.float32) * np.float32(1 / 255)


def _steps(concentration: FloatMap) -> ByteMap:
    """Concentration as bytes."""
    steps = np.clip(concentration * np.float32(1 / CONCENTRATION_STEP) + np.float32(0.5), 0, 255)
    return np.asarray(steps, dtype=np.uint8)


def _whole_blocks(shape_px: tuple[int, int]) -> tuple[int, int]:
    """Shape grown to whole blocks."""
    return -(-shape_px[0] // BLOCK_PX) * BLOCK_PX, -(-shape_px[1] // BLOCK_PX) * BLOCK_PX


def _on_grid(values: FloatMap, shape_px: tuple[int, int], mpp: float) -> FloatMap:
    """Resample a layout's map to a grid of 8 pixels, continued one beyond whole blocks on each side."""
    scale = GRID_UM / (mpp * _GRID_PX)
    if abs(scale - 1) > 1e-6:
        size = (round(values.shape[1] * scale), round(values.shape[0] * scale))
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    whole = _whole_blocks(shape_px)
    below, beside = (max(0, whole[axis] // _GRID_PX - values.shape[axis]) + 1 for axis in range(2))
    return np.pad(values, ((1, below), (1, beside)), mode="edge").astype(np.float32, copy=False)


def _grid_window(row: int, col: int) -> tuple[slice, slice]:
    """Grid pixels of a block and one more on each side, so that neighbouring blocks meet without a seam."""
    side = BLOCK_PX // _GRID_PX
    top, left = row // _GRID_PX, col // _GRID_PX
    return slice(top, top + side + 2), slice(left, left + side + 2)


def _enlarged(window: FloatMap) -> FloatMap:
    """Enlarge a window of the grid to the block inside it."""
    size = (window.shape[1] * _GRID_PX, window.shape[0] * _GRID_PX)
    enlarged = np.asarray(cv2.resize(window, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return enlarged[_GRID_PX:-_GRID_PX, _GRID_PX:-_GRID_PX]


def _draw_tubes(tubes: tuple[Tube, ...], shape: tuple[int, int], mpp: float) -> tuple[ByteMap, ByteMap]:
    """Fill walls of glands, and hollows of glands and vessels."""
    walls, lumina = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    for tube in tubes:
        if not tube.is_vessel:
            _fill(walls, tube.outline_um, mpp)
        if np.ptp(tube.lumen_um) > 0:
            _fill(lumina, tube.lumen_um, mpp)
    return walls, lumina


def _fill(canvas: ByteMap, corners_um: npt.NDArray[np.float64], mpp: float) -> None:
    """Fill a polygon with a soft border."""
    points = np.rint(corners_um / mpp * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
