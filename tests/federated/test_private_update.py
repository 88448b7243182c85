"""Training with patients' privacy: the same as without where nothing is hidden; no patient counts for more than the limit."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pathoml.errors import FederationError, RefusalCode, RefusedError, TrainingError
from pathoml.federated.accountant import Release
from pathoml.federated.private_noise import system_draw
from pathoml.federated.private_update import clipped_sum, draw_patients, private_update
from pathoml.mil.aggregators import AGGREGATORS
from pathoml.mil.gradients import step_gradient
from pathoml.mil.prognosis import PrognosisModel
from pathoml.mil.settings import AbmilSettings, AggregatorSettings, MeanPoolSettings
from pathoml.train import local_update
from pathoml.train_settings import (
    CoxLossSettings,
    DeepHitLossSettings,
    MtlrLossSettings,
    PmfLossSettings,
    TrainSettings,
)
from pathoml.train_state import start_state
from tests.federated.padded_abmil import NAMES, PaddedAbmil, padded
from tests.federated.private import OPEN, TRAIN, free, model_of, objective_of, placed, ready
from tests.planted import data

PATIENTS = 24
SMALL = {"hidden_dim": 8, "attention_dim": 8, "heads": 2, "query_dim": 8, "extremes": 3, "instances": 3, "latents": 3}


def head(kind: str) -> AggregatorSettings:
    """A small head without dropout; what else is random in it stays."""
    fields = TypeAdapter(AggregatorSettings).json_schema()["$defs"]
    known = next(
        one["properties"] for one in fields.values() if one.get("properties", {}).get("kind", {}).get("const") == kind
    )
    given = {name: value for name, value in {**SMALL, "dropout": 0.0}.items() if name in known}
    return TypeAdapter[AggregatorSettings](AggregatorSettings).validate_python({"kind": kind, **given})


def everyone(count: int = PATIENTS, first_seed: int = 100) -> list[tuple[int, int]]:
    return [(row, first_seed + row) for row in range(count)]


def gradient_of(model: PrognosisModel) -> Tensor:
    found = [
        (torch.zeros_like(one) if one.grad is None else one.grad).reshape(-1)
        for one in model.parameters()
        if one.requires_grad
    ]
    return torch.cat(found).double()


@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_every_head_treats_patients_one_by_one(kind: str) -> None:
    everything = placed(PATIENTS)
    objective = objective_of(everything)
    model, patients = model_of(head(kind), everything, objective), ready(everything)
    found = clipped_sum(model, patients, [(row, 5) for row in range(PATIENTS)], objective, TRAIN, OPEN)
    single, losses = torch.zeros_like(found.gradient), 0.0
    for part in patients.one_by_one(everyone()):
        model.zero_grad()
        torch.manual_seed(5)
        losses += float(step_gradient(model, [part], objective, TRAIN))
        single += gradient_of(model)
    torch.testing.assert_close(found.gradient, single)
    assert found.loss == pytest.approx(losses)
    if kind in {
        "acmil",
        "dtfd",
    }:  # what they deal at random is drawn otherwise for all together: only its mean is the same
        return
    model.zero_grad()
    mean = step_gradient(model, list(patients.parts()), objective, TRAIN)
    torch.testing.assert_close(found.gradient / PATIENTS, gradient_of(model), rtol=1e-4, atol=1e-6)
    assert found.loss / PATIENTS == pytest.approx(float(mean), rel=1e-5)


@pytest.mark.parametrize("kind", ["acmil", "dtfd"])
def test_heads_that_deal_at_random_deal_alike_alone_and_together(kind: str) -> None:
    everything = placed(PATIENTS)
    objective = objective_of(everything)
    model, patients = model_of(head(kind), everything, objective), ready(everything)
    torch.manual_seed(5)
    total = torch.zeros(())
    for part in patients.one_by_one(everyone()):  # one stream of chance through all patients, as in a batch
        total = total + step_gradient(model, [part], objective, TRAIN)
    one_by_one = gradient_of(model)
    model.zero_grad()
    torch.manual_seed(5)
    step_gradient(model, list(patients.parts()), objective, TRAIN)
    torch.testing.assert_close(one_by_one / PATIENTS, gradient_of(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [TRAIN.loss, PmfLossSettings(), MtlrLossSettings(), DeepHitLossSettings(likelihood_share=1)]
)
@pytest.mark.parametrize("head_settings", [MeanPoolSettings(), head("abmil")], ids=["mean", "abmil"])
def test_without_noise_and_limit_it_is_the_plain_update(loss: object, head_settings: AggregatorSettings) -> None:
    everything = data(PATIENTS)
    settings = TRAIN.model_copy(update={"loss": loss, "schedule": "cosine", "max_epochs": 5, "clip_norm": 0.5})
    objective = objective_of(everything, settings)
    patients = ready(everything, settings)
    start = model_of(head_settings, everything, objective)
    plain, private = (start_state(copy.deepcopy(start), settings) for _ in range(2))
    for _ in range(3):
        expected = local_update(plain, patients, objective, settings)
        found = private_update(private, patients, objective, settings, OPEN)
        assert found == pytest.approx(expected, rel=1e-4)
    assert private.epoch == plain.epoch == 3
    assert private.optimizer.param_groups[0]["lr"] == plain.optimizer.param_groups[0]["lr"]
    (part,) = patients.parts()
    before = start.eval()(part.tiles, part.covariates).logits
    wanted, got = (state.model.eval()(part.tiles, part.covariates).logits for state in (plain, private))
    assert (wanted - before).abs().max() > 0.01, "the updates did something"
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "limit"), [("abmil", 1.0), *((kind, 0.01) for kind in sorted(AGGREGATORS))])
def test_one_patient_less_changes_the_sum_by_no_more_than_the_limit(kind: str, limit: float) -> None:
    everything = placed(PATIENTS)
    objective = objective_of(everything)
    settings = TRAIN.model_copy(update={"tile_dropout": 0.3, "feature_noise": 0.5, "max_tiles": 12})
    model, patients = model_of(head(kind), everything, objective), ready(everything, settings)
    privacy = replace(OPEN, clip_norm=limit, loss_bound=0.7)
    whole = clipped_sum(model, patients, everyone(), objective, settings, privacy)
    lengths = []
    for left_out in (0, 5, PATIENTS - 1):
        others = [one for one in everyone() if one[0] != left_out]
        less = clipped_sum(model, patients, others, objective, settings, privacy)
        lengths.append(float((whole.gradient - less.gradient).norm()))
        assert 0 <= whole.loss - less.loss <= 0.7 + 1e-9
    assert max(lengths) <= limit * (1 + 1e-9)
    if limit == 0.01:
        assert max(lengths) == pytest.approx(limit), "the limit was reached, so that it was tried"


def test_a_patient_with_absurd_tiles_counts_for_no_more_than_the_limit() -> None:
    everything = data(PATIENTS)
    assert everything.features is not None
    everything.features.of_patient["patient-003"][:] = 6e4
    objective = objective_of(everything)
    model, patients = model_of(MeanPoolSettings(), everything, objective), ready(everything)
    privacy = replace(OPEN, clip_norm=1.0)
    own = clipped_sum(model, patients, [(3, 0)], objective, TRAIN, privacy)
    assert float(own.gradient.norm()) == pytest.approx(1.0)
    assert float(clipped_sum(model, patients, [(3, 0)], objective, TRAIN, OPEN).gradient.norm()) > 1e3


def test_the_noise_has_the_size_that_is_accounted_for() -> None:
    everything = data(PATIENTS)
    objective = objective_of(everything)
    patients = ready(everything)
    model = model_of(AbmilSettings(hidden_dim=32, attention_dim=32, dropout=0), everything, objective)
    still = TRAIN.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0})
    privacy = replace(OPEN, clip_norm=0.3, noise_multiplier=2.0, loss_bound=3.0, loss_noise_multiplier=8.0)
    sums = clipped_sum(model, patients, everyone(), objective, still, privacy)
    noises, losses = [], []
    for seed in range(20):
        state = start_state(model, still)
        losses.append(
            private_update(state, patients, objective, still, replace(privacy, draw=np.random.default_rng(seed).random))
        )
        noises.append(gradient_of(model) * PATIENTS - sums.gradient)
    every = torch.stack(noises)
    assert float(every.std()) == pytest.approx(2.0 * 0.3, rel=0.02)
    assert abs(float(every.mean())) < 0.02
    assert np.mean(losses) == pytest.approx(sums.loss / PATIENTS, abs=3 * 24 / PATIENTS / 20**0.5)
    assert np.std(losses) == pytest.approx(8.0 * 3.0 / PATIENTS, rel=0.5)
    assert not torch.equal(every[0], every[1])


def test_patients_are_drawn_by_chance_each_by_itself() -> None:
    privacy = replace(OPEN, sample_rate=0.2, draw=np.random.default_rng(0).random)
    drawn = [draw_patients(50, privacy) for _ in range(2000)]
    sizes = np.array(list(map(len, drawn)))
    assert sizes.mean() == pytest.approx(10, abs=0.3)
    assert sizes.var() == pytest.approx(8, rel=0.15), "binomial, as the accountant takes it to be"
    each = np.bincount([row for one in drawn for row, _ in one], minlength=50) / 2000
    assert each.min() > 0.15
    assert each.max() < 0.25
    together = np.mean([{0, 1} <= {row for row, _ in one} for one in drawn])
    assert together == pytest.approx(0.04, abs=0.015)


def test_a_step_that_nobody_takes_part_in_is_taken_with_noise_all_the_same() -> None:
    everything = data(PATIENTS)
    objective = objective_of(everything)
    state = start_state(model_of(MeanPoolSettings(), everything, objective), TRAIN)
    privacy = replace(
        OPEN, sample_rate=0.5, clip_norm=1.0, noise_multiplier=1.0, loss_noise_multiplier=1.0, loss_bound=1.0
    )
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    private_update(state, ready(everything), objective, TRAIN, replace(privacy, draw=lambda count: np.full(count, 0.9)))
    assert any(not torch.equal(before[name], value) for name, value in state.model.state_dict().items())


def test_nothing_random_comes_from_the_seed_of_the_plan_or_moves_it() -> None:
    everything = data(PATIENTS)
    settings = TRAIN.model_copy(update={"max_tiles": 10, "tile_dropout": 0.2})
    objective = objective_of(everything, settings)
    privacy = replace(
        OPEN, clip_norm=1.0, noise_multiplier=0.5, loss_noise_multiplier=2.0, sample_rate=0.5, loss_bound=5.0
    )
    start = model_of(MeanPoolSettings(), everything, objective)
    states = [start_state(copy.deepcopy(start), settings) for _ in range(2)]
    dealer, random, outside = states[0].dealer.get_state(), states[0].random.clone(), torch.get_rng_state()
    for state in states:
        private_update(state, ready(everything, settings), objective, settings, privacy)
    first, second = (torch.cat([one.reshape(-1) for one in state.model.parameters()]) for state in states)
    assert not torch.equal(first, second)
    assert torch.equal(states[0].dealer.get_state(), dealer)
    assert torch.equal(states[0].random, random)
    assert torch.equal(torch.get_rng_state(), outside)


def test_the_source_of_chance_is_the_system_unless_a_test_gives_another() -> None:
    assert OPEN.draw is system_draw


def test_what_is_refused_is_refused_before_anything_is_done() -> None:
    everything = data(PATIENTS)
    objective = objective_of(everything)
    state = start_state(model_of(MeanPoolSettings(), everything, objective), TRAIN)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    asked = []

    def never(release: Release) -> None:
        asked.append(release)
        raise RefusedError("spent", RefusalCode.LIMIT_OF_SITE)

    privacy = replace(
        OPEN, sample_rate=0.25, noise_multiplier=3.0, loss_noise_multiplier=4.0, clip_norm=1, loss_bound=1, spend=never
    )
    with pytest.raises(RefusedError, match="spent"):
        private_update(state, ready(everything), objective, TRAIN, privacy)
    assert asked == [Release(0.25, pytest.approx(12 / 5), 4)]
    assert state.epoch == 0
    assert all(torch.equal(before[name], value) for name, value in state.model.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"loss": CoxLossSettings()}, "cox compares each patient with all who were at risk"),
        ({"loss": CoxLossSettings(ranking_weight=1)}, "so does its ranking term"),
        ({"loss": CoxLossSettings(stratified=True)}, "cox compares each patient"),
        ({"loss": DeepHitLossSettings()}, "deephit ranks pairs of patients"),
        ({"event_balanced": True}, "draws patients by their outcome"),
        ({"batch_patients": 8}, "sample_rate decides who takes part"),
    ],
    ids=["cox", "ranking", "stratified", "deephit", "balanced", "batches"],
)
def test_trainings_that_mix_patients_are_refused_with_the_reason(changed: dict[str, object], reason: str) -> None:
    everything = data(PATIENTS)
    settings = TRAIN.model_copy(update=changed)
    objective = objective_of(everything, settings)
    state = start_state(model_of(MeanPoolSettings(), everything, objective), settings)
    with pytest.raises(FederationError, match=reason):
        private_update(state, ready(everything, settings), objective, settings, replace(OPEN, spend=free))


def test_the_objective_at_work_is_judged_and_not_only_the_settings() -> None:
    everything = data(PATIENTS)
    objective = objective_of(everything, TrainSettings(loss=CoxLossSettings()))
    state = start_state(model_of(MeanPoolSettings(), everything, objective), TRAIN)
    with pytest.raises(FederationError, match="cox compares each patient"):
        private_update(state, ready(everything), objective, TRAIN, OPEN)


def test_a_gradient_that_is_not_finite_names_its_patient() -> None:
    everything = data(PATIENTS)
    objective = objective_of(everything)
    model = model_of(MeanPoolSettings(), everything, objective)
    model.covariate_weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match="patient patient-007: the gradient is not finite"):
        clipped_sum(model, ready(everything), [(7, 0)], objective, TRAIN, OPEN)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus' own hooks
def test_clipped_sums_equal_those_of_opacus_on_padded_bags() -> None:
    grad_sample = pytest.importorskip(
        "opacus.grad_sample", reason="opacus is not installed: pip install 'pathoml[federated]'"
    )
    everything = placed(PATIENTS)
    objective = objective_of(everything)
    model = model_of(AbmilSettings(hidden_dim=8, attention_dim=5, dropout=0), everything, objective)
    model.bias.requires_grad_(False)
    model.covariate_weight.requires_grad_(False)
    patients = ready(everything)
    (part,) = patients.parts()
    oracle = PaddedAbmil(6, 8, 5, objective.out)
    weights = model.state_dict()
    oracle.load_state_dict(
        {name: weights[f"{NAMES[name.split('.')[0]]}.{name.split('.')[1]}"] for name in oracle.state_dict()}
    )
    sampled = grad_sample.GradSampleModule(oracle, loss_reduction="sum")
    shift = (part.covariates @ model.covariate_weight)[:, None] + model.bias
    (objective.loss(sampled(*padded(part.tiles)) + shift, part.outcome) * PATIENTS).backward()
    by_name = {name.removeprefix("_module."): one.grad_sample for name, one in sampled.named_parameters()}
    order = {f"{there}.{end}": f"{here}.{end}" for here, there in NAMES.items() for end in ("weight", "bias")}
    columns = [by_name[order[name]] for name, one in model.named_parameters() if one.requires_grad]
    each = torch.cat([one.reshape(PATIENTS, -1) for one in columns], dim=1).double()
    limit = float(each.norm(dim=1).median())
    expected = (each * (limit / each.norm(dim=1).clamp(min=1e-30)).clamp(max=1)[:, None]).sum(dim=0)
    found = clipped_sum(model, patients, everyone(), objective, TRAIN, replace(OPEN, clip_norm=limit))
    torch.testing.assert_close(found.gradient, expected, rtol=1e-4, atol=1e-6)
