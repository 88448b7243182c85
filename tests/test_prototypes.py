"""Kinds of tiles: planted ones are found, whatever the order, and every tile goes to its own."""

import numpy as np
import pytest

from pathoml.prototypes import PrototypeSettings, ScoredTiles, find_prototypes, shares

KINDS = 3
SETTINGS = PrototypeSettings(prototypes=KINDS, extremes=40, components=8)


def planted(seed: int, slides: int = 6, tiles: int = 120) -> tuple[list[ScoredTiles], list[np.ndarray]]:
    """Three kinds far apart in 20 features; kind 0 raises the risk, kind 1 lowers it, kind 2 does neither."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(KINDS, 20)) * 4
    scored, truth = [], []
    for _ in range(slides):
        kind = generator.choice(KINDS, tiles, p=generator.dirichlet(np.ones(KINDS) * 3))
        features = (centres[kind] + generator.normal(size=(tiles, 20))).astype(np.float16)
        contribution = np.array([2.0, -1.0, 0.3])[kind] + generator.normal(size=tiles) * 0.1
        scored.append(ScoredTiles(features, contribution))
        truth.append(kind)
    return scored, truth


def test_planted_kinds_are_found_ordered_by_risk_and_every_tile_goes_to_its_own() -> None:
    scored, truth = planted(1)
    found = find_prototypes(scored, SETTINGS)
    np.testing.assert_allclose(found.contribution, [2.0, 0.3, -1.0], atol=0.1)
    number_of = np.array([0, 2, 1])
    for slide, kind in zip(scored, truth, strict=True):
        nearest, distance = found.nearest(slide.features)
        assert (nearest == number_of[kind]).mean() > 0.99
        assert (distance >= 0).all()


def test_kinds_are_the_same_whatever_the_order_of_tiles_and_new_slides_are_told_by_them() -> None:
    scored, _ = planted(1)
    found = find_prototypes(scored, SETTINGS)
    turned = [ScoredTiles(slide.features[::-1], slide.contribution[::-1]) for slide in scored]
    again = find_prototypes(turned, SETTINGS)
    np.testing.assert_allclose(found.contribution, again.contribution, atol=1e-6)
    fresh, truth = planted(2)
    number_of = np.array([0, 2, 1])
    assert (found.nearest(fresh[0].features)[0] == number_of[truth[0]]).mean() > 0.99


def test_shares_sum_to_one_and_count_kinds_without_tiles() -> None:
    np.testing.assert_allclose(shares(np.array([0, 2, 2, 2]), 4), [0.25, 0, 0.75, 0])


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_few_tiles_give_few_kinds_and_no_crash(tiles: int) -> None:
    slide = ScoredTiles(np.random.default_rng(0).normal(size=(tiles, 20)), np.arange(float(tiles)))
    found = find_prototypes([slide], SETTINGS)
    assert len(found.places) == min(KINDS, tiles)
    assert np.isfinite(found.nearest(slide.features)[1]).all()


def test_features_that_never_change_do_not_matter() -> None:
    scored, _ = planted(1)
    with_constant = [
        ScoredTiles(np.pad(slide.features, ((0, 0), (0, 1)), constant_values=7), slide.contribution) for slide in scored
    ]
    one, other = find_prototypes(scored, SETTINGS), find_prototypes(with_constant, SETTINGS)
    np.testing.assert_allclose(one.contribution, other.contribution, atol=1e-6)
