"""The prognosis model: slides plus covariates plus level."""

import warnings

import pytest
import torch
from torch import Tensor

from pathoml.mil.packed import Packed, pack
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.settings import AbmilSettings, AggregatorSettings, MeanPoolSettings
from tests.trained import as_if_trained

AGGREGATORS = [MeanPoolSettings(), AbmilSettings(hidden_dim=4, attention_dim=4)]
COVARIATES = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])


def tiles() -> Packed:
    generator = torch.Generator().manual_seed(0)
    return pack([torch.randn(count, 3, generator=generator) for count in (4, 6)])


def build(aggregator: AggregatorSettings, out: int, tile_dim: int = 3) -> PrognosisModel:
    torch.manual_seed(0)
    return as_if_trained(PrognosisModel(aggregator, ModelShape(tile_dim, 2, out))).eval()


def shift(model: PrognosisModel) -> Tensor:
    return (COVARIATES @ model.covariate_weight)[:, None]


@pytest.mark.parametrize("aggregator", AGGREGATORS, ids=lambda one: one.kind)
@pytest.mark.parametrize("out", [1, 3])
def test_logits_are_the_slides_share_plus_the_covariates_shift(aggregator: AggregatorSettings, out: int) -> None:
    model = build(aggregator, out)
    with torch.no_grad():
        model.bias.fill_(0.3)
    output = model(tiles(), COVARIATES)
    torch.testing.assert_close(output.logits, output.contributions.sums() + shift(model) + 0.3)


@pytest.mark.parametrize("out", [1, 3])
def test_without_slides_the_covariates_alone_decide(out: int) -> None:
    model = build(MeanPoolSettings(), out, tile_dim=0)
    output = model(pack([torch.zeros(0, 0)] * 2), COVARIATES)
    torch.testing.assert_close(output.logits, shift(model).expand(-1, out))
    assert (output.attention, output.contributions) == (None, None)
    assert model.slides is None


@pytest.mark.parametrize("out", [1, 3])
def test_the_level_is_learnt_only_where_the_objective_has_one(out: int) -> None:
    assert not build(MeanPoolSettings(), out).bias.requires_grad, "width does not say what a logit means"


def test_a_patients_covariates_do_not_change_another_patients_logits() -> None:
    model, changed = build(MeanPoolSettings(), 1), COVARIATES.clone()
    changed[1] = 100
    torch.testing.assert_close(model(tiles(), changed).logits[0], model(tiles(), COVARIATES).logits[0], rtol=0, atol=0)


def test_a_model_without_covariates_is_built_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PrognosisModel(MeanPoolSettings(), ModelShape(3, 0, 1))
    assert model(tiles(), torch.zeros(2, 0)).logits.shape == (2, 1)
