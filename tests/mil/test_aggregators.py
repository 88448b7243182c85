"""What every aggregator promises, tested once for each."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from pathoml.mil import pieces
from pathoml.mil.aggregator import Aggregator
from pathoml.mil.aggregators import AGGREGATORS, build_aggregator
from pathoml.mil.packed import BagOutput, Packed, pack
from pathoml.mil.patch_gcn import find_neighbours
from pathoml.mil.settings import (
    AbmilSettings,
    AcmilSettings,
    AggregatorSettings,
    ChowderSettings,
    ClamSettings,
    DeepMilSettings,
    DsmilSettings,
    DtfdSettings,
    IlraSettings,
    MaxPoolSettings,
    MeanPoolSettings,
    PatchGcnSettings,
    TransformerSettings,
    TransMilSettings,
)  # fmt: skip
from tests.trained import as_if_trained

DIM = 6


def bag(tiles: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(tiles, DIM, generator=torch.Generator().manual_seed(seed)) * scale


def packed(*bags: Tensor) -> Packed:
    """Bags whose tiles lie on a square, in rows."""
    places = []
    for one in bags:
        number, side = torch.arange(len(one)), math.isqrt(len(one)) + 1
        places.append(torch.stack([number * 0, number // side, number % side], dim=1))
    return pack(list(bags), places)


def close(found: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=atol)


class AggregatorContract:
    """Subclassed once per aggregator; a subclass says which."""

    settings: AggregatorSettings
    has_attention = True
    attention_columns = 1
    is_additive = True
    repeating_matters = False
    auxiliary: tuple[str, ...] = ()
    kept_a_tile = 20
    """Numbers of a large bag's tile that its graph may keep."""

    def build(self, out: int) -> Aggregator:
        return build_aggregator(self.settings, DIM, out)

    @pytest.fixture(params=[1, 4], ids=["hazard", "bins"])
    def model(self, request: pytest.FixtureRequest) -> Aggregator:
        torch.manual_seed(0)
        return as_if_trained(self.build(request.param)).eval()

    def test_before_training_the_slides_say_nothing(self) -> None:
        output = self.build(3)(packed(bag(9), bag(4)))
        assert (output.logits == 0).all()
        assert (output.contributions is not None) == self.is_additive
        if self.is_additive:
            assert (output.contributions.values == 0).all()

    def test_trained_slides_differ(self, model: Aggregator) -> None:
        logits = model(packed(bag(30, 1, 3.0), bag(30, 2, 3.0))).logits
        assert not torch.allclose(logits[0], logits[1])

    def test_other_bags_do_not_change_a_bags_output(self, model: Aggregator) -> None:
        bags = [bag(50, 1, 30.0), bag(7), bag(0), bag(1, 2)]
        together = model(packed(*bags))
        for index, one in enumerate(bags):
            close(together.logits[index], model(packed(one)).logits[0], atol=1e-4 if index == 0 else 2e-6)

    def test_the_order_of_tiles_does_not_matter(self, model: Aggregator) -> None:
        tiles = packed(bag(40))
        order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
        moved = Packed(tiles.values[order], tiles.offsets, tiles.places[order])
        found, plain = model(moved), model(tiles)
        if model.order_matters:
            assert not torch.allclose(found.logits, plain.logits, atol=1e-6)
            return
        close(found.logits, plain.logits, atol=3e-6)
        for name in ("contributions", "attention"):
            if getattr(plain, name) is not None:
                close(getattr(found, name).values, getattr(plain, name).values[order], atol=3e-6)

    def test_what_is_learnt_does_not_depend_on_the_order_of_tiles(self) -> None:
        found = []
        for seed in (1, 2):
            torch.manual_seed(0)
            model = self.build(1).double().eval()
            optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
            generator = torch.Generator().manual_seed(seed)
            moved = []
            for number in range(8):
                tiles = packed(bag(12, number).double())
                order = torch.randperm(12, generator=generator)
                moved.append(Packed(tiles.values[order], tiles.offsets, tiles.places[order]))
            wanted = torch.linspace(-1, 1, 8, dtype=torch.float64)
            for _ in range(6):
                optimizer.zero_grad()
                logits = torch.cat([model(one).logits[:, 0] for one in moved])
                ((logits - wanted) ** 2).mean().backward()
                optimizer.step()
            found.append(torch.cat([model(one).logits[:, 0] for one in moved]).detach())
        assert found[0].abs().max() > 0.01, "it has learnt something"
        if not model.order_matters:
            torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)

    def test_places_matter_where_the_model_says_so(self, model: Aggregator) -> None:
        tiles = packed(bag(40))
        order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
        moved = model(tiles._replace(places=tiles.places[order])).logits
        assert torch.allclose(moved, model(tiles).logits, atol=1e-6) != model.needs_places
        if model.needs_places:
            far = tiles.places + torch.tensor([0, 700, 90])
            close(model(tiles._replace(places=far)).logits, model(tiles).logits, atol=1e-5)
            with pytest.raises(ValueError, match="places"):
                model(tiles._replace(places=None))

    def test_the_order_of_bags_does_not_matter(self, model: Aggregator) -> None:
        first, second = bag(5, 1), bag(9, 2)
        close(model(packed(first, second)).logits, model(packed(second, first)).logits.flip(0))

    def test_contributions_sum_to_the_logits(self, model: Aggregator) -> None:
        output = model(packed(bag(5, 1), bag(0), bag(9, 2)))
        if self.is_additive:
            close(output.contributions.sums(), output.logits, atol=3e-6)
            assert output.contributions.values.shape == (14, output.logits.shape[1])

    def test_attention_is_positive_and_sums_to_one_over_each_bag(self, model: Aggregator) -> None:
        output: BagOutput = model(packed(bag(5, 1), bag(1), bag(300, 2, 20.0)))
        assert (output.attention is not None) == self.has_attention
        if output.attention is not None:
            columns = output.logits.shape[1] if self.attention_columns == 0 else self.attention_columns
            assert output.attention.values.shape == (306, columns)
            close(output.attention.sums(), torch.ones(3, columns), atol=2e-6)
            assert (output.attention.values >= 0).all()

    def test_an_empty_bag_adds_nothing_and_gives_no_nan(self, model: Aggregator) -> None:
        output = model(packed(bag(0), bag(3)))
        assert (output.logits[0] == 0).all()
        assert torch.isfinite(output.logits).all()

    def test_only_empty_bags_are_fine(self, model: Aggregator) -> None:
        assert (model(packed(bag(0), bag(0))).logits == 0).all()
        model.train()
        output = model(packed(bag(0), bag(1)))
        assert all(torch.isfinite(value).all() for value in output.auxiliary.values())

    def test_a_bag_of_equal_tiles_equals_a_bag_of_one(self, model: Aggregator) -> None:
        if self.repeating_matters:
            pytest.skip("its neighbourhoods or sizes are a part of the model")
        close(model(packed(bag(1).expand(500, -1))).logits, model(packed(bag(1))).logits, atol=2e-5)

    @pytest.mark.parametrize("tiles", [10, 3000])
    def test_bfloat16_comes_close_to_float32_in_large_bags_too(self, model: Aggregator, tiles: int) -> None:
        large = packed(bag(tiles) + 0.5)
        plain = model(large)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(large)
        close(mixed.logits.float(), plain.logits, atol=0.04 * max(1.0, plain.logits.abs().max().item()))

    def test_float16_tiles_are_taken_as_they_lie_on_disk(self, model: Aggregator) -> None:
        tiles = packed(bag(30, 1), bag(4))
        half = tiles.filled(tiles.values.half())
        close(model(half).logits, model(tiles.filled(half.values.float())).logits)

    def test_gradients_reach_all_parameters(self, model: Aggregator) -> None:
        model.train()
        output = model(packed(bag(50, 1), bag(30, 2)))
        (output.logits.square().sum() + sum(value.square().sum() for value in output.auxiliary.values())).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
            assert torch.isfinite(parameter.grad).all(), name

    def test_auxiliary_terms_are_there_in_training_and_nowhere_else(self, model: Aggregator) -> None:
        tiles = packed(bag(50, 1), bag(3, 2))
        assert model(tiles).auxiliary == {}
        output = model.train()(tiles)
        assert tuple(output.auxiliary) == self.auxiliary
        for value in output.auxiliary.values():
            assert value.shape == (2,) or value.shape[1:] == output.logits.shape

    def test_evaluation_is_deterministic(self, model: Aggregator) -> None:
        tiles = packed(bag(50, 1), bag(30, 2))
        assert torch.equal(model(tiles).logits, model(tiles).logits)

    def test_of_a_large_bag_the_graph_keeps_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No copy of the bag, and nothing wide: at most so many numbers a tile, and far fewer than when all is kept."""
        wide, tiles = 400, 600
        model = as_if_trained(build_aggregator(self.settings, wide, 1)).train()
        rows = torch.randn(tiles, wide, generator=torch.Generator().manual_seed(0)).half()
        places = packed(bag(tiles)).places
        own = Packed(rows, torch.tensor([0, tiles]), places)

        def numbers_a_tile() -> float:
            held: dict[int, int] = {}

            def hold(saved: Tensor) -> Tensor:
                held[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
                return saved

            with saved_tensors_hooks(hold, lambda saved: saved):
                output = model(own)
            assert output.logits.requires_grad
            free = {one.untyped_storage().data_ptr() for one in (*model.parameters(), rows, places)}
            return sum(size for place, size in held.items() if place not in free) / 4 / tiles

        whole = numbers_a_tile()
        monkeypatch.setattr(pieces, "WHOLE_UP_TO", 64)
        monkeypatch.setattr(pieces, "PIECE_TILES", 64)
        cut = numbers_a_tile()
        assert cut <= self.kept_a_tile
        assert cut < whole / 3

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_the_gpu_gives_the_output_and_gradients_of_the_cpu(self, model: Aggregator) -> None:
        tiles = packed(bag(300, 1), bag(0), bag(1, 2), bag(40, 3))

        def results(device: str) -> dict[str, Tensor]:
            own = model.to(device)
            own.zero_grad()
            output = own(tiles.to(device))
            output.logits.square().sum().backward()
            found = {"logits": output.logits.detach()}
            for name in ("attention", "contributions"):
                if getattr(output, name) is not None:
                    found[name] = getattr(output, name).values.detach()
            grown = {name: one.grad for name, one in own.named_parameters() if one.grad is not None}
            return {name: value.cpu().clone() for name, value in (found | grown).items()}

        cpu, gpu = results("cpu"), results("cuda")
        assert cpu.keys() == gpu.keys()
        for name, value in cpu.items():
            torch.testing.assert_close(gpu[name], value, rtol=2e-3, atol=2e-4, msg=name)

    def test_large_bags_in_pieces_give_the_same_output_and_gradients(
        self, model: Aggregator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiles = packed(bag(60, 1), bag(30, 2))

        def results() -> dict[str, Tensor]:
            model.zero_grad()
            torch.manual_seed(5)
            output = model.train()(tiles)
            output.logits.square().sum().backward()
            grown = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
            return {"logits": output.logits.detach(), **grown}

        model.apply(lambda one: setattr(one, "p", 0.0) if isinstance(one, torch.nn.Dropout) else None)
        whole = results()
        monkeypatch.setattr(pieces, "WHOLE_UP_TO", 10)
        monkeypatch.setattr(pieces, "PIECE_TILES", 7)
        for name, found in results().items():
            torch.testing.assert_close(found, whole.get(name, torch.zeros_like(found)), rtol=1e-4, atol=1e-5)


def test_every_aggregator_has_a_contract() -> None:
    tested = {one.settings.kind for one in AggregatorContract.__subclasses__()}
    assert tested == set(AGGREGATORS)


def test_pieces_replay_dropout_when_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = as_if_trained(build_aggregator(AbmilSettings(dropout=0.5), DIM, 1)).double().train()
    monkeypatch.setattr(pieces, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(pieces, "PIECE_TILES", 7)
    tiles = packed(bag(40).double())
    weight = model.embed[0].weight

    def loss() -> Tensor:
        torch.manual_seed(9)
        return model(tiles).logits.square().sum()

    loss().backward()
    found, step = weight.grad[0, 0].item(), 1e-6
    with torch.no_grad():
        weight[0, 0] += step
        above = loss().item()
        weight[0, 0] -= 2 * step
        below = loss().item()
    assert found == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-9)


class TestAbmil(AggregatorContract):
    settings = AbmilSettings(hidden_dim=8, attention_dim=5, dropout=0.25)

    def test_logits_equal_ilse_equation_9(self) -> None:
        torch.manual_seed(0)
        model, tiles = as_if_trained(self.build(1)).eval(), bag(20)
        hidden = torch.relu(tiles @ model.embed[0].weight.T + model.embed[0].bias)
        branch = model.attention
        gated = torch.tanh(branch.attend(hidden)) * torch.sigmoid(branch.gate(hidden))
        weights = torch.softmax(gated @ branch.score.weight.T, dim=0)
        close(model(packed(tiles)).logits, (weights * hidden).sum(dim=0, keepdim=True) @ model.head.weight.T)

    def test_plain_attention_equals_ilse_equation_8(self) -> None:
        torch.manual_seed(0)
        settings = self.settings.model_copy(update={"gated": False})
        model, tiles = as_if_trained(build_aggregator(settings, DIM, 1)).eval(), bag(20)
        hidden = torch.relu(tiles @ model.embed[0].weight.T + model.embed[0].bias)
        weights = torch.softmax(torch.tanh(model.attention.attend(hidden)) @ model.attention.score.weight.T, dim=0)
        close(model(packed(tiles)).logits, (weights * hidden).sum(dim=0, keepdim=True) @ model.head.weight.T)


class TestHeads(AggregatorContract):
    settings = AbmilSettings(hidden_dim=8, attention_dim=5, dropout=0.25, heads=3)
    attention_columns = 3


class TestMeanPool(AggregatorContract):
    settings = MeanPoolSettings()
    has_attention = False

    def test_logits_are_those_of_the_mean_tile(self) -> None:
        torch.manual_seed(0)
        model = as_if_trained(self.build(2))
        close(model(packed(bag(20))).logits, bag(20).mean(dim=0, keepdim=True) @ model.head.weight.T)


class TestMaxPool(AggregatorContract):
    settings = MaxPoolSettings(hidden_dim=8, dropout=0.25)
    has_attention = False

    def test_one_tile_has_all_of_a_logit(self) -> None:
        model = as_if_trained(self.build(3)).eval()
        output = model(packed(bag(20)))
        alone = torch.cat([model(packed(one[None])).logits for one in bag(20)])
        chosen = (model.head(model.embed(bag(20))) + model.embed(bag(20)) @ model.draw.T).argmax(dim=0)
        close(output.logits[0], alone[chosen, torch.arange(3)])
        apart = alone.max(dim=0).values - alone[chosen, torch.arange(3)]
        assert (apart < 0.2 * alone.std(dim=0)).all(), "what decides among equals decides little else"
        assert ((output.contributions.values != 0).sum(dim=0) <= 1).all()


class TestChowder(AggregatorContract):
    settings = ChowderSettings(extremes=5, hidden_dim=8, dropout=0.25)
    has_attention = False
    is_additive = False

    def test_only_the_extremes_count(self) -> None:
        model, tiles = as_if_trained(self.build(1)).eval(), bag(40)
        order = model.score(tiles)[:, 0].argsort()
        close(model(packed(tiles)).logits, model(packed(tiles[torch.cat([order[:5], order[-5:]])])).logits)
        with torch.no_grad():
            outlier = tiles[order[-1:]] * 3
        assert not torch.allclose(model(packed(tiles)).logits, model(packed(torch.cat([tiles, outlier]))).logits)


class TestDeepMil(AggregatorContract):
    settings = DeepMilSettings(hidden_dim=8, attention_dim=5, dropout=0.25)
    is_additive = False


class TestClamSb(AggregatorContract):
    settings = ClamSettings(hidden_dim=8, attention_dim=5, dropout=0.0, instances=4)
    auxiliary = ("instances",)

    def test_the_instance_loss_is_that_of_its_most_and_least_attended_tiles(self) -> None:
        torch.manual_seed(0)
        model, tiles = as_if_trained(self.build(1)).train(), bag(20)
        output = model(packed(tiles))
        order = output.attention.values[:, 0].argsort(descending=True)
        chosen = torch.cat([order[:4], order.flip(0)[:4]])
        expected = cross_entropy(model.tell_apart(model.embed(tiles[chosen])), torch.tensor([1] * 4 + [0] * 4))
        close(output.auxiliary["instances"], torch.stack([0.3 / 0.7 * expected.detach(), torch.ones(())]))


class TestDsmil(AggregatorContract):
    settings = DsmilSettings(query_dim=8, dropout=0.25)
    kept_a_tile = 30
    attention_columns = 0
    auxiliary = ("streams",)

    def test_the_critical_tile_has_the_most_attention_among_equal_lengths(self) -> None:
        torch.manual_seed(0)
        model = as_if_trained(self.build(1)).eval()
        torch.nn.init.normal_(model.instance.weight)
        output = model(packed(bag(30)))
        query, critical = model.query(bag(30)), model.instance(bag(30)).argmax()
        likeness = torch.softmax(query @ query[critical] / 8**0.5, dim=0)
        close(output.attention.values[:, 0], likeness)


class TestAcmil(AggregatorContract):
    settings = AcmilSettings(hidden_dim=8, attention_dim=5, dropout=0.0, branches=3, most_attended=4)
    kept_a_tile = 48
    auxiliary = ("branches", "likeness")

    def test_some_favourites_are_hidden_in_training_only(self) -> None:
        torch.manual_seed(0)
        model = as_if_trained(self.build(1))
        hidden = [int((model.train()(packed(bag(30))).attention.values == 0).sum()) for _ in range(5)]
        assert int((model.eval()(packed(bag(30))).attention.values == 0).sum()) == 0
        close(model.train()(packed(bag(30))).attention.sums(), torch.ones(1, 1))
        assert max(hidden) <= 2  # a tile counts only if all branches hide it

    def test_equal_branches_are_alike(self) -> None:
        model = self.build(1).train()
        torch.nn.init.zeros_(model.attention.score.weight)
        model._most = 0
        close(model(packed(bag(30), bag(0), bag(20))).auxiliary["likeness"], torch.full((2,), 2.0), atol=1e-5)


class TestDtfd(AggregatorContract):
    settings = DtfdSettings(hidden_dim=8, attention_dim=5, dropout=0.25, pseudo_bags=3)
    kept_a_tile = 40
    auxiliary = ("pseudo_bags",)


class TestIlra(AggregatorContract):
    settings = IlraSettings(hidden_dim=8, heads=2, latents=3, dropout=0.0)
    kept_a_tile = 72
    is_additive = False


class TestTransMil(AggregatorContract):
    settings = TransMilSettings(hidden_dim=8, heads=2, dropout=0.0)
    kept_a_tile = 110
    is_additive = False
    repeating_matters = True


class TestPlacedTransformer(AggregatorContract):
    settings = TransformerSettings(hidden_dim=8, heads=3 - 1, dropout=0.0)
    kept_a_tile = 165
    is_additive = False
    repeating_matters = True

    def test_the_bias_is_minus_slope_times_squared_distance_and_parts_slides(self) -> None:
        model = build_aggregator(self.settings.model_copy(update={"heads": 4}), DIM, 1)
        side = torch.arange(0, 300, 20)
        grid = torch.cartesian_prod(torch.tensor([0, 2]), side, side)
        query, key = model._bias(grid)
        scores = query @ key.transpose(1, 2)
        assert (scores[:, 0] == 0).all()
        assert (scores[:, :, 0] == 0).all()
        distance = torch.cdist(grid[:, 1:].double(), grid[:, 1:].double()) ** 2
        same = grid[:, 0][:, None] == grid[:, 0][None, :]
        for found, slope in zip(scores[:, 1:, 1:], model.slopes.double(), strict=True):
            torch.testing.assert_close(found[same].double(), -slope * distance[same], rtol=1e-5, atol=0.02)
            assert (found[~same] < -99).all() if slope > 0 else (found == 0).all()

    def test_mixed_precision_keeps_places(self) -> None:
        torch.manual_seed(0)
        model = as_if_trained(self.build(1)).eval()
        side = torch.arange(0, 300, 12)
        places = torch.cartesian_prod(torch.arange(2), side, side)
        rows = bag(len(places)) + 3.0 * torch.sin(places[:, 1:2] / 40.0)
        tiles = Packed(rows, torch.tensor([0, len(rows)]), places)
        layer = model.layers[0]
        tokens = torch.cat([model.class_token, model.embed(rows)])
        exact = layer.attention(tokens, layer.before, model._bias(places))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = layer.attention(tokens, layer.before, model._bias(places))
        assert ((mixed.float() - exact).abs().max() / exact.abs().max()) < 0.02
        assert torch.isfinite(model(tiles).logits).all()


class TestPatchGcn(AggregatorContract):
    settings = PatchGcnSettings(hidden_dim=8, attention_dim=5, layers=2, dropout=0.0)
    kept_a_tile = 95
    repeating_matters = True

    def test_neighbours_are_the_eight_around_in_the_same_bag_and_slide(self) -> None:
        generator = torch.Generator().manual_seed(0)
        places = torch.unique(torch.randint(0, 6, (120, 4), generator=generator) // torch.tensor([3, 3, 1, 1]), dim=0)
        found = find_neighbours(places)
        for row, own in enumerate(places.tolist()):
            wanted = {
                other
                for other, place in enumerate(places.tolist())
                if place[:2] == own[:2] and max(abs(place[2] - own[2]), abs(place[3] - own[3])) == 1
            }
            assert {int(one) for one in found[row] if one < len(places)} == wanted

    def test_a_tile_sees_as_many_steps_as_there_are_layers(self) -> None:
        torch.manual_seed(0)
        model = as_if_trained(self.build(1)).eval()
        line = torch.stack([torch.zeros(9), torch.zeros(9), torch.arange(9)], dim=1).long()
        tiles = Packed(bag(9), torch.tensor([0, 9]), line)
        changed = tiles.filled(torch.cat([tiles.values[:-1], tiles.values[-1:] + 5]))
        first, second = (model(one).contributions.values / model(one).attention.values for one in (tiles, changed))
        moved = ((first - second).abs() > 1e-6)[:, 0]
        assert moved.tolist() == [False] * 6 + [True] * 3
