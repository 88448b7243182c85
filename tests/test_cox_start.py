"""Where covariates begin, and the model that nothing but the table makes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pathoml.covariates import BlockCovariate, NumericCovariate, fit_covariates
from pathoml.cox_start import CoxPatients, choose_block_ridge, fit_cox_start, is_of_block
from pathoml.errors import TrainingError
from pathoml.infer import predict_logits
from pathoml.mil.patients import select_patients
from pathoml.mil.settings import ModelSettings
from pathoml.survival.ridge_cox import PartialLikelihood
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


def start(settings: TrainSettings, own: CoxPatients):
    return fit_cox_start(COVARIATES, fit_covariates(COVARIATES, own.raw), own, settings)


def test_single_columns_and_blocks_have_their_own_penalties() -> None:
    own = patients()
    found = start(TrainSettings(covariate_ridge=2.0, block_ridge=FixedRidgeSettings(penalty=70.0)), own)
    transform = fit_covariates(COVARIATES, own.raw)
    likelihood = PartialLikelihood(transform.apply(own.raw), own.time_days, own.event)
    penalties = np.where(is_of_block(transform), 70.0, 2.0)
    np.testing.assert_allclose(likelihood.derivatives(found.coefficients)[0], penalties * found.coefficients, atol=1e-5)
    assert found.block_ridge is None


def test_without_a_penalty_of_their_own_blocks_have_that_of_the_others() -> None:
    own = patients()
    ridges = (None, FixedRidgeSettings(penalty=9.0))
    one, other = (start(TrainSettings(covariate_ridge=9.0, block_ridge=ridge), own) for ridge in ridges)
    np.testing.assert_array_equal(one.coefficients, other.coefficients)


def test_inner_folds_choose_the_penalty_and_noise_gets_the_strongest() -> None:
    found = start(TrainSettings(block_ridge=SEARCH), patients())
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


def test_too_few_events_for_the_inner_folds_are_refused() -> None:
    own = patients(40)
    few = own._replace(event=np.where(np.arange(40) < 2, 1, 0))
    with pytest.raises(TrainingError, match=r"3 inner folds need as many events .* there are 2 events in 40 patients"):
        start(TrainSettings(block_ridge=SEARCH), few)


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
    expected = start(settings, own)
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
