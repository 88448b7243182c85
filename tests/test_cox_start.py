"""Where covariates begin, and the model that nothing but the table makes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from pathoml.covariates import BlockCovariate, NumericCovariate, fit_covariates
from pathoml.cox_start import CoxPatients, choose_block_ridge, fit_cox_start, is_of_block
from pathoml.errors import TrainingError
from pathoml.infer import predict_logits
from pathoml.losses import cox_loss
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import ModelSettings
from pathoml.survival.baselines import fit_cox
from pathoml.survival.partial_likelihood import partial_likelihood
from pathoml.train import TrainingData, fit_member
from pathoml.train_settings import FixedRidgeSettings, SearchedRidgeSettings, TrainSettings
from tests.planted import data, one_fold

COVARIATES = (
    NumericCovariate(column="age"), BlockCovariate(name="omics", columns="g*", components=None, scaling="first"),
)  # fmt: skip
SEARCH = SearchedRidgeSettings(steps=5, folds=3)


def patients(count: int = 120, seed: int = 0) -> CoxPatients:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 31))
    raw = pd.DataFrame(values, columns=["age", *(f"g{i}" for i in range(30))])
    time, censoring = rng.exponential(500 * np.exp(-values[:, 0])), rng.exponential(900, count)
    return CoxPatients(raw, np.minimum(time, censoring), (time <= censoring).astype(np.int64))


def begun(settings: TrainSettings, own: CoxPatients):
    return fit_cox_start(COVARIATES, fit_covariates(COVARIATES, own.raw), own, settings)


def test_single_columns_and_blocks_have_their_own_penalties() -> None:
    own = patients()
    found = begun(TrainSettings(covariate_ridge=2.0, block_ridge=FixedRidgeSettings(penalty=70.0)), own)
    transform = fit_covariates(COVARIATES, own.raw)
    penalties = np.where(is_of_block(transform), 70.0, 2.0)
    log_hazard = torch.from_numpy(transform.apply(own.raw)) @ (
        start := torch.from_numpy(found.coefficients).requires_grad_()
    )
    loss = cox_loss(log_hazard, torch.from_numpy(own.event == 1), torch.from_numpy(own.time_days)) * own.event.sum()
    (gradient,) = torch.autograd.grad(loss, start)
    np.testing.assert_allclose(-gradient.numpy(), penalties * found.coefficients, atol=1e-5)
    assert found.block_ridge is None


def test_without_a_penalty_of_their_own_blocks_have_that_of_the_others() -> None:
    own = patients()
    ridges = (None, FixedRidgeSettings(penalty=9.0))
    one, other = (begun(TrainSettings(covariate_ridge=9.0, block_ridge=ridge), own) for ridge in ridges)
    np.testing.assert_array_equal(one.coefficients, other.coefficients)


def test_inner_folds_choose_the_penalty_and_noise_gets_the_strongest() -> None:
    found = begun(TrainSettings(block_ridge=SEARCH), patients())
    assert found.block_ridge == pytest.approx(SEARCH.highest)
    assert abs(found.coefficients[0]) > 0.5
    assert np.abs(found.coefficients[1:]).max() < 0.05


def test_inner_folds_fit_transforms_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_on = []

    def watched(covariates, raw):
        fitted_on.append(set(raw.index))
        return fit_covariates(covariates, raw)

    monkeypatch.setattr("pathoml.cox_start.fit_covariates", watched)
    own = patients(90)
    choose_block_ridge(COVARIATES, own, SEARCH, 1.0)
    everyone = set(range(90))
    assert len(fitted_on) == SEARCH.folds
    assert sorted(row for rows in fitted_on for row in everyone - rows) == sorted(everyone), "each is left out once"


def test_the_penalty_chosen_is_that_of_the_highest_cross_validated_likelihood() -> None:
    own = patients(90, seed=4)
    blocks_only = (COVARIATES[1],)
    found = choose_block_ridge(blocks_only, own, SEARCH, 1.0)
    tried, scores = np.geomspace(SEARCH.highest, SEARCH.lowest, SEARCH.steps), []
    for penalty in tried:
        total = 0.0
        for kept, _ in StratifiedKFold(SEARCH.folds, shuffle=True, random_state=SEARCH.seed).split(
            own.event, own.event
        ):
            transform = fit_covariates(blocks_only, own.raw.iloc[kept])
            design = transform.apply(own.raw)
            fitted = fit_cox(design[kept], own.time_days[kept], own.event[kept], ridge=penalty)
            log_hazard = fitted.log_hazard(design)
            total += partial_likelihood(log_hazard, own.time_days, own.event)
            total -= partial_likelihood(log_hazard[kept], own.time_days[kept], own.event[kept])
        scores.append(total)
    assert found == tried[int(np.argmax(scores))]


def test_too_few_events_for_the_inner_folds_are_refused() -> None:
    own = patients(40)
    few = own._replace(event=np.where(np.arange(40) < 2, 1, 0))
    with pytest.raises(TrainingError, match=r"3 inner folds need as many events .* there are 2 events in 40 patients"):
        begun(TrainSettings(block_ridge=SEARCH), few)


def tabular() -> TrainingData:
    everything = data(80)
    rng = np.random.default_rng(2)
    omics = pd.DataFrame(rng.normal(size=(80, 6)), columns=[f"g{i}" for i in range(6)])
    cohort = replace(everything.cohort, covariates=pd.concat([everything.cohort.covariates, omics], axis=1))
    return TrainingData(cohort, None, COVARIATES)


def test_without_epochs_the_model_is_the_cox_fit_of_training_and_validation_patients() -> None:
    everything = tabular()
    fold = one_fold(everything)
    settings = TrainSettings(max_epochs=0, block_ridge=SEARCH)
    member, history = fit_member(everything, fold, ModelSettings(), settings)
    rows = everything.cohort.rows_of((*fold.train, *fold.validation))
    own = CoxPatients(
        everything.cohort.covariates.iloc[rows], everything.cohort.time_days[rows], everything.cohort.event[rows]
    )
    expected = begun(settings, own)
    np.testing.assert_allclose(member.model.covariate_weight.detach().numpy(), expected.coefficients, atol=1e-6)
    assert history == [{"epoch": 0.0, "block_ridge": expected.block_ridge}]


def test_test_patients_change_no_bit_of_it() -> None:
    everything = tabular()
    fold = one_fold(everything)
    rows = everything.cohort.rows_of(fold.test)
    raw, time = everything.cohort.covariates.copy(), everything.cohort.time_days.copy()
    raw.iloc[rows] = 1e3
    time[rows] = 1.0
    changed = TrainingData(replace(everything.cohort, covariates=raw, time_days=time), None, COVARIATES)
    settings = TrainSettings(max_epochs=0, block_ridge=SEARCH)
    known = select_patients(everything.cohort, None, fold.train)
    members = [fit_member(given, fold, ModelSettings(), settings)[0] for given in (everything, changed)]
    one, other = (predict_logits(member, known) for member in members)
    np.testing.assert_array_equal(one, other)
