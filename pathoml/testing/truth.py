"""What the drawing knows about the tiles of a bag: the truth that maps are held against."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathoml.bags import Bag
from pathoml.testing.drawing import read_truth


def tile_composition(truth: Path, bag: Bag) -> npt.NDArray[np.float64]:
    """Return the true composition of every tile of a slide.

    Parameters
    ----------
    truth
        The slide's file in the cohort's folder ``truth``.
    bag
        The slide's bag.

    Returns
    -------
    ndarray
        float64 (tile, kind), the share of each of `pathoml.testing.KINDS` in the tile's tissue; sums to 1, or to 0
        where the drawing has no tissue.
    """
    drawn = read_truth(truth)
    header = bag.header
    row, column = bag.grid[:, 0], bag.grid[:, 1]
    scale_x, scale_y = (mpp / drawn.um_per_px for mpp in header.slide_mpp)
    left = np.rint(column * header.stride_level0_px[0] * scale_x).astype(int)
    top = np.rint(row * header.stride_level0_px[1] * scale_y).astype(int)
    width = max(1, round(header.footprint_level0_px[0] * scale_x))
    height = max(1, round(header.footprint_level0_px[1] * scale_y))
    windows = [drawn.composition[y : y + height, x : x + width] for x, y in zip(left, top, strict=True)]
    sums = np.array([window.sum(axis=(0, 1), dtype=np.float64) for window in windows])
    total = sums.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    return shares
