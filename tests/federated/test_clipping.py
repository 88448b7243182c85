"""Updates no longer than a limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathoml.errors import FederationError
from pathoml.federated.clipping import change_norm, clip_update, update_norm

UPDATE = {
    "a": np.array([[3.0, 0.0], [0.0, 0.0]], dtype=np.float32),
    "b": np.array([4.0], dtype=np.float64),
    "steps": np.array(7, dtype=np.int64),
}


def test_the_length_is_that_of_all_floats_together() -> None:
    assert update_norm(UPDATE) == 5
    assert update_norm({}) == 0
    flat = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    cut = {str(number): part for number, part in enumerate(np.split(flat, [10, 400]))}
    assert update_norm(cut) == pytest.approx(np.linalg.norm(flat.astype(np.float64)), rel=1e-12)


def test_a_short_update_stays_as_it_is() -> None:
    clipped = clip_update(UPDATE, 5.0)
    assert all(clipped[name] is UPDATE[name] for name in UPDATE)


@given(st.floats(1e-3, 4.9))
def test_a_long_one_keeps_its_direction_names_and_types(limit: float) -> None:
    clipped = clip_update(UPDATE, limit)
    assert update_norm(clipped) == pytest.approx(limit, rel=1e-6)
    assert list(clipped) == list(UPDATE)
    assert all(
        clipped[name].dtype == UPDATE[name].dtype and clipped[name].shape == UPDATE[name].shape for name in UPDATE
    )
    assert clipped["b"][0] / clipped["a"][0, 0] == pytest.approx(4 / 3, rel=1e-6)
    assert clipped["steps"] == 7
    assert UPDATE["b"][0] == 4, "what was given is not changed"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_cannot_be_shortened(bad: float) -> None:
    with pytest.raises(FederationError, match=r"no finite numbers.*: b$"):
        clip_update({**UPDATE, "b": np.array([bad])}, 1.0)
    assert not np.isfinite(update_norm({"b": np.array([bad])}))


def test_values_too_large_to_square_in_float32_are_no_trouble() -> None:
    assert update_norm({"a": np.full(4, 1e30, dtype=np.float32)}) == pytest.approx(2e30, rel=1e-6)
    assert not np.isfinite(update_norm({"a": np.full(4, 1e200)}))


def test_a_change_that_cannot_be_added_up_is_longer_than_any_limit() -> None:
    before = {"a": np.zeros(4), "b": np.zeros(2)}
    assert change_norm(before, {"a": np.full(4, 1e200), "b": np.ones(2)}) == np.inf
    assert change_norm({"a": np.zeros(1), "b": np.zeros(1)}, {"a": np.full(1, 1e154), "b": np.full(1, 1e154)}) > 1e154
