"""What each tile adds to heads that are no sum over tiles: attention and gates as given, the rest shared out without remainder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pathoml.covariates import ColumnGroup
from pathoml.mil import as_given as given_weights
from pathoml.mil import ilra, pieces, self_attention, transformer, transmil
from pathoml.mil.aggregator import NonAdditiveAggregator
from pathoml.mil.aggregators import build_aggregator
from pathoml.mil.as_given import (
    GatedLinear,
    as_given,
    attended,
    mean_gradient,
    normalised,
    weights_as_given,
    with_weights_given,
)
from pathoml.mil.packed import Packed, pack
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.settings import (
    AggregatorSettings,
    ChowderSettings,
    DeepMilSettings,
    GatedSettings,
    IlraSettings,
    LateSettings,
    TransformerSettings,
    TransMilSettings,
)
from tests.trained import as_if_trained

DIM = 6
HEADS = (
    ChowderSettings(extremes=4, hidden_dim=8), DeepMilSettings(hidden_dim=8, attention_dim=5),
    IlraSettings(hidden_dim=8, heads=2, latents=3), TransMilSettings(hidden_dim=8, heads=2),
    TransformerSettings(hidden_dim=8, heads=4),
)  # fmt: skip
LINEAR = HEADS[2:]


def bag(count: int = 23, seed: int = 0) -> Packed:
    values = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(count)
    return pack([values], [torch.stack([0 * rows, rows // 5, rows % 5], dim=1)])


def build(settings: Any, out: int = 1) -> NonAdditiveAggregator:
    torch.manual_seed(0)
    model = as_if_trained(build_aggregator(settings, DIM, out)).eval()
    assert isinstance(model, NonAdditiveAggregator)
    return model


@pytest.fixture(params=HEADS, ids=lambda one: one.kind)
def settings(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_every_head_is_a_sum_over_tiles_or_says_otherwise_what_they_add() -> None:
    tested = {one.kind for one in HEADS}
    for settings_class in get_args(get_args(AggregatorSettings)[0]):
        head = build_aggregator(settings_class(), DIM, 1).eval()
        assert isinstance(head, NonAdditiveAggregator) == (settings_class().kind in tested)
        assert (head(bag()).contributions is None) == (settings_class().kind in tested)


@pytest.mark.parametrize("out", [1, 3])
def test_the_output_is_that_of_the_forward_pass(settings: Any, out: int) -> None:
    model, tiles = build(settings, out), bag()
    output, shares = model.explained(tiles, torch.ones(out))
    plain = model(tiles)
    torch.testing.assert_close(output.logits, plain.logits, rtol=1e-5, atol=1e-6)
    assert shares.shape == (23,)
    assert not shares.requires_grad
    assert (output.attention is None) == (plain.attention is None)
    if plain.attention is not None and output.attention is not None:
        torch.testing.assert_close(output.attention.values, plain.attention.values, rtol=1e-5, atol=1e-6)


def test_shares_of_a_weighted_sum_are_the_weighted_sum_of_shares(settings: Any) -> None:
    model, weight = build(settings, 3), torch.tensor([0.5, -2.0, 1.0])
    together = model.explained(bag(), weight)[1]
    alone = [model.explained(bag(), one)[1] for one in torch.eye(3)]
    torch.testing.assert_close(together, (weight[:, None] * torch.stack(alone)).sum(dim=0), rtol=1e-4, atol=1e-6)


def test_an_average_tile_adds_nothing(settings: Any) -> None:
    tiles = bag()
    tiles.values[7] = 0
    shares = build(settings).explained(tiles, torch.ones(1))[1]
    assert abs(shares[7]) < 1e-8 < shares.abs().max()


@pytest.mark.parametrize("settings", HEADS[:2], ids=lambda one: one.kind)
@pytest.mark.parametrize("out", [1, 3])
def test_shares_sum_to_the_logit_less_that_of_average_tiles(settings: Any, out: int) -> None:
    """Behind a weighted mean, or the extremes of a linear score, what average tiles say depends on no attention."""
    model, tiles, weight = build(settings, out), bag(), torch.linspace(-1, 2, out)
    average = tiles.filled(torch.zeros_like(tiles.values))
    expected = ((model(tiles).logits - model(average).logits)[0] * weight).sum()
    torch.testing.assert_close(model.explained(tiles, weight)[1].sum(), expected.detach(), rtol=1e-4, atol=1e-5)


def test_large_bags_in_pieces_are_shared_out_alike(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed again on the way back treats weights as they were treated before, in whichever thread."""
    model = build(settings)
    whole = model.explained(bag(), torch.ones(1))[1]
    monkeypatch.setattr(pieces, "WHOLE_UP_TO", 10)
    monkeypatch.setattr(pieces, "PIECE_TILES", 7)
    torch.testing.assert_close(model.explained(bag(), torch.ones(1))[1], whole, rtol=1e-4, atol=1e-7)
    weight = torch.ones(3, requires_grad=True)
    with weights_as_given():
        kept = with_weights_given(lambda rows: as_given(weight) * rows)
    assert not kept(torch.ones(3)).requires_grad
    assert with_weights_given(lambda rows: as_given(weight) * rows)(torch.ones(3)).requires_grad


def many_steps(model: Callable[[Packed], Any], tiles: Packed, steps: int = 400) -> Tensor:
    """Integrated gradients of everything by the midpoint rule, without regard to time."""
    total = torch.zeros_like(tiles.values)
    for step in range(steps):
        values = (tiles.values * ((step + 0.5) / steps)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(tiles.filled(values)).logits.sum(), values)
        total += gradient / steps
    return (total * tiles.values).sum(dim=1)


@pytest.mark.parametrize("count", [23, 3])
def test_chowders_shares_are_integrated_gradients_of_all_of_it(count: int) -> None:
    model, tiles = build(HEADS[0]), bag(count)
    torch.testing.assert_close(model.explained(tiles, torch.ones(1))[1], many_steps(model, tiles), rtol=1e-3, atol=1e-5)


@contextmanager
def played_back(record: list[Tensor] | None, into: list[Tensor]) -> Iterator[None]:
    """Run heads with every weight noted down, or with the weights of an earlier run in their places."""
    notes = iter(record or [])

    def kept(weights: Tensor) -> Tensor:
        chosen = weights if record is None else next(notes)
        into.append(chosen.detach())
        return chosen

    def attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return kept(torch.softmax(scale * query @ key.transpose(1, 2), dim=2)) @ value

    def norm(layer: nn.LayerNorm, rows: Tensor) -> Tensor:
        centred = rows - rows.mean(dim=-1, keepdim=True)
        return (
            centred * kept((centred.square().mean(dim=-1, keepdim=True) + layer.eps).rsqrt()) * layer.weight
            + layer.bias
        )

    with pytest.MonkeyPatch.context() as patch:
        for module in (ilra, self_attention):
            patch.setattr(module, "attended", attention)
        for module in (transformer, transmil, self_attention):
            patch.setattr(module, "normalised", norm)
        for module in (ilra, self_attention):
            patch.setattr(module, "as_given", kept)
        patch.setattr(GatedLinear, "forward", lambda _, rows: rows * kept(torch.special.ndtr(rows)))
        patch.setattr(torch, "relu", lambda rows: rows * kept((rows > 0).float()))
        yield


@pytest.mark.parametrize("settings", LINEAR, ids=lambda one: one.kind)
def test_without_a_tile_and_with_all_weights_kept_the_logit_is_less_by_its_share(settings: Any) -> None:
    model, tiles = build(settings), bag()
    shares = model.explained(tiles, torch.ones(1))[1]
    notes: list[Tensor] = []
    with torch.no_grad():
        embed = getattr(model, "embed", nn.Identity())
        embedded = embed(tiles.values)
        average = embed(torch.zeros_like(tiles.values[:1]))
        with played_back(None, notes):
            whole = model._joined(embedded, tiles).logits.item()
        assert whole == pytest.approx(model(tiles).logits.item(), rel=1e-4, abs=1e-5)
        for tile in (0, 5, 22):
            without = embedded.clone()
            without[tile] = average[0]
            with played_back(notes, []):
                less = model._joined(without, tiles).logits.item()
            assert whole - less == pytest.approx(shares[tile].item(), rel=2e-3, abs=2e-6)


@pytest.mark.parametrize("fusion", [LateSettings(), GatedSettings(hidden_dim=5)], ids=lambda one: one.kind)
def test_a_model_shares_out_the_slides_part_of_the_mean_logit(settings: Any, fusion: Any) -> None:
    torch.manual_seed(1)
    groups = (ColumnGroup("clinical", "clinical", (0, 1)),)
    model = PrognosisModel(settings, ModelShape(DIM, 2, 3, groups), fusion).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    output, shares = model.slides_explained(bag())
    expected = model.slides_alone(bag()).logits.mean()
    torch.testing.assert_close(output.logits[0, 0], expected.detach(), rtol=1e-4, atol=1e-5)
    covariates, present = torch.tensor([[1.0, -2.0]]), torch.ones(1, 2, dtype=torch.bool)
    known, others = model.slides_explained(bag(), covariates, present)
    of_slides = model.shares(bag(), covariates, present).values[0, -1].mean()
    torch.testing.assert_close(known.logits[0, 0], of_slides.detach(), rtol=1e-4, atol=1e-5)
    assert torch.allclose(shares, others, atol=1e-6) == (fusion.kind == "late")
    ways = model.by_way_of(bag(), covariates, present)
    assert list(ways) == ([] if fusion.kind == "late" else ["clinical"])


@pytest.mark.parametrize("at_once", [1, 60, 1 << 17])
def test_given_attention_is_a_fixed_matrix_on_the_way_back(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(given_weights, "_SCORES_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(2)
    query, key = (3 * torch.randn(2, rows, 6, generator=generator) for rows in (40, 31))
    value = torch.randn(2, 31, 4, generator=generator, requires_grad=True)
    wanted = torch.randn(2, 40, 4, generator=generator)
    wanted[:, 5:25] = 0  # nobody asks for these
    plain = attended(query, key, value, 0.5)
    with weights_as_given():
        taken = attended(query.requires_grad_(), key.requires_grad_(), value, 0.5)
    torch.testing.assert_close(taken, plain)
    found = torch.autograd.grad((taken * wanted).sum(), (query, key, value), allow_unused=True)
    weights = torch.softmax(0.5 * query @ key.transpose(1, 2), dim=2).detach()
    assert found[:2] == (None, None)
    torch.testing.assert_close(found[2], weights.transpose(1, 2) @ wanted, rtol=1e-4, atol=1e-5)


def test_far_scores_leave_no_numbers_that_processors_stumble_over() -> None:
    query, key = torch.ones(1, 3, 2), torch.tensor([[[0.0, 0.0], [-50.0, -45.0], [-900.0, -900.0]]])
    value = torch.ones(1, 3, 2, requires_grad=True)
    with weights_as_given():
        (found,) = torch.autograd.grad(attended(query, key, value, 1.0).sum(), value)
    tiny = torch.finfo(torch.float32).tiny
    assert (found.abs() > tiny).all()
    torch.testing.assert_close(found[0, 0], torch.full((2,), 3.0))
    assert found[0, 1:].max() < 1e-20


def test_outside_the_context_gradients_go_everywhere() -> None:
    query = torch.randn(1, 4, 3, requires_grad=True)
    rows = torch.randn(5, 8, requires_grad=True)
    norm, gate = nn.LayerNorm(8), GatedLinear()
    assert torch.autograd.grad(attended(query, query, query, 1.0).square().sum(), query)[0].abs().sum() > 0
    torch.testing.assert_close(normalised(norm, rows), norm(rows))
    torch.testing.assert_close(gate(rows), nn.functional.gelu(rows))
    with weights_as_given():
        torch.testing.assert_close(normalised(norm, rows), norm(rows))
        torch.testing.assert_close(gate(rows), nn.functional.gelu(rows))
        (slope,) = torch.autograd.grad(gate(rows).sum(), rows)
    torch.testing.assert_close(slope, torch.special.ndtr(rows.detach()))


def test_the_mean_gradient_of_a_cubic_is_exact() -> None:
    start, end = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 1.5])
    gradient, result = mean_gradient(
        lambda points: (points**3).sum(dim=1, keepdim=True), start, end, torch.tensor([2.0])
    )
    np.testing.assert_allclose(result, (end**3).sum()[None], rtol=1e-6)
    np.testing.assert_allclose((gradient * (end - start)).sum(), 2 * ((end**3).sum() - (start**3).sum()), rtol=1e-5)
