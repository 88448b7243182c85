"""Time bins, and hazards of bins as survival curves, against the definition spelt out."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from pathoml.survival import discrete_risk, discrete_survival, event_bins
from pathoml.survival.discrete import coarse_ceiling, coarse_edges

EDGES = np.array([0.0, 100.0, 250.0, 300.0, 900.0])
LOGITS = np.random.default_rng(0).normal(-1, 2, (6, 4))


@pytest.mark.parametrize("bins", [2, 4, 7])
def test_bins_hold_about_as_many_events_each(bins: int) -> None:
    rng = np.random.default_rng(0)
    time, event = rng.exponential(500, 400), rng.integers(0, 2, 400)
    edges = event_bins(time, event, bins)
    counts, _ = np.histogram(time[event == 1], edges)
    assert len(edges) == bins + 1
    assert counts.max() - counts.min() <= 2


def test_edges_start_at_zero_ascend_and_end_with_the_last_follow_up() -> None:
    rng = np.random.default_rng(1)
    time, event = rng.exponential(500, 50).round(-2), rng.integers(0, 2, 50)
    edges = event_bins(time, event, 6)
    assert edges[0] == 0
    assert edges[-1] == time.max()
    assert (np.diff(edges) > 0).all()


def test_tied_events_give_fewer_bins() -> None:
    assert event_bins(np.array([5.0] * 9 + [9.0]), np.ones(10, dtype=np.int64), 4).tolist() == [0.0, 5.0, 9.0]


def test_events_at_time_zero_leave_a_first_bin() -> None:
    edges = event_bins(np.array([0.0, 0.0, 0.0, 3.0, 8.0]), np.ones(5, dtype=np.int64), 4)
    assert edges[0] == 0
    assert (np.diff(edges) > 0).all()


def test_censored_times_do_not_move_the_inner_edges() -> None:
    time, event = np.arange(1.0, 21.0), np.tile([1, 0], 10)
    moved = np.where((event == 0) & (time < 20), time / 2, time)
    np.testing.assert_array_equal(event_bins(time, event, 4), event_bins(moved, event, 4))


def test_a_time_is_rounded_up_to_two_digits_or_to_a_fraction_of_that() -> None:
    assert [coarse_ceiling(day) for day in (0.0, 7.31, 85.0, 1028.0, 2931.0)] == pytest.approx([0, 7.4, 85, 1100, 3000])
    assert [coarse_ceiling(1028.0, finer=finer) for finer in (2, 5, 10, 100)] == [1050, 1040, 1030, 1028]


def test_edges_that_two_digits_keep_apart_are_rounded_to_two_digits() -> None:
    edges = np.array([0.0, 251.0, 561.0, 1099.0, 1101.0, 2931.0])
    assert coarse_edges(edges, np.array([2931.0])).tolist() == [0, 260, 570, 1100, 1200, 3000]


@pytest.mark.parametrize(("patients", "expected"), [(3, [0, 1020, 1050, 1080, 1100]), (2, [0, 1050, 1100])])
def test_an_edge_is_rounded_finer_only_while_three_patients_share_its_step(
    patients: int, expected: list[float]
) -> None:
    edges = np.array([0.0, 1005.0, 1035.0, 1065.0, 1098.0])
    time = np.repeat(edges[1:], patients)
    assert coarse_edges(edges, time).tolist() == expected


def test_survival_at_the_edges_is_the_product_of_not_having_the_event() -> None:
    expected = np.cumprod(1 - expit(LOGITS), axis=1)
    np.testing.assert_allclose(discrete_survival(LOGITS, EDGES, EDGES[1:]), expected, rtol=1e-12)


def test_within_a_bin_the_hazard_is_constant() -> None:
    middle = discrete_survival(LOGITS, EDGES, np.array([175.0]))[:, 0]
    ends = discrete_survival(LOGITS, EDGES, np.array([100.0, 250.0]))
    np.testing.assert_allclose(middle, np.sqrt(ends[:, 0] * ends[:, 1]), rtol=1e-12)


def test_curves_start_at_one_never_rise_and_stay_after_the_last_edge() -> None:
    curves = discrete_survival(LOGITS, EDGES, np.array([0.0, 1.0, 99.0, 100.0, 420.0, 900.0, 5000.0]))
    assert (curves[:, 0] == 1).all()
    assert (np.diff(curves, axis=1) <= 0).all()
    np.testing.assert_array_equal(curves[:, -1], curves[:, -2])


def test_extreme_logits_give_zero_or_one_and_no_warning() -> None:
    curves = discrete_survival(np.array([[800.0] * 4, [-800.0] * 4]), EDGES, np.array([50.0, 900.0]))
    np.testing.assert_allclose(curves, [[0, 0], [1, 1]], atol=1e-15)


def test_the_risk_is_minus_the_expected_days_without_event() -> None:
    grid = np.linspace(0, 900, 200_001)
    expected = np.trapezoid(discrete_survival(LOGITS, EDGES, grid), grid, axis=1)
    np.testing.assert_allclose(-discrete_risk(LOGITS, EDGES), expected, rtol=5e-3)


def test_a_higher_hazard_in_any_bin_is_a_higher_risk() -> None:
    for column in range(4):
        worse = LOGITS.copy()
        worse[:, column] += 1
        assert (discrete_risk(worse, EDGES) > discrete_risk(LOGITS, EDGES)).all()


def test_shifting_all_logits_orders_patients_as_the_shift_does() -> None:
    shift = np.linspace(-2, 2, 9)
    risk = discrete_risk(np.array([-1.0, 0.0, -2.0, 1.0])[None, :] + shift[:, None], EDGES)
    assert spearmanr(risk, shift).statistic == pytest.approx(1)
