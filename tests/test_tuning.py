"""Settings are sought without the test patients, go on after a kill as if there had been none, and help where they can."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from pathoml import tuning
from pathoml.config import load_config
from pathoml.errors import ConfigError, InputError, TrainingError
from pathoml.fold_fitting import FitPlan, fit_fold
from pathoml.mil.settings import MeanPoolSettings, ModelSettings
from pathoml.settings import Settings
from pathoml.splits import Fold
from pathoml.train import TrainingData, fit_member
from pathoml.train_settings import TrainSettings
from pathoml.tune_settings import TuneSettings, impossible_values, with_values
from pathoml.tuning import Search, inner_folds, tune
from tests.planted import MEAN, QUICK, TEMPLATE, altered, concordance, data, one_fold

SPACE = {
    "train.learning_rate": {"kind": "range", "low": 1e-4, "high": 1e-1, "log": True},
    "model.tile_components": {"kind": "range", "low": 1, "high": 6, "whole": True},
    "model.aggregator": {"kind": "choices", "values": [{"kind": "mean"}, {"kind": "abmil", "hidden_dim": 8}]},
}
TUNE = TuneSettings.model_validate({"space": SPACE, "trials": 4, "folds": 2})


def found(everything: TrainingData, fold: Fold, record: Path, settings: TuneSettings = TUNE) -> tuning.Trial:
    return tune(everything, fold, Search(settings, MEAN, QUICK), record, "digest")


def test_inner_folds_are_of_training_and_validation_patients_only() -> None:
    everything = data(90)
    fold = one_fold(everything)
    inner = inner_folds(everything, fold, TUNE)
    assert len(inner) == TUNE.folds
    tested = [patient for one in inner for patient in one.test]
    assert sorted(tested) == sorted((*fold.train, *fold.validation))
    for one in inner:
        assert not {*one.train, *one.validation, *one.test} & set(fold.test)
        assert not set(one.test) & {*one.train, *one.validation}


def test_test_patients_take_no_part(tmp_path: Path) -> None:
    everything = data(90)
    fold = one_fold(everything)
    first = found(everything, fold, tmp_path / "a.jsonl")
    assert found(altered(everything, fold.test), fold, tmp_path / "b.jsonl") == first
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = data(90)
    fold = one_fold(everything)
    whole = found(everything, fold, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "half.jsonl").write_text("\n".join(lines[:3]) + "\n", encoding="utf-8")
    fits = []
    monkeypatch.setattr(tuning, "fit_member", lambda *values: fits.append(1) or fit_member(*values))
    assert found(everything, fold, tmp_path / "half.jsonl") == whole
    assert len(fits) == (TUNE.trials + 1 - 2) * TUNE.folds
    assert (tmp_path / "half.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("content", ["no json\n", '{"digest": "another"}\n', '{"digest": "digest"}\n{"values": {}}\n'])
def test_a_record_of_another_search_or_a_broken_one_is_not_taken(tmp_path: Path, content: str) -> None:
    everything = data(60)
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    settings = TUNE.model_copy(update={"trials": 1})
    first = found(everything, one_fold(everything), tmp_path / "a.jsonl", settings)
    assert first == found(everything, one_fold(everything), tmp_path / "b.jsonl", settings)


def test_the_best_trial_is_no_worse_than_the_configuration_and_is_what_is_fitted(tmp_path: Path) -> None:
    """With a step size that moves nothing, what is found is better on patients that neither search nor fit has seen."""
    everything = data(120)
    fold = one_fold(everything)
    still = TrainSettings(max_epochs=30, learning_rate=1e-9)
    space = {"train.learning_rate": {"kind": "range", "low": 1e-9, "high": 1e-1, "log": True}}
    tuned = TuneSettings.model_validate({"space": space, "trials": 6, "folds": 2})
    plan = FitPlan(MEAN, still, TEMPLATE, tmp_path / "tuned", tune=tuned)
    package = fit_fold(everything, fold, plan)
    rows = [json.loads(line) for line in next((tmp_path / "tuned").glob("*.trials.jsonl")).read_text().splitlines()[1:]]
    means = [sum(row["concordances"]) / 2 for row in rows]
    best = rows[means.index(max(means))]
    assert rows[0]["values"] == {}
    assert package.summary["tuned"] == {fold.key: best["values"]}
    assert max(means) > means[0] + 0.1
    model, train = with_values(MEAN, still, best["values"])
    again, _ = fit_member(everything, fold, model, train)
    assert concordance(package.members[0], everything, fold.test) == concordance(again, everything, fold.test)
    plain = fit_fold(everything, fold, replace(plan, tune=None, folder=tmp_path / "plain"))
    assert concordance(package.members[0], everything, fold.test) > concordance(plain.members[0], everything, fold.test)


def test_a_trial_that_diverges_counts_as_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise TrainingError("the loss of P1 is inf")

    monkeypatch.setattr(tuning, "fit_member", fails)
    everything = data(60)
    first = found(everything, one_fold(everything), tmp_path / "a.jsonl", TUNE.model_copy(update={"trials": 1}))
    assert first.concordances == (0.0, 0.0)
    assert "this trial counts as 0: the loss of P1 is inf" in caplog.text


def test_values_replace_what_they_name_and_a_whole_comes_before_its_parts() -> None:
    model, train = with_values(
        ModelSettings(), TrainSettings(),
        {"model.aggregator.dropout": 0.5, "model.aggregator": {"kind": "clam"}, "train.loss": {"kind": "discrete"}},
    )  # fmt: skip
    assert (model.aggregator.kind, model.aggregator.dropout, train.loss.kind) == ("clam", 0.5, "discrete")
    kept, _ = with_values(ModelSettings(aggregator=MeanPoolSettings()), TrainSettings(), {"train.members": 2})
    assert kept.aggregator.kind == "mean"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{splits.seed: {kind: range, low: 0, high: 1}}", "is not below model or train"),
        ("{train.seed: {kind: range, low: 0, high: 1}}", "more seeds are averaged"),
        ("{train.learning_rate: {kind: range, low: 1, high: 0.1}}", "is not below high"),
        ("{train.learning_rate: {kind: range, low: 0, high: 0.1, log: true}}", "begins above 0"),
        ("{train.learning_rate: {kind: range, low: 0.1, high: 5}}", "less than or equal to 1"),
        ("{train.learning_rat: {kind: range, low: 0.1, high: 0.5}}", "learning_rat"),
        ("{train.max_epochs: {kind: range, low: 1, high: 9.5, whole: true}}", "whole numbers"),
        (
            "{model.aggregator: {kind: choices, values: [{kind: mean}, {kind: clam}]},"
            " model.aggregator.attention_dim: {kind: range, low: 8, high: 64, whole: true}}",
            "attention_dim",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_check(tmp_path: Path, space: str, said: str) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(
        "name: x\noutput: run\ncohort: {table: c.csv, patient_id: id, time: t, time_unit: days, event: e}\n"
        + f"tune: {{space: {space}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(config)
    assert said in str(caught.value), str(caught.value)


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt '\.\[tune\]'"):
        found(data(60), one_fold(data(60)), tmp_path / "a.jsonl")


def test_settings_of_a_search_are_settings() -> None:
    assert isinstance(TUNE, Settings)


def test_values_that_no_model_can_have_count_as_nothing_and_the_search_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Between two widths that a head can have lie some that it cannot."""
    space = {"model.aggregator.hidden_dim": {"kind": "range", "low": 8, "high": 16, "whole": True}}
    settings = TuneSettings.model_validate({"space": space, "trials": 4, "folds": 2})
    model = ModelSettings.model_validate({"aggregator": {"kind": "ilra", "hidden_dim": 8, "heads": 4}})
    assert "not a multiple of heads" in impossible_values(settings, model, TrainSettings())[0]
    stepped = {"model.aggregator.hidden_dim": {**space["model.aggregator.hidden_dim"], "step": 4}}
    assert not impossible_values(TuneSettings.model_validate({"space": stepped}), model, TrainSettings())
    everything = data(60)
    quick = TrainSettings(max_epochs=1)
    trial = tuning.tune(
        everything, one_fold(everything), tuning.Search(settings, model, quick), tmp_path / "record", "d"
    )
    assert trial.mean > 0
    assert "no model can have these" in caplog.text
    recorded = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()[1:]]
    impossible = [one for one in recorded if one["values"] and one["values"]["model.aggregator.hidden_dim"] % 4]
    assert impossible
    assert all(one["concordances"] == [0, 0] for one in impossible)


@pytest.mark.parametrize("wrong", [{"step": 3}, {"step": 4, "whole": False}, {"step": 4, "log": True}])
def test_steps_go_with_whole_numbers_that_they_reach(wrong: dict) -> None:
    space = {"x": {"kind": "range", "low": 8, "high": 16, "whole": True, **wrong}}
    with pytest.raises(ValidationError, match=f"step {wrong['step']}"):
        TuneSettings.model_validate({"space": space})
