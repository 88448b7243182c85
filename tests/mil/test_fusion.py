"""Whatever joins the parts of a model: what is missing, in which order, with whom, and who said what."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pathoml.covariates import ColumnGroup
from pathoml.mil.packed import pack
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.settings import (
    AbmilSettings,
    AcmilSettings,
    ChowderSettings,
    CoAttentionSettings,
    GatedSettings,
    LateSettings,
    MeanPoolSettings,
)

GROUPS = (
    ColumnGroup("clinical", "clinical", (0, 4)), ColumnGroup("cnv", "cnv", (1, 2)),
    ColumnGroup("pathways", "pathways:growth", (3,)), ColumnGroup("pathways", "pathways:repair", (5, 6)),
)  # fmt: skip
PARTS = ("clinical", "cnv", "pathways", "slides")
FUSIONS = [LateSettings(), GatedSettings(hidden_dim=5), CoAttentionSettings(hidden_dim=6, attention_dim=4)]
LENGTHS = (4, 9, 1)


def build(fusion: Any, *, out: int = 1, aggregator: Any = None, tile_dim: int = 3) -> PrognosisModel:
    """Return a model that says something everywhere, as after training."""
    torch.manual_seed(1)
    chosen = aggregator or AbmilSettings(hidden_dim=4, attention_dim=4)
    model = PrognosisModel(chosen, ModelShape(tile_dim, 7, out, GROUPS), fusion).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def bags() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, 3, generator=generator) for count in LENGTHS]


def columns() -> Tensor:
    return torch.randn(len(LENGTHS), 7, generator=torch.Generator().manual_seed(6))


def everything() -> Tensor:
    return torch.ones(len(LENGTHS), len(PARTS), dtype=torch.bool)


@pytest.fixture(params=FUSIONS, ids=lambda one: one.kind)
def fusion(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("out", [1, 3])
def test_shares_and_level_sum_to_the_logits(fusion: Any, out: int) -> None:
    model = build(fusion, out=out)
    found = model.shares(pack(bags()), columns(), everything())
    torch.testing.assert_close(found.values.sum(dim=1) + model.bias, found.output.logits)
    assert model.layout.names == PARTS
    assert found.values.shape == (len(LENGTHS), len(PARTS), out)


@pytest.mark.parametrize("out", [1, 3])
def test_contributions_of_tiles_sum_to_the_slides_share(fusion: Any, out: int) -> None:
    found = build(fusion, out=out).shares(pack(bags()), columns(), everything())
    torch.testing.assert_close(found.output.contributions.sums(), found.values[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("out", [1, 3])
def test_what_tiles_add_by_way_of_other_parts_sums_to_the_slides_share(fusion: Any, out: int) -> None:
    model, given = build(fusion, out=out), everything()
    ways = model.by_way_of(pack(bags()), columns(), given)
    names = {"late": [], "gated": ["clinical + cnv + pathways"], "co_attention": ["cnv", "pathways"]}[fusion.kind]
    assert list(ways) == names
    if ways:
        share = model.shares(pack(bags()), columns(), given).values[:, -1]
        torch.testing.assert_close(sum(way.sums() for way in ways.values()), share, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS[1:], ids=lambda one: one.kind)
def test_the_way_by_a_part_changes_with_that_part(fusion: Any) -> None:
    model, other = build(fusion), columns()
    other[:, 1:3] += 1.0  # the block cnv
    plain, changed = (model.by_way_of(pack(bags()), one, everything()) for one in (columns(), other))
    name = "cnv" if "cnv" in plain else "clinical + cnv + pathways"
    assert not torch.allclose(plain[name].values, changed[name].values, atol=1e-4)


def test_packed_patients_are_scored_as_alone(fusion: Any) -> None:
    model, given = build(fusion), everything()
    given[0, 1] = given[1, 3] = given[2, 2] = False
    together = model.shares(pack(bags()), columns(), given)
    for index, bag in enumerate(bags()):
        own = slice(index, index + 1)
        alone = model.shares(pack([bag]), columns()[own], given[own])
        torch.testing.assert_close(alone.values, together.values[own], rtol=1e-4, atol=1e-5)


def test_neither_the_order_of_patients_nor_that_of_tiles_matters(fusion: Any) -> None:
    model, order = build(fusion), [2, 0, 1]
    plain = model.shares(pack(bags()), columns(), everything()).values
    turned = [bags()[index].flip(0) for index in order]
    found = model.shares(pack(turned), columns()[order], everything()[order]).values
    torch.testing.assert_close(found, plain[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", range(len(PARTS)))
def test_nothing_of_a_missing_part_changes_anything(fusion: Any, part: int) -> None:
    model, given = build(fusion), everything()
    given[:, part] = False
    one = model.shares(pack(bags()), columns(), given)
    other_columns, other_bags = columns(), bags()
    for column in model.layout.columns_of(part):
        other_columns[:, column] = 1e3
    if PARTS[part] == "slides":
        other_bags = [bag + 50 for bag in other_bags]
    other = model.shares(pack(other_bags), other_columns, given)
    torch.testing.assert_close(other.values, one.values, rtol=0, atol=0)
    torch.testing.assert_close(one.values[:, part], model.absent[part].expand(len(LENGTHS), -1))


def test_slides_that_are_hidden_and_slides_that_are_not_there_are_the_same(fusion: Any) -> None:
    model, hidden = build(fusion), everything()
    hidden[:, -1] = False
    empty = [torch.zeros(0, 3)] * len(LENGTHS)
    one = model.shares(pack(bags()), columns(), hidden).values
    other = model.shares(pack(empty), columns(), everything()).values
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_patient_of_whom_nothing_is_known_is_scored_and_has_a_gradient(fusion: Any) -> None:
    model = build(fusion)
    model.absent.requires_grad_()
    logits = model(pack(bags()), columns(), torch.zeros_like(everything())).logits
    torch.testing.assert_close(logits, (model.absent.sum(dim=0) + model.bias).expand(len(LENGTHS), -1))
    logits.sum().backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert all(bool(torch.isfinite(one).all()) for one in gradients)


def test_attention_sums_to_one_over_each_patients_tiles(fusion: Any) -> None:
    attention = build(fusion)(pack(bags()), columns(), everything()).attention
    torch.testing.assert_close(attention.sums(), torch.ones(len(LENGTHS), attention.values.shape[1]))


@pytest.mark.parametrize("tile_dim", [0, 3])
def test_before_training_only_covariates_speak(fusion: Any, tile_dim: int) -> None:
    if fusion.kind == "co_attention" and not tile_dim:
        pytest.skip("co-attention needs slides")
    model = PrognosisModel(AbmilSettings(), ModelShape(tile_dim, 7, 1, GROUPS), fusion).eval()
    with torch.no_grad():
        model.covariate_weight.copy_(torch.arange(7.0))
    tiles = pack(bags()) if tile_dim else pack([torch.zeros(0, 0)] * len(LENGTHS))
    torch.testing.assert_close(model(tiles, columns()).logits[:, 0], columns() @ torch.arange(7.0))


def test_every_weight_learns_sooner_or_later(fusion: Any) -> None:
    torch.manual_seed(0)
    model = PrognosisModel(AbmilSettings(dropout=0), ModelShape(3, 7, 1, GROUPS), fusion).train()
    start = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    given = everything()
    given[0, 1] = given[1, 2] = False
    model.absent.requires_grad_()
    for _ in range(6):
        optimizer.zero_grad()
        logits = model(pack(bags()), columns(), given).logits[:, 0]
        (logits - torch.tensor([1.0, -1.0, 2.0])).square().sum().backward()
        optimizer.step()
    still = [name for name, value in model.named_parameters() if torch.equal(value, start[name])]
    # A score of which only differences matter has a constant that says nothing; nobody lacks clinical columns or slides.
    assert [name for name in still if not name.endswith(("score.bias", "attention.gate.bias"))] == ["bias"]


def test_the_covariates_of_one_patient_do_not_change_anothers_score(fusion: Any) -> None:
    model, changed = build(fusion), columns()
    changed[1] = 100.0
    one, other = (model(pack(bags()), given, everything()).logits for given in (columns(), changed))
    torch.testing.assert_close(one[[0, 2]], other[[0, 2]], rtol=0, atol=0)


def test_slides_alone_are_scored_without_covariates(fusion: Any) -> None:
    model, only = build(fusion), torch.zeros_like(everything())
    only[:, -1] = True
    found = model.slides_alone(pack(bags()))
    expected = model.shares(pack(bags()), columns(), only)
    torch.testing.assert_close(found.logits, expected.values[:, -1], rtol=1e-5, atol=1e-6)
    assert model.fusion.slides_stand_alone == (fusion.kind == "late")


@pytest.mark.parametrize(
    "aggregator",
    [MeanPoolSettings(), ChowderSettings(hidden_dim=4), AcmilSettings(hidden_dim=4, attention_dim=4)],
    ids=lambda one: one.kind,
)
@pytest.mark.parametrize("fusion", [LateSettings(), GatedSettings(hidden_dim=5)], ids=lambda one: one.kind)
def test_further_views_of_slides_count_for_those_who_have_them(aggregator: Any, fusion: Any) -> None:
    model, given = build(fusion, aggregator=aggregator).train(), everything()
    given[0, -1] = False
    torch.manual_seed(0)
    found = model.shares(pack(bags()), columns(), given)
    for value in found.output.auxiliary.values():
        if value.ndim == 3:
            torch.testing.assert_close(value[:, 0], found.output.logits[0].expand(len(value), -1))
            assert not torch.equal(value[:, 1], found.output.logits[1].expand(len(value), -1))


def test_co_attention_without_slides_or_groups_is_refused() -> None:
    settings = CoAttentionSettings()
    for shape in (ModelShape(0, 7, 1, GROUPS), ModelShape(3, 7, 1)):
        with pytest.raises(ValueError, match="co-attention needs slides, and a block or gene groups"):
            PrognosisModel(AbmilSettings(), shape, settings)


def test_a_gene_group_asks_its_own_question() -> None:
    model, changed = build(FUSIONS[2]), columns()
    changed[:, 3] += 2
    one, other = (model(pack(bags()), given, everything()).attention.values for given in (columns(), changed))
    asked = [(one[:4, group] - other[:4, group]).abs().max().item() for group in range(3)]
    np.testing.assert_array_equal(np.array(asked) > 1e-6, [False, True, False])


def test_bfloat16_agrees_with_float32(fusion: Any) -> None:
    model = build(fusion)
    plain = model(pack(bags()), columns(), everything()).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(pack(bags()), columns(), everything()).logits
    torch.testing.assert_close(mixed.float(), plain, rtol=0.1, atol=0.1)
