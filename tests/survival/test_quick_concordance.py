"""The concordance without a matrix of pairs against the one with, and against every pair by hand."""

import numpy as np
import pytest

from pathoml.survival import concordance, harrell_metric
from pathoml.survival.metrics import TIED_RISK
from pathoml.survival.quick_concordance import concordant_pairs


def by_hand(time, event, risk) -> tuple[float, int]:
    concordant, pairs = 0.0, 0
    for one in range(len(time)):
        for other in range(len(time)):
            outlived = time[other] > time[one] or (time[other] == time[one] and event[other] == 0)
            if event[one] == 1 and outlived:
                pairs += 1
                difference = risk[one] - risk[other]
                concordant += 0.5 if abs(difference) <= TIED_RISK else float(difference > 0)
    return concordant, pairs


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 31, 64, 65])
@pytest.mark.parametrize("ties", ["none", "times", "risks", "both"])
def test_pairs_are_counted_as_by_hand(count: int, ties: str) -> None:
    rng = np.random.default_rng(count)
    for _ in range(5):
        time = rng.integers(1, 6, count).astype(float) if ties in {"times", "both"} else rng.exponential(1, count)
        risk = rng.integers(0, 4, count).astype(float) if ties in {"risks", "both"} else rng.normal(size=count)
        event = rng.integers(0, 2, count)
        assert concordant_pairs(time, event, risk, tied=TIED_RISK) == by_hand(time, event, risk)


def test_it_equals_the_metric_on_real_patients(everyone) -> None:
    risk = everyone.design @ np.linspace(-1, 1, everyone.design.shape[1])
    expected = harrell_metric(everyone.time, everyone.event, risk)(np.ones((1, len(risk))))[0]
    assert concordance(everyone.time, everyone.event, risk) == pytest.approx(expected, abs=1e-12)


def test_risks_that_hardly_differ_are_equal() -> None:
    time, event = np.array([1.0, 2.0, 3.0]), np.array([1, 1, 1])
    assert concordance(time, event, np.array([0.0, TIED_RISK / 2, -TIED_RISK / 4])) == 0.5


def test_without_a_pair_there_is_no_concordance() -> None:
    assert np.isnan(concordance(np.array([1.0, 2.0]), np.array([0, 0]), np.array([1.0, 0.0])))
    assert np.isnan(concordance(np.array([1.0]), np.array([1]), np.array([1.0])))


def test_a_hundred_thousand_patients_need_no_matrix() -> None:
    rng = np.random.default_rng(0)
    severity = rng.normal(size=100_000)
    time = rng.exponential(np.exp(-severity))
    found = concordance(time, np.ones(100_000, dtype=np.int64), severity)
    # Of two exponential times with hazards a and b the first is earlier with probability a / (a + b).
    pairs = rng.integers(0, 100_000, (2, 200_000))
    difference = np.abs(severity[pairs[0]] - severity[pairs[1]])
    assert found == pytest.approx((1 / (1 + np.exp(-difference))).mean(), abs=0.004)
