"""Who was in the training: attacks find it where a model tells, find nothing where it does not, and say what they leave open."""

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from pathoml.cohort import Cohort
from pathoml.covariates import NumericCovariate
from pathoml.errors import FederationError
from pathoml.federated.membership import (
    ReferenceModels,
    attack,
    exact_share,
    guaranteed_rate,
    likelihood_ratio,
    membership_report,
    most_exposed,
    most_found,
    rate_at,
    train_references,
)
from pathoml.federated.patient_fit import patient_fit, patient_losses
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objective import Objective
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings
from pathoml.train import TrainingData, local_update
from pathoml.train_settings import CoxLossSettings, DiscreteLossSettings, TrainSettings
from pathoml.train_state import start_state
from pathoml.units import FloatArray, IntArray
from tests.federated.private import TRAIN, model_of, objective_of, ready
from tests.planted import data

OVERFITTING = TrainSettings(loss=DiscreteLossSettings(), learning_rate=0.03, weight_decay=0)
FLOOD = 60


def of_chance(patients: int = 120) -> TrainingData:
    """Patients with more columns of pure chance than a model needs to know each of them by heart."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame({f"c{number}": rng.normal(size=patients) for number in range(FLOOD)})
    cohort = Cohort(
        np.array([f"patient-{number:03d}" for number in range(patients)]), rng.exponential(500, patients),
        rng.integers(0, 2, patients), np.array(["a"] * patients), table, "overall survival",
    )  # fmt: skip
    return TrainingData(cohort, None, tuple(NumericCovariate(column=name) for name in table))


def fitted(
    everything: TrainingData, objective: Objective, rows: IntArray, seed: int, passes: int = 150
) -> PrognosisModel:
    torch.manual_seed(seed)
    model = PrognosisModel(MeanPoolSettings(), ModelShape(0, FLOOD, objective.out))
    model.bias.requires_grad_(objective.has_level)
    state = start_state(model, OVERFITTING)
    members = ready(everything, OVERFITTING, tuple(everything.cohort.patient_id[rows]))
    for _ in range(passes):
        local_update(state, members, objective, OVERFITTING)
    return model


def fit_of(everything: TrainingData, passes: int) -> tuple[Callable[[IntArray, int], FloatArray], TrainingPatients]:
    objective, patients = objective_of(everything, OVERFITTING), ready(everything, OVERFITTING)

    def fit(rows: IntArray, seed: int) -> FloatArray:
        return patient_fit(fitted(everything, objective, rows, seed, passes), patients, objective, OVERFITTING)

    return fit, patients


def half(patients: int, seed: int) -> IntArray:
    return np.sort(np.random.default_rng(seed).permutation(patients)[: patients // 2])


def test_an_overfitted_model_is_found_to_tell() -> None:
    everything = of_chance()
    fit, _ = fit_of(everything, 150)
    rows = half(120, 9)
    member = np.isin(np.arange(120), rows)
    report = membership_report(fit(rows, 50), member, train_references(fit, 120, 8, seed=1))
    assert report.leaks
    threshold, ratio = report.attacks
    assert threshold.auc > 0.7
    assert ratio.auc > 0.85
    assert ratio.rates[1].true_positives.low > ratio.rates[1].false_positives.high
    assert report.sentences()[0] == "The model tells who was in its training (60 patients trained on, 60 not)."


def test_a_model_that_was_not_trained_tells_nothing() -> None:
    everything = of_chance()
    fit, patients = fit_of(everything, 0)
    objective = objective_of(everything, OVERFITTING)
    torch.manual_seed(0)
    model = PrognosisModel(MeanPoolSettings(), ModelShape(0, FLOOD, objective.out))
    torch.nn.init.normal_(model.covariate_weight, std=0.3)
    member = np.isin(np.arange(120), half(120, 9))
    report = membership_report(
        patient_fit(model, patients, objective, OVERFITTING), member, train_references(fit, 120, 4, 1)
    )
    assert not report.leaks
    assert report.sentences()[0].startswith("No attack told members from others")
    assert all(one.auc_low <= 0.5 <= one.auc_high for one in report.attacks)


def test_a_head_over_slides_that_learnt_shuffled_outcomes_by_heart_tells() -> None:
    everything = data(40)
    rng = np.random.default_rng(0)
    everything.cohort.event[:] = rng.permutation(everything.cohort.event)
    everything.cohort.time_days[:] = rng.permutation(everything.cohort.time_days)
    objective = objective_of(everything)
    # Every second one by follow-up, so that before training both halves fit alike.
    member = np.zeros(40, dtype=bool)
    member[np.lexsort((everything.cohort.time_days, everything.cohort.event))[::2]] = True
    model = model_of(AbmilSettings(hidden_dim=64, attention_dim=32, dropout=0), everything, objective)
    settings = TRAIN.model_copy(update={"weight_decay": 0.0, "learning_rate": 0.02})
    state = start_state(model, settings)
    members = ready(everything, settings, tuple(everything.cohort.patient_id[member]))
    everyone = ready(everything)
    untrained = membership_report(patient_fit(copy.deepcopy(model), everyone, objective, TRAIN), member)
    assert not untrained.leaks
    for _ in range(200):
        local_update(state, members, objective, settings)
    assert membership_report(patient_fit(model, everyone, objective, TRAIN), member).leaks


def test_chance_alone_is_rarely_taken_for_a_leak() -> None:
    rng = np.random.default_rng(0)
    found = [
        membership_report(rng.normal(size=150), rng.permutation(150) < 90).leaks for _ in range(300)
    ]  # fmt: skip
    assert np.mean(found) < 0.09


@pytest.mark.parametrize(("count", "of"), [(0, 40), (1, 40), (20, 40), (40, 40), (3, 7), (0, 1)])
def test_shares_have_the_exact_interval_of_scipy(count: int, of: int) -> None:
    found, expected = exact_share(count, of), binomtest(count, of).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("allowed", [0.01, 0.05])
def test_the_threshold_keeps_to_the_allowed_share_ties_included(allowed: float) -> None:
    rng = np.random.default_rng(0)
    for size in (5, 40, 99, 100, 250):
        others = rng.integers(0, 30, size).astype(float)
        members = rng.integers(0, 35, 80).astype(float)
        rate = rate_at(members, others, allowed)
        assert rate.false_positives.count <= allowed * size
        stricter = np.unique(others)[::-1]
        best = max(int((members > cut).sum()) for cut in stricter if (others > cut).sum() <= allowed * size)
        assert rate.true_positives.count == best


@pytest.mark.parametrize(("members", "others", "shift"), [(60, 30, 2.0), (500, 200, 3.0), (100, 100, 1.0)])
@pytest.mark.parametrize("allowed", [0.01, 0.05])
def test_what_is_not_ruled_out_holds_though_the_threshold_is_not_known(
    members: int, others: int, shift: float, allowed: float
) -> None:
    """Normal scores: the true rate at the true threshold is known."""
    rng, truth = np.random.default_rng(0), float(norm.sf(norm.isf(allowed) - shift))
    limits = [most_found(rng.normal(shift, 1, members), rng.normal(0, 1, others), allowed) for _ in range(2000)]
    assert np.mean(np.array(limits) < truth) <= 0.035, "2.5 %, and what 2,000 draws can be off"


def test_so_few_others_rule_nothing_out() -> None:
    assert most_found(np.zeros(50), np.ones(1), 0.05) == 1.0
    assert most_found(np.zeros(50), np.arange(1.0, 400.0), 0.05) == pytest.approx(exact_share(0, 50, 0.975).high)


def test_the_auc_is_that_of_scikit_learn_and_its_interval_covers() -> None:
    rng = np.random.default_rng(0)
    truth, covered = float(norm.cdf(0.5 / 2**0.5)), []
    for _ in range(300):
        members, others = rng.normal(0.5, 1, 40), rng.normal(0, 1, 60)
        found = attack("x", members, others)
        covered.append(found.auc_low <= truth <= found.auc_high)
    assert np.mean(covered) > 0.91
    expected = roc_auc_score(np.repeat([1, 0], [40, 60]), np.concatenate([members, others]))
    assert found.auc == pytest.approx(expected)


def test_a_perfect_attack_on_few_patients_is_not_called_certain() -> None:
    found = attack("x", np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0]))
    assert found.auc == 1
    assert found.auc_low < 0.75
    assert not found.rates[0].leaks, "3 of 3 against 0 of 3 may be chance"


def test_the_report_says_what_so_few_patients_cannot_rule_out() -> None:
    rng = np.random.default_rng(0)
    text = "\n".join(membership_report(rng.normal(size=70), np.arange(70) < 40).sentences())
    assert "A false-positive rate of 1% cannot be measured on 30 patients not trained on (100 are needed" in text
    assert "behind which a rate of up to 11.6% may stand" in text
    assert "Not ruled out: that these attacks find up to" in text
    assert "finding nothing is no proof that there is nothing to be found" in text
    many = "\n".join(membership_report(rng.normal(size=400), np.arange(400) < 200).sentences())
    assert "cannot be measured" not in many


def test_the_likelihood_ratio_sees_what_a_common_threshold_does_not() -> None:
    """Patients differ far more in how hard they are than in whether they were trained on."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 200)
    was_in = train_references(lambda rows, seed: hard, 200, 16, seed=3).was_in
    models = ReferenceModels(hard + 1.5 * was_in + rng.normal(0, 0.5, was_in.shape), was_in)
    member = rng.permutation(200) < 100
    report = membership_report(hard + 1.5 * member + rng.normal(0, 0.5, 200), member, models)
    threshold, ratio = report.attacks
    assert threshold.auc < 0.7
    assert ratio.auc > 0.95
    assert report.leaks


def test_every_patient_is_in_half_of_the_reference_models() -> None:
    asked: list[tuple[IntArray, int]] = []

    def fit(rows: IntArray, seed: int) -> FloatArray:
        asked.append((rows, seed))
        return np.zeros(31)

    models = train_references(fit, 31, 6, seed=5)
    assert (models.was_in.sum(axis=0) == 3).all()
    assert [seed for _, seed in asked] == [6, 7, 8, 9, 10, 11]
    assert all(np.array_equal(np.flatnonzero(row), rows) for row, (rows, _) in zip(models.was_in, asked, strict=True))


@pytest.mark.parametrize("loss", [DiscreteLossSettings(), CoxLossSettings()], ids=["discrete", "cox"])
def test_the_losses_of_patients_are_those_of_each_alone(loss: DiscreteLossSettings | CoxLossSettings) -> None:
    everything, settings = data(30), TrainSettings(loss=loss)
    objective = objective_of(everything, settings)
    model, patients = model_of(AbmilSettings(), everything, objective), ready(everything, settings)
    losses = patient_losses(model, patients, objective, settings)
    (part,) = patients.parts()
    with torch.no_grad():
        logits = model(part.tiles, part.covariates).logits
    if isinstance(loss, DiscreteLossSettings):
        assert losses.mean() == pytest.approx(float(objective.loss(logits, part.outcome)), rel=1e-5)
        return
    martingale = part.outcome.event.numpy() - (losses + part.outcome.event.numpy() * logits[:, 0].numpy())
    assert martingale.sum() == pytest.approx(0, abs=1e-4), "residuals of a Cox model sum to zero"


@pytest.mark.parametrize("members", [0, 20])
def test_without_members_or_without_others_there_is_no_report(members: int) -> None:
    with pytest.raises(
        FederationError, match=f"{members} of 20 patients were trained on; it needs some who were and some"
    ):
        membership_report(np.zeros(20), np.arange(20) < members)


def test_statistics_that_are_not_finite_and_halves_that_are_none_are_refused() -> None:
    with pytest.raises(FederationError, match="loss threshold: not a finite number for every patient"):
        membership_report(np.array([1.0, np.nan]), np.array([True, False]))
    everywhere = np.ones((4, 2), dtype=bool)
    with pytest.raises(FederationError, match="in some reference models and not in others"):
        likelihood_ratio(np.zeros(2), ReferenceModels(np.zeros((4, 2)), everywhere))


@pytest.mark.parametrize(
    ("rate", "epsilon", "bound"),
    [(0.01, 1.0, 0.0278), (0.01, 0.0, 0.0106), (0.01, 8.0, 0.99967), (0.05, 1.0, 0.1365), (0.01, 1e4, 1.0)],
)
def test_what_epsilon_promises(rate: float, epsilon: float, bound: float) -> None:
    assert guaranteed_rate(rate, epsilon, 1 / 1500) == pytest.approx(bound, abs=1e-4)


def test_the_promise_holds_for_the_best_attack_on_a_gaussian() -> None:
    """Of one noised sum with epsilon 1 the strongest test there is stays below the bound."""
    noise, delta = 2.2, 1e-2
    epsilon = 1.0
    spent = norm.cdf(1 / (2 * noise) - epsilon * noise) - np.exp(epsilon) * norm.cdf(-1 / (2 * noise) - epsilon * noise)
    assert spent < delta
    for rate in (0.001, 0.01, 0.05, 0.3):
        best = norm.sf(norm.isf(rate) - 1 / noise)
        assert best <= guaranteed_rate(rate, epsilon, delta)


def test_the_most_exposed_are_members_only() -> None:
    names = ["a", "b", "c", "d"]
    assert most_exposed(np.array([1.0, 9.0, 3.0, 2.0]), np.array([True, False, True, True]), names, 2) == ["c", "d"]
    assert most_exposed(np.zeros(4), np.array([True, False, False, False]), names) == ["a"]
