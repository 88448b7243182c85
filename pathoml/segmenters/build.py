"""A segmentation network from a local weights file, and the tissue that it finds on a slide."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
import torchvision.models.segmentation as architectures
from numpy.typing import NDArray
from torch import Tensor, nn

from pathoml.errors import EncoderError
from pathoml.slides import Overview, ReadPlan, Slide, TileState, read_around_damage
from pathoml.tiles import TissueFinder
from pathoml.tiling import MOST_ENLARGED, TilingSettings, plan_reading
from pathoml.tissue import ModelTissueSettings
from pathoml.units import BoolArray, RgbImage
from pathoml.weights import check_fit, read_checked_weights

_OVERLAP = 0.25
_BATCH = 4
_AUXILIARY = "aux_classifier."


@dataclass(frozen=True)
class Segmenter:
    """A frozen network that gives each pixel a class.

    Parameters
    ----------
    module : nn.Module
        Normalised images (batch, 3, height, width) -> scores (batch, classes, height, width).
    settings : ModelTissueSettings
        Its classes, resolution and colours.
    """

    module: nn.Module
    settings: ModelTissueSettings


def build_segmenter(settings: ModelTissueSettings) -> Segmenter:
    """Build a segmentation network with its weights, in evaluation mode on the CPU.

    Parameters
    ----------
    settings : ModelTissueSettings
        Architecture, weights file and its SHA-256.

    Returns
    -------
    Segmenter
        Ready to segment.

    Raises
    ------
    EncoderError
        If the file is missing, another one, or does not fit the architecture; or a tissue class is none of the network's.
    """
    unknown = sorted(set(settings.tissue_classes) - set(settings.classes))
    if unknown:
        raise EncoderError(
            f"tissue.tissue_classes: {', '.join(unknown)} not among the classes {', '.join(settings.classes)}"
        )
    build: Callable[..., nn.Module] = getattr(architectures, settings.architecture)
    network = build(weights=None, weights_backbone=None, num_classes=len(settings.classes))
    state = read_checked_weights(settings.weights, settings.sha256)
    # Published files may hold the second head that helped in training.
    state = {name: value for name, value in state.items() if not name.startswith(_AUXILIARY)}
    check_fit(network, state, settings.weights.name)
    network.load_state_dict(state)
    return Segmenter(_Scores(network).eval().requires_grad_(requires_grad=False), settings)


class _Scores(nn.Module):
    """Takes the scores out of the dictionary that torchvision's networks return."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images)["out"]
        return scores


def model_finder(segmenter: Segmenter, *, device: str = "cpu") -> TissueFinder:
    """Return the finder that asks a network.

    Parameters
    ----------
    segmenter : Segmenter
        The network.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    TissueFinder
        Reads the slide in windows that overlap by a quarter; where they do, probabilities are averaged with weights that
        fall towards a window's edge. What is damaged at every level counts as tissue, so that its tiles are tried, lost and
        counted.
    """
    segmenter.module.to(device)

    def find(slide: Slide, picture: RgbImage, mpp: float, hidden: BoolArray) -> BoolArray:
        shares, unread = _tissue_probability(slide, segmenter, (picture.shape[0], picture.shape[1]), device)
        tissue: BoolArray = (shares > 0.5) | unread
        return tissue

    return find


def _tissue_probability(
    slide: Slide, segmenter: Segmenter, shape: tuple[int, int], device: str
) -> tuple[NDArray[np.float32], BoolArray]:  # fmt: skip
    settings = segmenter.settings
    tiling = TilingSettings(
        target_mpp=settings.mpp, tile_px=settings.window_px, mpp_tolerance=0, max_enlargement=MOST_ENLARGED
    )
    plan = plan_reading(slide.geometry, tiling, slide.path.name)
    corners = _windows(slide, plan)
    reader = slide.tile_reader(corners, plan)
    total, weight = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    unread = np.zeros(shape, dtype=bool)
    batch = np.empty((_BATCH, settings.window_px, settings.window_px, 3), dtype=np.uint8)
    for start in range(0, len(corners), _BATCH):
        stop = min(len(corners), start + _BATCH)
        states = reader.read(start, stop, batch)
        for place in np.flatnonzero(states == TileState.LOST).tolist():
            batch[place] = _salvaged_window(slide, plan, corners[start + place], unread)
        probability = _window_probability(segmenter, batch, device)
        for place in range(stop - start):
            _add_window(slide, plan, corners[start + place], probability[place], total, weight)
    return np.asarray(total / np.maximum(weight, 1e-6), dtype=np.float32), unread


def _salvaged_window(slide: Slide, plan: ReadPlan, corner: NDArray[np.int32], unread: BoolArray) -> RgbImage:
    """Return what can be read of a window, and mark in the mask of the whole slide what cannot."""
    geometry, (rows, columns) = slide.geometry, unread.shape
    (left, top), extent = corner.tolist(), plan.footprint_level0_px(slide.geometry)
    box = (float(left), float(top), left + extent[0], top + extent[1])
    seen: Overview = read_around_damage(slide, box, (plan.tile_px, plan.tile_px))
    down, right = np.nonzero(seen.unread)
    x = (left + (right + 0.5) * extent[0] / plan.tile_px) * columns / geometry.width_px
    y = (top + (down + 0.5) * extent[1] / plan.tile_px) * rows / geometry.height_px
    on_slide = (x < columns) & (y < rows)
    unread[y[on_slide].astype(np.int64), x[on_slide].astype(np.int64)] = True
    return seen.pixels


def _windows(slide: Slide, plan: ReadPlan) -> NDArray[np.int32]:
    """Return corners of windows that cover the slide, row by row."""
    extent = plan.footprint_level0_px(slide.geometry)
    starts = [
        np.arange(0, max(1, size - _OVERLAP * side), side * (1 - _OVERLAP))
        for size, side in zip((slide.geometry.width_px, slide.geometry.height_px), extent, strict=True)
    ]
    x, y = np.meshgrid(*starts)
    return np.asarray(np.rint(np.stack([x.ravel(), y.ravel()], axis=1)), dtype=np.int32)


@torch.inference_mode()
def _window_probability(segmenter: Segmenter, batch: RgbImage, device: str) -> NDArray[np.float32]:
    settings = segmenter.settings
    mean, std = (torch.tensor(one, device=device)[:, None, None] * 255 for one in (settings.mean, settings.std))
    images = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float()
    probability = segmenter.module((images - mean) / std).softmax(dim=1)
    wanted = [settings.classes.index(name) for name in settings.tissue_classes]
    return np.asarray(probability[:, wanted].sum(dim=1).cpu().numpy(), dtype=np.float32)


def _add_window(
    slide: Slide, plan: ReadPlan, corner: NDArray[np.int32], probability: NDArray[np.float32],
    total: NDArray[np.float32], weight: NDArray[np.float32],
) -> None:  # fmt: skip
    extent, (rows, columns) = plan.footprint_level0_px(slide.geometry), total.shape
    scale = (columns / slide.geometry.width_px, rows / slide.geometry.height_px)
    left, top = (round(float(corner[axis]) * scale[axis]) for axis in (0, 1))
    width, height = (max(1, round(extent[axis] * scale[axis])) for axis in (0, 1))
    small = cv2.resize(probability, (width, height), interpolation=cv2.INTER_AREA)
    fall = np.minimum.outer(_fall(height), _fall(width))
    inside = np.s_[: min(height, rows - top), : min(width, columns - left)]
    target = np.s_[top : top + height, left : left + width]
    total[target] += (small * fall)[inside]
    weight[target] += fall[inside]


def _fall(length: int) -> NDArray[np.float32]:
    """Return weights that rise from the edges to 1 over a quarter of the length."""
    distance = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5)
    return np.asarray(np.clip(distance / max(1.0, _OVERLAP * length), 0.01, 1), dtype=np.float32)


@lru_cache(maxsize=1)
def cached_segmenter(settings: ModelTissueSettings) -> Segmenter:
    """Build a segmentation network once in a process; see `build_segmenter`.

    Parameters
    ----------
    settings : ModelTissueSettings
        Which.

    Returns
    -------
    Segmenter
        Ready.

    Raises
    ------
    EncoderError
        If its weights cannot be had.
    """
    return build_segmenter(settings)
