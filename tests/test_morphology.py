"""Pieces of masks against scipy's labelling, which pathoml does not use."""

import numpy as np
import pytest
from scipy import ndimage

from pathoml.morphology import drop_short, drop_small, fill_holes, touching

NEIGHBOURS = np.ones((3, 3))


def masks() -> list[np.ndarray]:
    """Return noise from sparse to nearly full, with pieces at all edges, and masks without and full of true pixels."""
    rng = np.random.default_rng(0)
    noise = [ndimage.gaussian_filter(rng.random((61, 47)), sigma) for sigma in (0.0, 1.0, 2.5)]
    found = [one > np.quantile(one, share) for one in noise for share in (0.03, 0.3, 0.6, 0.95)]
    return [*found, np.zeros((9, 7), dtype=bool), np.ones((9, 7), dtype=bool), np.ones((1, 1), dtype=bool)]


def kept(mask: np.ndarray, wanted) -> np.ndarray:
    """Return the pieces of which something holds, asked of each piece's pixels."""
    labels, count = ndimage.label(mask, NEIGHBOURS)
    result = np.zeros_like(mask)
    for one in range(1, count + 1):
        piece = labels == one
        result |= piece & wanted(piece)
    return result


def diagonal(piece: np.ndarray) -> float:
    rows, columns = np.nonzero(piece)
    return float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1))


@pytest.mark.parametrize("mask", masks())
def test_pieces_are_dropped_by_area_and_by_the_diagonal_of_their_box(mask: np.ndarray) -> None:
    for area in (0, 1, 4, 30):
        np.testing.assert_array_equal(drop_small(mask, area), kept(mask, lambda one, least=area: one.sum() >= least))
        both = kept(mask, lambda one, least=area: one.sum() >= least and diagonal(one) >= 6.5)
        np.testing.assert_array_equal(drop_short(mask, 6.5, min_area_px=area), both)


@pytest.mark.parametrize("mask", masks())
def test_pieces_are_kept_by_seeds_that_lie_on_them(mask: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for share in (0.01, 0.3):
        seeds = ndimage.binary_dilation(rng.random(mask.shape) < share, iterations=2)
        np.testing.assert_array_equal(touching(mask, seeds), kept(mask, lambda one, on=seeds: (one & on).any()))


@pytest.mark.parametrize("mask", masks())
def test_holes_are_filled_by_area(mask: np.ndarray) -> None:
    for area in (0, 5, 40):
        holes = kept(~mask, lambda one, most=area: one.sum() < most)
        np.testing.assert_array_equal(fill_holes(mask, area), mask | holes)
