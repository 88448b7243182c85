"""The measures of an evaluation: what they are of, that they agree, and that they can say no."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pathoml.covariates import CategoricalCovariate, NumericCovariate, OrdinalCovariate
from pathoml.errors import InputError
from pathoml.evaluate import Background, EvaluateSettings, evaluate
from pathoml.evaluate.estimates import estimate
from pathoml.evaluate.fold_metrics import fold_samples
from pathoml.evaluate.risk_groups import log_rank_of_groups, permuted_log_rank
from pathoml.evaluate.scheme import build_scheme
from pathoml.evaluate.site_signal import site_from_columns
from pathoml.predictions import Predictions
from pathoml.survival import harrell_metric, kaplan_meier, log_rank
from tests.counts import NULL_COHORTS
from tests.test_evaluate import DAYS, predictions

SETTINGS = EvaluateSettings(bootstraps=100, horizons_days=(300.0, 600.0), trial={"simulations": 5})


def with_sites(given: Predictions, sites: int = 3) -> Predictions:
    place = given.table["patient_id"].str.removeprefix("p").astype(int) % sites
    return Predictions(given.table.assign(site="H" + place.astype(str)), given.curve_days, given.survival)


def background(patients: int = 120, seed: int = 99, features: bool = False) -> Background:
    rng = np.random.default_rng(seed)
    covariates = pd.DataFrame({"age": rng.normal(60, 9, patients), "sex": rng.choice(["f", "m", ""], patients)})
    return Background(
        np.array([f"p{i:03d}" for i in range(patients)]), covariates,
        (NumericCovariate(column="age"), CategoricalCovariate(column="sex")),
        rng.normal(size=(patients, 4)) if features else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict:
    return evaluate(with_sites(predictions()), SETTINGS, background(features=True))


def test_json_can_hold_every_number_and_the_format_is_named(found) -> None:
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert (found["format"], found["format_version"]) == ("pathoml-evaluation", 3)


def test_every_part_says_what_its_intervals_are_conditional_on(found) -> None:
    scheme = found["schemes"]["kfold"]
    parts = [found, *scheme["groups"].values(), *scheme["calibration"].values(), *scheme["hazards"].values()]
    parts += [*scheme["decisions"], scheme["subgroups"], scheme["trial"], *scheme["sites"].values()]
    assert all("conditional on" in part["condition"] for part in parts)


def test_predictions_of_the_truth_judge_better_than_those_with_noise_in_every_measure(found) -> None:
    scheme = found["schemes"]["kfold"]
    good, poor = (scheme["hazards"][model]["hazard_ratio"]["value"] for model in ("model", "clinical"))
    assert good > poor > 1
    benefit = [
        sum(one["models"][model]["value"][:12]) for one in scheme["decisions"] for model in ("model", "clinical")
    ]
    assert benefit[0] > benefit[1]
    assert scheme["trial"]["adjustment"][0]["landmark"]["model"]["value"] > 0.05


def test_a_risk_made_of_the_covariates_is_not_adjusted_for_them() -> None:
    given, known = with_sites(predictions(noise=(0.5,))), background()
    names = given.table["patient_id"].to_numpy(dtype=str)
    age = known.covariates["age"].to_numpy()[known.places(names)]
    made = Predictions(given.table.assign(risk=age), given.curve_days, given.survival)
    alone, other = (evaluate(one, SETTINGS, known)["schemes"]["kfold"]["hazards"]["model"] for one in (made, given))
    assert alone["adjusted"] is None
    assert other["adjusted"]["covariates"] == ["age", "sex=f", "sex=m"]
    assert other["adjusted"]["added_likelihood_ratio"]["value"] > 24
    assert other["adjusted"]["added_likelihood_ratio"]["p_value"] is None


def test_patients_gone_from_the_clinical_table_are_named() -> None:
    with pytest.raises(InputError, match=r"p11\d.* were predicted but are not in the clinical table"):
        evaluate(with_sites(predictions()), SETTINGS, background(110))


def test_survival_between_grid_days_is_on_a_straight_line_from_one_on_day_zero() -> None:
    scheme = build_scheme(predictions(), bootstraps=0, seed=0)
    tested = scheme.tested("model")
    at = tested.survival_at(np.full(120, 25.0))
    np.testing.assert_allclose(at, (1 + tested.survival[:, 0]) / 2)  # the grid starts on day 50
    for row in range(5):
        expected = np.interp(333.0, DAYS, tested.survival[row])
        assert tested.survival_at(np.full(120, 333.0))[row] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(tested.survival_at(np.full(120, 1e6)), tested.survival[:, -1])


def test_a_patient_tested_in_several_repetitions_is_drawn_alike_in_all() -> None:
    first = predictions()
    again = Predictions(first.table.assign(repeat=1), first.curve_days, first.survival)
    both = Predictions(
        pd.concat([first.table, again.table], ignore_index=True), DAYS, np.concatenate([first.survival] * 2)
    )
    scheme = build_scheme(both, bootstraps=50, seed=0)
    assert scheme.repeats == (0, 1)
    assert scheme.counts.shape == (51, 120)
    once, twice = (evaluate(one, SETTINGS)["schemes"]["kfold"] for one in (first, both))
    for name, values in once["metrics"]["model"].items():
        assert {**values, "folds": 6} == pytest.approx(twice["metrics"]["model"][name]), name
    assert twice["repeats"]["count"] == 2
    assert twice["hazards"] == once["hazards"]  # each patient once


@pytest.mark.parametrize(("noises", "better"), [((0.5, 0.5), 1), ((0.5, 60.0), 0), ((0.5, None), 0)])
def test_a_model_is_better_only_where_interval_and_repetitions_agree(noises, better: int) -> None:
    parts = []
    for repeat, noise in enumerate(one for one in noises if one is not None):
        other = 4.0 if noise < 1 else 0.05  # in a repetition with noise the other model ranks better
        given = predictions(seed=3, noise=(noise, other))
        parts.append(Predictions(given.table.assign(repeat=repeat), DAYS, given.survival))
    joined = Predictions(
        pd.concat([one.table for one in parts], ignore_index=True),
        DAYS,
        np.concatenate([one.survival for one in parts]),
    )
    verdict = evaluate(joined, SETTINGS)["schemes"]["kfold"]["verdicts"]["model - clinical"]
    assert verdict["better"] == better
    assert verdict["by_repeats"] == (None if len(parts) == 1 else better)


def test_groups_in_many_orders_are_compared_as_one_by_one() -> None:
    scheme = build_scheme(predictions(), bootstraps=0, seed=0)
    groups = np.random.default_rng(0).integers(0, 2, (20, 120)).astype(float)
    groups[0] = 1
    found = log_rank_of_groups(scheme.time_days, scheme.event, groups)
    expected = [log_rank(scheme.time_days, scheme.event, one.astype(np.int64))[0] for one in groups]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_permutation_p_value_is_as_small_as_shuffles_allow_for_a_strong_risk_and_not_for_noise() -> None:
    tested = build_scheme(predictions(noise=(0.1,)), bootstraps=0, seed=0).tested("model")
    high = (tested.group == "high").astype(np.int64)
    assert permuted_log_rank(tested, high, permutations=199, seed=0) == pytest.approx(1 / 200)
    noise = np.random.default_rng(1).integers(0, 2, 120)
    assert permuted_log_rank(tested, noise, permutations=199, seed=0) > 0.05
    assert permuted_log_rank(tested, high, permutations=0, seed=0) is None


def test_subgroups_are_judged_by_their_own_pairs_within_folds(found) -> None:
    given = with_sites(predictions())
    rows = {row["level"]: row for row in found["schemes"]["kfold"]["subgroups"]["rows"]}
    table = given.select(model="model", role="test").table
    assert rows["all patients"]["patients"] == 120
    one = table[table["site"] == "H1"]
    won = pairs = 0.0
    for _, fold in one.groupby("fold"):
        time, event, risk = (fold[name].to_numpy() for name in ("time_days", "event", "risk"))
        for i in range(len(fold)):
            known = (event[i] == 1) & ((time > time[i]) | ((time == time[i]) & (event == 0)))
            won, pairs = won + ((risk < risk[i]) & known).sum(), pairs + known.sum()
    assert rows["H1"]["concordance"]["value"] == pytest.approx(won / pairs, abs=1e-12)
    assert rows["H1"]["events"] == one["event"].sum()
    assert {"f", "m", "not known"} < set(rows)


def test_words_in_order_two_values_and_what_is_missing_make_subgroups_of_their_own() -> None:
    rng = np.random.default_rng(4)
    covariates = pd.DataFrame({
        "grade": rng.choice(["low", "high", "middle"], 120), "female": rng.integers(0, 2, 120).astype(float),
        "age": np.where(np.arange(120) < 40, np.nan, rng.normal(60, 9, 120)),
    })  # fmt: skip
    known = Background(
        np.array([f"p{i:03d}" for i in range(120)]), covariates,
        (
            OrdinalCovariate(column="grade", levels=("low", "middle", "high")), NumericCovariate(column="female"),
            NumericCovariate(column="age"),
        ),
    )  # fmt: skip
    rows = evaluate(with_sites(predictions()), SETTINGS, known)["schemes"]["kfold"]["subgroups"]["rows"]
    found = {(row["by"], row["level"]): row["patients"] for row in rows if row["by"] in covariates}
    expected = {("grade", level): int((covariates["grade"] == level).sum()) for level in ("low", "middle", "high")}
    expected |= {("female", str(one)): int((covariates["female"] == one).sum()) for one in (0, 1)}
    assert list(found.items())[:5] == list(expected.items())
    assert [level.split()[0] for by, level in found if by == "age"] == ["up", "above", "not"]
    assert found["age", "not known"] == 40


def test_patients_without_slides_do_not_take_part_in_telling_the_hospital() -> None:
    known = background(features=True)
    assert known.features is not None
    holes = known.features.copy()
    holes[::3] = np.nan
    given = with_sites(predictions())
    scheme = evaluate(given, SETTINGS, replace(known, features=holes))["schemes"]["kfold"]
    assert scheme["sites"]["from_features"]["patients"] == 80
    assert scheme["sites"]["from_risk"]["patients"] == 120


def test_parts_divide_the_variance_of_the_risk_in_every_draw_as_by_hand() -> None:
    given = with_sites(predictions())
    table = given.select(model="model", role="test").table
    rng = np.random.default_rng(8)
    parts = {"slides": rng.normal(0, 2, 120), "clinical": rng.normal(0, 1, 120)}
    shares = pd.concat(
        [
            pd.DataFrame({"scheme": "kfold", "fold": table["fold"], "patient_id": table["patient_id"], "part": name,
                          "present": np.arange(120) >= 30 if name == "slides" else True, "share": values})
            for name, values in parts.items()
        ]
    )  # fmt: skip
    known = replace(background(), part_shares=shares)
    found = evaluate(given, SETTINGS, known)["schemes"]["kfold"]["parts"]["parts"]
    total = sum(parts.values())
    for one, (name, values) in zip(found, parts.items(), strict=True):
        assert one["part"] == name
        assert one["deviation"]["value"] == pytest.approx(values.std(), abs=1e-9)
        assert one["part_of_variance"]["value"] == pytest.approx(np.cov(values, total, bias=True)[0, 1] / total.var())
        assert one["part_of_variance"]["low"] < one["part_of_variance"]["value"] < one["part_of_variance"]["high"]
    assert sum(one["part_of_variance"]["value"] for one in found) == pytest.approx(1)
    assert [one["patients"] for one in found] == [90, 120]
    few = replace(known, part_shares=shares[shares["patient_id"] != "p007"])
    with pytest.raises(InputError, match="part shares: none of patient\\(s\\) p007"):
        evaluate(given, SETTINGS, few)


def test_small_subgroups_are_named_as_left_out_and_small_hospitals_put_together() -> None:
    given = with_sites(predictions(), sites=40)
    found = evaluate(given, SETTINGS.model_copy(update={"subgroup_events": 60}), background())["schemes"]["kfold"][
        "subgroups"
    ]
    assert [row["level"] for row in found["rows"]] == ["all patients", "40 others together"]
    assert any("sex" in name for name in found["left_out"])


def test_a_hospital_written_in_the_numbers_is_told_and_one_that_is_not_is_not() -> None:
    rng = np.random.default_rng(0)
    site, counts = np.repeat(["a", "b", "c"], 50), np.ones((101, 150))
    counts[1:] = rng.multinomial(150, np.full(150, 1 / 150), size=100)
    written = rng.normal(size=(150, 3)) + 8 * (site == "b")[:, None] - 8 * (site == "c")[:, None]
    told, not_told = (
        site_from_columns(one, site, counts, seed=0)["auc"] for one in (written, rng.normal(size=(150, 60)))
    )
    assert told["value"] > 0.99
    assert 0.35 < not_told["low"] < not_told["value"] < not_told["high"] < 0.65
    assert site_from_columns(written, np.repeat(["a", "b"], [145, 5]), counts, seed=0) is None


def test_the_area_in_a_draw_is_scikit_learns_of_the_patients_drawn() -> None:
    from pathoml.evaluate.site_signal import _area

    rng = np.random.default_rng(0)
    score, positive, counts = (
        rng.normal(size=60).round(1),
        rng.random(60) < 0.4,
        rng.integers(0, 3, (5, 60)).astype(float),
    )
    expected = [roc_auc_score(positive, score, sample_weight=one) for one in counts]
    np.testing.assert_allclose(_area(score, positive, counts), expected, atol=1e-12)


def test_competing_causes_end_follow_up_and_have_an_incidence_of_their_own() -> None:
    given = with_sites(predictions())
    code = given.table["patient_id"].str.removeprefix("p").astype(int)
    cause = np.where((given.table["event"] == 1) & (code % 3 == 0), 2, given.table["event"])
    many = Predictions(given.table.assign(event=cause), DAYS, given.survival)
    one = Predictions(given.table.assign(event=(cause == 1).astype(int)), DAYS, given.survival)
    with_causes, without = (evaluate(each, SETTINGS)["schemes"]["kfold"] for each in (many, one))
    for model, values in with_causes["metrics"].items():
        assert values == {name: without["metrics"][model][name] for name in values}
        assert not any("brier" in name for name in values)
        assert with_causes["calibration"][model]["horizons"] == []
        assert "other events compete" in with_causes["calibration"][model]["left_out"]
    assert with_causes["decisions"] == with_causes["trial"]["enrichment"] == []
    assert "incidence" not in without["groups"]["model"]
    high = with_causes["groups"]["model"]["incidence"]["high"]
    assert set(high["causes"]) == {"1", "2"}
    table = many.select(model="model", role="test").table
    of_group = table[table["risk_group"] == "high"]
    total = high["causes"]["1"]["value"][-1] + high["causes"]["2"]["value"][-1]
    curve = kaplan_meier(of_group["time_days"].to_numpy(), (of_group["event"] > 0).to_numpy().astype(np.int64))
    assert total == pytest.approx(1 - curve.values[-1], abs=1e-9)


def test_predictions_of_a_model_from_elsewhere_need_no_training_patients() -> None:
    given = predictions(noise=(0.5,)).select(fold="0", role="test")
    outside = Predictions(given.table.assign(role="external", scheme="validation", fold="all"), DAYS, given.survival)
    found = evaluate(outside, SETTINGS)["schemes"]["validation"]
    assert found["metrics"]["model"]["concordance"]["value"] > 0.6
    assert found["metrics"]["model"]["integrated_brier"]["value"] is not None
    assert found["groups"]["model"]["p_value"] < 0.05
    assert found["groups"]["model"]["permutation_p_value"] < 0.05
    assert found["hazards"]["model"]["likelihood_ratio"]["p_value"] < 0.001


@pytest.mark.slow
def test_the_interval_of_a_frozen_score_without_signal_covers_one_half_as_often_as_it_says() -> None:
    covered = []
    for seed in range(NULL_COHORTS):
        rng = np.random.default_rng([seed, 17])
        time, leaves = rng.exponential(600, 200), rng.uniform(100, 2000, 200)
        event, risk = (time <= leaves).astype(np.int64), rng.normal(size=200)
        table = pd.DataFrame(
            {
                "model": "package", "scheme": "validation", "fold": "all", "role": "external", "site": "",
                "patient_id": [f"p{i:03d}" for i in range(200)], "endpoint": "os", "repeat": 0, "seed": 0,
                "time_days": np.minimum(time, leaves), "event": event, "risk": risk, "risk_group": "low",
            }
        )  # fmt: skip
        scheme = build_scheme(Predictions(table, DAYS, np.full((200, len(DAYS)), 0.5)), bootstraps=1000, seed=seed)
        one = estimate(fold_samples(scheme, "package", ())["concordance"][0])
        assert one.value == pytest.approx(harrell_metric(np.minimum(time, leaves), event, risk)(np.ones((1, 200)))[0])
        covered.append(one.low <= 0.5 <= one.high)
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("size", [5, 20])
def test_a_risk_made_of_the_covariates_is_not_adjusted_for_them_in_small_folds_either(size: int) -> None:
    given, known = with_sites(predictions(noise=(0.5,))), background()
    names = given.table["patient_id"].to_numpy(dtype=str)
    age = known.covariates["age"].to_numpy()[known.places(names)]
    fold = np.array([str(place // size) for place in known.places(names)])
    slope = 1 + 0.5 * (known.places(names) // size % 3)  # each fold's model weighs age in its own way
    small = Predictions(given.table.assign(risk=slope * age, fold=fold), given.curve_days, given.survival)
    hazards = evaluate(small, SETTINGS, known)["schemes"]["kfold"]["hazards"]["model"]
    assert hazards["adjusted"] is None
