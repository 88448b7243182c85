"""The projection of tile features against scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pathoml.errors import BagMismatchError, PathomlError
from pathoml.mil.projection import fit_projection


def bags(seed: int = 0, dtype: type = np.float32) -> list[NDArray[np.floating]]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(6, 10)) * np.linspace(1, 5, 10)
    return [
        (rng.normal(size=(count, 6)) @ mixing + rng.normal(2, 0.3, (count, 10))).astype(dtype) for count in (40, 90, 3)
    ]


def test_scores_equal_scikit_learns_up_to_sign_and_one_scale() -> None:
    tiles = np.concatenate(bags()).astype(np.float64)
    scaler = StandardScaler().fit(tiles)
    pca = PCA(5, svd_solver="full").fit(scaler.transform(tiles))
    new = np.concatenate(bags(seed=1))
    expected = (
        pca.transform(scaler.transform(new.astype(np.float64))) / pca.transform(scaler.transform(tiles))[:, 0].std()
    )
    found = fit_projection(bags(), 5).apply(new)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-4)


def test_the_first_score_has_unit_variance_and_the_others_less() -> None:
    scores = fit_projection(bags(), 4).apply(np.concatenate(bags()))
    deviations = scores.std(axis=0)
    assert deviations[0] == pytest.approx(1, abs=1e-4)
    assert (np.diff(deviations) < 0).all()
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-4)


def test_every_tile_counts_alike_however_bags_are_cut() -> None:
    tiles = np.concatenate(bags())
    whole, parts = fit_projection([tiles], 4), fit_projection([tiles[:1], tiles[1:100], tiles[100:]], 4)
    np.testing.assert_allclose(parts.apply(tiles), whole.apply(tiles), atol=1e-5)


def test_the_same_tiles_give_the_same_projection() -> None:
    first, second = fit_projection(bags(), 4), fit_projection(bags(), 4)
    assert np.array_equal(first.components, second.components)


def test_constant_columns_become_zero_and_not_nan() -> None:
    more = [np.concatenate([one, np.full((len(one), 2), 3.25, np.float32)], axis=1) for one in bags()]
    projection = fit_projection(more, 4)
    scores = projection.apply(more[0])
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.abs(scores), np.abs(fit_projection(bags(), 4).apply(bags()[0])), atol=1e-3)


def test_a_constant_column_of_large_value_stays_constant() -> None:
    more = [np.concatenate([one, np.full((len(one), 1), 4096.1, np.float32)], axis=1) for one in bags()]
    assert fit_projection(more, 4).scale[-1] == 1.0


def test_there_are_no_more_components_than_the_features_have() -> None:
    base = bags()[1][:, :2]
    projection = fit_projection([np.concatenate([base, base @ np.ones((2, 2), np.float32)], axis=1)], 32)
    assert 2 <= len(projection.components) <= 3


def test_float16_features_project_as_the_same_numbers_in_float32() -> None:
    half = bags(dtype=np.float16)
    projection = fit_projection(half, 4)
    exact = fit_projection([one.astype(np.float64) for one in half], 4)
    scores = projection.apply(half[0])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, exact.apply(half[0].astype(np.float64)), atol=1e-6)


def test_an_empty_bag_projects_to_nothing() -> None:
    assert fit_projection(bags(), 4).apply(np.zeros((0, 10), np.float16)).shape == (0, 4)


def test_features_of_another_width_are_refused_with_both_widths() -> None:
    with pytest.raises(BagMismatchError, match="features have 7 columns, the model was trained on 10"):
        fit_projection(bags(), 4).apply(np.zeros((2, 7), np.float32))


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_features_without_any_spread_are_refused(value: float) -> None:
    with pytest.raises(PathomlError, match="spread"):
        fit_projection([np.full((5, 3), value, np.float32)], 4)
