"""Members as an ensemble, and what each tile adds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pathoml.bags import Bag, BagHeader
from pathoml.covariates import NumericCovariate, fit_covariates
from pathoml.errors import BagMismatchError, PackageError
from pathoml.infer import predict_logits, predict_member, predict_package, predict_shares, risk_groups
from pathoml.mil.objectives import CoxObjective, DiscreteObjective
from pathoml.mil.packed import Packed, pack
from pathoml.mil.patients import Patients, places_of
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import fit_projection
from pathoml.mil.settings import AbmilSettings, GatedSettings, LateSettings, MeanPoolSettings, ModelSettings
from pathoml.packages import Member, Package
from pathoml.tile_scores import score_tiles
from pathoml.train import fit_member
from tests.planted import QUICK, data, one_fold
from tests.trained import as_if_trained

HEADER = BagHeader(
    "slide", "f" * 64, "d" * 64, 1000, 1000, (0.5, 0.5), "metadata", 0.5, (0.5, 0.5), 224,
    (224.0, 224.0), (224.0, 224.0), (0.0, 0.0),
    "lite0", "w" * 64, "float32", "float32", "native tiles", "exact", 8, 8, "s" * 64, 0, {"pen": 2}, "", "none", {}, "0.1.0",
)  # fmt: skip
DAYS = np.linspace(10, 1000, 7)


def patients(*, slides: bool = True) -> Patients:
    rng = np.random.default_rng(0)
    features = tuple(rng.normal(size=(count, 5)).astype(np.float16) for count in range(1, 13))
    places = tuple(
        np.stack([np.zeros(n), np.arange(n) // 4, np.arange(n) % 4], axis=1).astype(np.int64) for n in range(1, 13)
    )
    return Patients(
        tuple(f"p{i}" for i in range(12)), features if slides else None, pd.DataFrame({"age": rng.normal(size=12)}),
        places if slides else None,
    )  # fmt: skip


def member(aggregator: Any = None, *, bins: int = 1, seed: int = 0, fusion: Any = None) -> Member:
    """A random model whose numbers are those of `patients`, as training leaves them."""
    aggregator = aggregator or AbmilSettings()
    torch.manual_seed(seed)
    someone = patients()
    transform, projection = (
        fit_covariates((NumericCovariate(column="age"),), someone.covariates),
        fit_projection(someone.features or (), 4),
    )
    model = as_if_trained(PrognosisModel(aggregator, ModelShape(4, 1, bins), fusion or LateSettings())).eval()
    edges = np.linspace(0, 1000, bins + 1)
    objective: Any = CoxObjective() if bins == 1 else DiscreteObjective(edges)
    draft = Member("kfold-0", aggregator, model, projection, transform, objective, 0.0, 1.0, 0.0, (0.0,) * bins)
    logits = predict_logits(draft, someone)
    shift = transform.apply(someone.covariates) @ model.covariate_weight.detach().numpy()
    objective = objective.calibrated(logits, np.linspace(20, 900, 12), np.tile([1, 0], 6))
    risk = objective.risk(logits)
    return replace(
        draft, objective=objective, risk_centre=float(risk.mean()), risk_scale=float(risk.std()),
        risk_cutoff=float(np.median(risk)), slide_centre=tuple((logits - shift[:, None]).mean(axis=0).tolist()),
    )  # fmt: skip


def package(*members: Member) -> Package:
    return Package(members, HEADER.feature_spec, None, tuple(DAYS.tolist()), {"endpoint": "overall survival"})


def bag(features: np.ndarray, **changes: Any) -> Bag:
    count = len(features)
    zeros = np.zeros((count, 2), np.int32)
    return Bag(
        replace(HEADER, **changes), features, zeros, zeros, np.ones(count, np.float32), np.zeros(count, np.uint8)
    )


def model_input(one: Member, features: np.ndarray) -> tuple[Packed, torch.Tensor]:
    return pack([torch.from_numpy(one.projection.apply(features))]), torch.zeros(1, 1)


def test_an_ensembles_risk_is_the_mean_of_its_members_standardised_risks() -> None:
    members = [member(seed=seed) for seed in range(3)]
    alone = [predict_member(one, patients(), DAYS) for one in members]
    risks = [(table["risk"] - one.risk_centre) / one.risk_scale for one, (table, _) in zip(members, alone, strict=True)]
    found = predict_package(package(*members), patients())
    np.testing.assert_allclose(found.table["risk"], np.mean(risks, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.survival, np.mean([curves for _, curves in alone], axis=0), rtol=1e-12)


def test_risk_zero_is_the_average_training_patient_and_one_a_standard_deviation() -> None:
    risk = predict_package(package(member()), patients()).table["risk"]
    np.testing.assert_allclose([risk.mean(), risk.std(ddof=0)], [0, 1], atol=1e-12)


def test_an_ensemble_of_equal_members_is_its_member() -> None:
    one, three = (predict_package(package(*[member()] * count), patients()) for count in (1, 3))
    np.testing.assert_allclose(three.table["risk"], one.table["risk"], rtol=1e-12)
    assert three.table["risk_group"].tolist() == one.table["risk_group"].tolist()


def test_half_of_the_training_patients_are_in_the_high_risk_group() -> None:
    table = predict_package(package(member()), patients()).table
    assert (table["risk_group"] == "high").sum() == 6
    assert table[table["risk_group"] == "high"]["risk"].min() > table[table["risk_group"] == "low"]["risk"].max()


def test_the_cut_off_itself_is_low() -> None:
    assert risk_groups(np.array([0.1, 0.2, 0.3]), 0.2) == ["low", "low", "high"]


def test_new_patients_have_no_outcome_and_role_external() -> None:
    table = predict_package(package(member()), patients()).table
    assert table["event"].isna().all()
    assert table["time_days"].isna().all()
    assert set(table["role"]) == {"external"}


def test_a_patients_prediction_does_not_depend_on_who_else_is_predicted() -> None:
    everyone = patients()
    alone = Patients(everyone.patient_id[3:4], everyone.features[3:4], everyone.covariates.iloc[3:4])
    assert predict_logits(member(), alone)[0] == predict_logits(member(), everyone)[3]


@pytest.mark.parametrize("slides", [True, False])
def test_slides_where_the_model_has_none_and_none_where_it_needs_them_are_refused(slides: bool) -> None:
    given = package(member()) if not slides else replace(package(member()), feature_spec=None)
    with pytest.raises(PackageError, match="without slides" if slides else "with slides, none are given"):
        predict_package(given, patients(slides=slides))


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("encoder", "'uni'", "'lite0'"),
        ("target_mpp", "1.0", r"0\.5"),
        ("tile_px", "512", "224"),
        ("settings_digest", "'zz'", "'ssss"),
        ("weights_digest", "'zz'", "'wwww"),
        ("precision_asked", "'bfloat16'", "'float32'"),
    ],
)
def test_row_26_a_bag_made_otherwise_is_refused_with_both_values(field: str, value: str, known: str) -> None:
    changed = bag(np.ones((3, 5), np.float16), **{field: eval(value)})
    with pytest.raises(
        BagMismatchError, match=f"bag of slide slide: {field} is {value}, the model has {known}.*extract it"
    ):
        score_tiles([member()], package(member()), changed)


@pytest.mark.parametrize("kind", ["patch_gcn", "transformer", "abmil"])
def test_models_that_look_at_places_refuse_bags_without_a_grid(kind: str) -> None:
    settings = ModelSettings.model_validate({"aggregator": {"kind": kind}}).aggregator
    model = member(settings)
    loose = bag(np.ones((3, 5), np.float16), slide_id="imported", stride_level0_px=(1.0, 1.0))
    if kind == "abmil":
        score_tiles([model], package(model), loose)
        return
    with pytest.raises(BagMismatchError, match=r"bag\(s\) of imported .*no regular grid.*such as abmil"):
        score_tiles([model], package(model), loose)
    with pytest.raises(BagMismatchError, match=r"bag\(s\) of imported .*no regular grid"):
        predict_package(package(model), replace(patients(), without_grid=("imported",)))
    everything = data(60)
    features = replace(everything.features, without_grid=("imported",), places={})
    with pytest.raises(BagMismatchError, match="no regular grid"):
        fit_member(
            replace(everything, features=features), one_fold(everything), ModelSettings(aggregator=settings), QUICK
        )


def test_every_difference_of_a_bag_is_named_at_once() -> None:
    changed = bag(np.ones((3, 5), np.float16), encoder="uni", tile_px=512)
    with pytest.raises(BagMismatchError, match=r"encoder is 'uni'.*; tile_px is 512"):
        score_tiles([member()], package(member()), changed)


def test_another_slide_of_the_same_kind_is_scored() -> None:
    other = bag(np.ones((3, 5), np.float16), slide_id="other", slide_mpp=(0.25, 0.25), lost_tiles=3)
    assert len(score_tiles([member()], package(member()), other).contribution) == 3


def test_there_is_no_map_of_a_model_without_slides() -> None:
    with pytest.raises(PackageError, match="without slides, so there is no map"):
        score_tiles([member()], replace(package(member()), feature_spec=None), bag(np.ones((3, 5), np.float16)))


@pytest.mark.parametrize("aggregator", [AbmilSettings(), MeanPoolSettings()], ids=["abmil", "mean"])
@pytest.mark.parametrize("bins", [1, 3])
def test_contributions_are_centred_on_the_average_training_patient(aggregator: Any, bins: int) -> None:
    one = member(aggregator, bins=bins)
    sums = [
        score_tiles([one], package(one), bag(features)).contribution.sum() for features in patients().features or ()
    ]
    np.testing.assert_allclose(np.mean(sums), 0, atol=1e-6)
    assert np.std(sums) > 0.01


@pytest.mark.parametrize("aggregator", [AbmilSettings(), MeanPoolSettings()], ids=["abmil", "mean"])
def test_a_slides_contributions_sum_to_its_share_of_the_risk(aggregator: Any) -> None:
    one, everyone = member(aggregator), patients()
    zero = everyone.covariates.assign(age=one.covariates.parts[0].mean)
    logits = predict_logits(one, Patients(everyone.patient_id, everyone.features, zero))[:, 0]
    expected = (logits - one.slide_centre[0]) / one.risk_scale
    found = [score_tiles([one], package(one), bag(features)).contribution.sum() for features in everyone.features or ()]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_contributions_of_one_time_bin_are_logits_and_not_standard_deviations_of_the_risk() -> None:
    one = replace(member(MeanPoolSettings()), objective=DiscreteObjective(np.array([0.0, 1000.0])), risk_scale=100.0)
    features = patients().features[3]
    contribution = score_tiles([one], package(one), bag(features)).contribution
    logit = one.model(*model_input(one, features)).contributions.sums().item()
    assert contribution.sum() == pytest.approx(logit - one.slide_centre[0], abs=1e-5)


@pytest.mark.parametrize("aggregator", [AbmilSettings(), MeanPoolSettings()], ids=["abmil", "mean"])
def test_scores_come_in_the_order_of_tiles(aggregator: Any) -> None:
    features, order = patients().features[11], np.random.default_rng(1).permutation(12)
    members = [member(aggregator, seed=seed) for seed in (0, 1)]
    plain = score_tiles(members, package(*members), bag(features))
    moved = score_tiles(members, package(*members), bag(features[order]))
    np.testing.assert_allclose(moved.contribution, plain.contribution[order], atol=1e-6)
    if plain.attention is not None:
        np.testing.assert_allclose(moved.attention, plain.attention[order], atol=1e-6)
        np.testing.assert_allclose(plain.attention.sum(), 1, atol=1e-6)


def test_by_way_of_other_parts_tiles_add_what_the_slides_do_once_those_are_known() -> None:
    members = [member(seed=seed, fusion=GatedSettings(hidden_dim=5)) for seed in (0, 1)]
    for one in members:
        with torch.no_grad():
            for weight in one.model.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    everyone = patients()
    row = slice(7, 8)
    alone = Patients(("p7",), everyone.features[row], everyone.covariates.iloc[row], everyone.places[row])
    scores = score_tiles(members, package(*members), bag(alone.features[0]), known=alone.covariates)
    shares = [predict_shares(one, alone).values[0, -1, 0] / one.risk_scale for one in members]
    assert list(scores.by_way_of) == ["clinical"]
    assert scores.is_alone
    assert scores.by_way_of["clinical"].sum() == pytest.approx(np.mean(shares), rel=1e-5)
    assert score_tiles(members, package(*members), bag(alone.features[0])).by_way_of == {}


def test_several_members_are_averaged() -> None:
    members = [member(seed=seed) for seed in (0, 1)]
    one = bag(patients().features[11])
    alone = [score_tiles([each], package(*members), one) for each in members]
    both = score_tiles(members, package(*members), one)
    np.testing.assert_allclose(both.contribution, np.mean([each.contribution for each in alone], axis=0), rtol=1e-12)
    np.testing.assert_allclose(both.attention, np.mean([each.attention for each in alone], axis=0), rtol=1e-12)


@pytest.mark.parametrize("kind", ["chowder", "deepmil", "transmil", "transformer", "ilra"])
@pytest.mark.parametrize("bins", [1, 4])
def test_integrated_gradients_sum_to_what_the_slide_adds_to_the_average_patient(kind: str, bins: int) -> None:
    settings = ModelSettings.model_validate({"aggregator": {"kind": kind}}).aggregator
    one = member(settings, bins=bins)
    rng = np.random.default_rng(5)
    grid = np.column_stack([np.arange(20) // 5, np.arange(20) % 5]).astype(np.int32)
    bag = Bag(
        HEADER,
        rng.normal(size=(20, 5)).astype(np.float16),
        grid * 224,
        grid,
        np.ones(20, np.float32),
        np.zeros(20, np.uint8),
    )
    package = Package((one,), HEADER.feature_spec, None, tuple(DAYS), {})
    scores = score_tiles([one], package, bag)
    assert not scores.is_exact
    tiles = pack([torch.from_numpy(one.projection.apply(bag.features))], [torch.from_numpy(places_of(bag))])
    with torch.no_grad():
        logit = one.model.slides(tiles).logits.mean().item()
    scale = one.risk_scale if bins == 1 else 1.0
    expected = (logit - np.mean(one.slide_centre)) / scale
    assert scores.contribution.sum() == pytest.approx(expected, rel=1e-4, abs=1e-5)
