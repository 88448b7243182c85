"""Metrics against scikit-survival and lifelines on real data; the bootstrap against explicit resampling."""

from collections.abc import Callable

import numpy as np
import pytest
from lifelines.utils import concordance_index
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from pathoml.survival import (
    Metric,
    auc_metric,
    breslow_hazard,
    brier_at_metric,
    brier_metric,
    censoring_survival,
    cox_survival,
    harrell_metric,
    ipcw_metric,
    kaplan_meier,
    scaled_brier_metric,
)
from pathoml.survival.baselines import fit_cox
from pathoml.survival.metrics import concordance_sums, restricted_days


def one(metric: Metric, patients: int) -> float:
    return float(metric(np.ones((1, patients)))[0])


def outcome(part):
    return Surv.from_arrays(part.event.astype(bool), part.time)


@pytest.fixture(params=["cox", "rounded", "constant"])
def risk(request, study):
    """Risks of the test half: of a Cox model, the same rounded so that many are tied, and all equal."""
    train, test = study
    values = fit_cox(train.design, train.time, train.event).log_hazard(test.design)
    return {"cox": values, "rounded": np.round(values * 2) / 2, "constant": np.zeros_like(values)}[request.param]


def test_harrell_equals_scikit_survival(study, risk) -> None:
    test = study.test
    expected = concordance_index_censored(test.event.astype(bool), test.time, risk)[0]
    assert one(harrell_metric(test.time, test.event, risk), len(risk)) == pytest.approx(expected, abs=1e-9)


def test_harrell_equals_lifelines(study, risk) -> None:
    test = study.test
    expected = concordance_index(test.time, -risk, test.event)
    assert one(harrell_metric(test.time, test.event, risk), len(risk)) == pytest.approx(expected, abs=1e-9)


def test_harrell_equals_a_count_over_all_pairs(study, risk) -> None:
    time, event = study.test.time[:80], study.test.event[:80]
    won, pairs = 0.0, 0
    for i in range(len(time)):
        for j in range(len(time)):
            known = event[i] == 1 and (time[j] > time[i] or (time[j] == time[i] and event[j] == 0))
            pairs += known
            won += known * (0.5 if abs(risk[i] - risk[j]) <= 1e-8 else float(risk[i] > risk[j]))
    assert one(harrell_metric(time, event, risk[:80]), len(time)) == pytest.approx(won / pairs, abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_uno_equals_scikit_survival_at_any_tau(study, risk, share: float) -> None:
    train, test = study
    tau = float(np.quantile(test.time, share))
    expected = concordance_index_ipcw(outcome(train), outcome(test), risk, tau=tau)[0]
    found = ipcw_metric(test.time, test.event, risk, censoring_survival(train.time, train.event), tau_days=tau)
    assert one(found, len(risk)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_auc_equals_scikit_survival(study, risk, share: float) -> None:
    train, test = study
    horizon = float(np.quantile(test.time[test.event == 1], share))
    expected = cumulative_dynamic_auc(outcome(train), outcome(test), risk, [horizon])[0][0]
    found = auc_metric(test.time, test.event, risk, censoring_survival(train.time, train.event), horizon_days=horizon)
    assert one(found, len(risk)) == pytest.approx(expected, abs=1e-9)


def test_the_integrated_brier_score_equals_scikit_survival(study) -> None:
    train, test = study
    log_hazard = fit_cox(train.design, train.time, train.event).log_hazard
    hazard = breslow_hazard(train.time, train.event, log_hazard(train.design))
    grid = np.linspace(np.quantile(test.time, 0.05), min(np.quantile(test.time, 0.9), 0.99 * test.time.max()), 40)
    curves = cox_survival(hazard, log_hazard(test.design), grid)
    expected = integrated_brier_score(outcome(train), outcome(test), curves, grid)
    found = brier_metric(test.time, test.event, curves, grid, censoring_survival(train.time, train.event))
    assert one(found, len(test.time)) == pytest.approx(expected, abs=1e-9)


def builders(study) -> dict[str, Callable]:
    train, test = study
    censoring = censoring_survival(train.time, train.event)
    risk = fit_cox(train.design, train.time, train.event).log_hazard(test.design).round(1)
    grid = np.linspace(np.quantile(test.time, 0.1), np.quantile(test.time, 0.8), 10)
    curves = cox_survival(breslow_hazard(train.time, train.event, train.design[:, 0]), risk, grid)
    tau = restricted_days(train.time, train.event)
    return {
        "harrell": lambda rows: harrell_metric(test.time[rows], test.event[rows], risk[rows]),
        "uno": lambda rows: ipcw_metric(test.time[rows], test.event[rows], risk[rows], censoring, tau_days=tau),
        "auc": lambda rows: auc_metric(test.time[rows], test.event[rows], risk[rows], censoring, horizon_days=grid[5]),
        "brier": lambda rows: brier_metric(test.time[rows], test.event[rows], curves[rows], grid, censoring),
    }


@pytest.mark.parametrize("name", ["harrell", "uno", "auc", "brier"])
def test_bootstrap_counts_equal_explicit_resampling(study, name: str) -> None:
    build = builders(study)[name]
    count = len(study.test.time)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, count, count) for _ in range(20)]
    together = build(np.arange(count))(np.array([np.bincount(rows, minlength=count) for rows in draws], dtype=float))
    explicit = [one(build(rows), count) for rows in draws]
    np.testing.assert_allclose(together, explicit, rtol=1e-12)


@pytest.mark.parametrize("name", ["harrell", "uno", "auc"])
def test_a_draw_without_comparable_pairs_is_nan_and_not_an_error(study, name: str) -> None:
    counts = np.zeros((2, len(study.test.time)))
    counts[:, 0] = 5
    assert np.isnan(builders(study)[name](np.arange(len(study.test.time)))(counts)).all()


def test_turning_all_risks_round_turns_the_concordance_round(study, risk) -> None:
    test = study.test
    plain = one(harrell_metric(test.time, test.event, risk), len(risk))
    assert one(harrell_metric(test.time, test.event, -risk), len(risk)) == pytest.approx(1 - plain, abs=1e-12)


def test_only_the_order_of_risks_matters(study) -> None:
    test, risk = study.test, study.test.design[:, 1].round(1)
    plain = one(harrell_metric(test.time, test.event, risk), len(risk))
    assert one(harrell_metric(test.time, test.event, np.exp(3 * risk)), len(risk)) == pytest.approx(plain, abs=1e-12)


def test_always_predicting_one_half_has_a_brier_score_of_one_quarter_without_censoring() -> None:
    time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4, dtype=np.int64)
    censoring = censoring_survival(time, event)
    metric = brier_metric(time, event, np.full((4, 3), 0.5), np.array([1.0, 2.0, 3.5]), censoring)
    assert one(metric, 4) == pytest.approx(0.25, abs=1e-15)


def test_the_restricted_time_leaves_a_tenth_of_training_patients_followed(study) -> None:
    train = study.train
    end = restricted_days(train.time, train.event)
    assert end <= train.time[train.event == 1].max()
    assert np.mean(train.time > end) >= 0.1 - 1e-12 or np.mean(train.time >= end) >= 0.1
    assert censoring_survival(train.time, train.event).at(np.array([end]))[0] > 0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_brier_score_at_a_time_equals_scikit_survival(study, share: float) -> None:
    train, test = study
    log_hazard = fit_cox(train.design, train.time, train.event).log_hazard
    day = float(np.quantile(test.time[test.event == 1], share))
    steps = breslow_hazard(train.time, train.event, log_hazard(train.design))
    at = cox_survival(steps, log_hazard(test.design), np.array([day]))[:, 0]
    expected = brier_score(outcome(train), outcome(test), at, day)[1][0]
    censoring = censoring_survival(train.time, train.event)
    found = brier_at_metric(test.time, test.event, at, censoring, horizon_days=day)
    assert one(found, len(at)) == pytest.approx(expected, abs=1e-9)


def test_the_reference_itself_saves_nothing_and_a_better_curve_saves_its_share(study) -> None:
    train, test = study
    grid = np.linspace(np.quantile(test.time, 0.1), np.quantile(test.time, 0.8), 12)
    censoring = censoring_survival(train.time, train.event)
    flat = kaplan_meier(train.time, train.event).at(grid)
    plain = np.tile(flat, (len(test.time), 1))
    halved = np.clip(plain * 0.9, 0, 1)
    scores = [
        one(brier_metric(test.time, test.event, curves, grid, censoring), len(plain)) for curves in (plain, halved)
    ]
    for curves, score in zip((plain, halved), scores, strict=True):
        metric = scaled_brier_metric(test.time, test.event, curves, grid, censoring=censoring, reference=flat)
        assert one(metric, len(plain)) == pytest.approx(1 - score / scores[0], abs=1e-12)


@pytest.mark.parametrize("name", ["harrell", "uno"])
def test_within_a_stratum_only_its_own_pairs_are_compared(study, risk, name: str) -> None:
    train, test = study
    stratum = np.arange(len(risk)) % 3
    censoring, tau = censoring_survival(train.time, train.event), restricted_days(train.time, train.event)

    def metric(rows: np.ndarray, values: np.ndarray | None) -> Metric:
        if name == "harrell":
            return harrell_metric(test.time[rows], test.event[rows], risk[rows], stratum=values)
        return ipcw_metric(test.time[rows], test.event[rows], risk[rows], censoring, tau_days=tau, stratum=values)

    everyone = np.arange(len(risk))
    shifted = risk + 100.0 * stratum  # what differs between strata does not matter
    together = one(metric(everyone, stratum), len(risk))
    risk[:] = shifted
    assert one(metric(everyone, stratum), len(risk)) == pytest.approx(together, abs=1e-12)
    risk[:] = shifted - 100.0 * stratum


def test_sums_of_pairs_add_up_over_strata_to_the_concordance_within_them(study, risk) -> None:
    test, stratum = study.test, np.arange(len(risk)) % 2
    sums = [
        concordance_sums(test.time[rows], test.event[rows], risk[rows], np.ones((1, int(rows.sum()))))
        for rows in (stratum == 0, stratum == 1)
    ]
    expected = one(harrell_metric(test.time, test.event, risk, stratum=stratum), len(risk))
    assert sum(won[0] for won, _ in sums) / sum(pairs[0] for _, pairs in sums) == pytest.approx(expected, abs=1e-12)
