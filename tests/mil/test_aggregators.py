"""What every aggregator promises, tested once for each."""

import pytest
import torch
from torch import Tensor, nn

from pathoml.mil.abmil import GatedAbmil
from pathoml.mil.mean_pool import MeanPool
from pathoml.mil.packed import BagOutput, pack
from pathoml.mil.settings import AbmilSettings, MeanPoolSettings
from tests.trained import as_if_trained

DIM = 6


def bag(tiles: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(tiles, DIM, generator=torch.Generator().manual_seed(seed)) * scale


def close(found: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


class AggregatorContract:
    """Subclassed once per aggregator; a subclass gives `build`."""

    has_attention = True

    def build(self, out: int) -> nn.Module:
        raise NotImplementedError

    @pytest.fixture(params=[1, 4], ids=["hazard", "bins"])
    def model(self, request: pytest.FixtureRequest) -> nn.Module:
        torch.manual_seed(0)
        return as_if_trained(self.build(request.param)).eval()

    def test_before_training_the_slides_say_nothing(self) -> None:
        output = self.build(3)(pack([bag(9), bag(4)]))
        assert (output.logits == 0).all()
        assert (output.contributions.values == 0).all()

    def test_other_bags_do_not_change_a_bags_output(self, model: nn.Module) -> None:
        bags = [bag(50, 1, 30.0), bag(7), bag(0), bag(1, 2)]
        together = model(pack(bags))
        for index, one in enumerate(bags):
            close(together.logits[index], model(pack([one])).logits[0], atol=1e-5 if index == 0 else 1e-6)

    def test_the_order_of_tiles_does_not_matter(self, model: nn.Module) -> None:
        tiles = bag(40)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
        plain, moved = model(pack([tiles])), model(pack([tiles[order]]))
        close(moved.logits, plain.logits)
        close(moved.contributions.values, plain.contributions.values[order])

    def test_the_order_of_bags_does_not_matter(self, model: nn.Module) -> None:
        first, second = bag(5, 1), bag(9, 2)
        close(model(pack([first, second])).logits, model(pack([second, first])).logits.flip(0))

    def test_contributions_sum_to_the_logits(self, model: nn.Module) -> None:
        output = model(pack([bag(5, 1), bag(0), bag(9, 2)]))
        close(output.contributions.sums(), output.logits)
        assert output.contributions.values.shape == (14, output.logits.shape[1])

    def test_attention_is_positive_and_sums_to_one_over_each_bag(self, model: nn.Module) -> None:
        output: BagOutput = model(pack([bag(5, 1), bag(1), bag(300, 2, 20.0)]))
        assert (output.attention is not None) == self.has_attention
        if output.attention is not None:
            close(output.attention.sums(), torch.ones(3, 1))
            assert (output.attention.values >= 0).all()

    def test_an_empty_bag_adds_nothing_and_gives_no_nan(self, model: nn.Module) -> None:
        output = model(pack([bag(0), bag(3)]))
        assert (output.logits[0] == 0).all()
        assert torch.isfinite(output.logits).all()

    def test_only_empty_bags_are_fine(self, model: nn.Module) -> None:
        assert (model(pack([bag(0), bag(0)])).logits == 0).all()

    def test_doubling_every_tile_changes_nothing(self, model: nn.Module) -> None:
        tiles = bag(12)
        close(model(pack([torch.cat([tiles, tiles])])).logits, model(pack([tiles])).logits)

    def test_a_bag_of_equal_tiles_equals_a_bag_of_one(self, model: nn.Module) -> None:
        close(model(pack([bag(1).expand(500, -1)])).logits, model(pack([bag(1)])).logits, atol=2e-5)

    @pytest.mark.parametrize("tiles", [10, 5000])
    def test_bfloat16_comes_close_to_float32_in_large_bags_too(self, model: nn.Module, tiles: int) -> None:
        packed = pack([bag(tiles) + 0.5])
        plain = model(packed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(packed)
        close(mixed.logits.float(), plain.logits, atol=0.02)

    def test_gradients_reach_all_parameters(self, model: nn.Module) -> None:
        model.train()
        model(pack([bag(50, 1), bag(30, 2)])).logits.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
            assert torch.isfinite(parameter.grad).all(), name

    def test_evaluation_is_deterministic(self, model: nn.Module) -> None:
        packed = pack([bag(50, 1), bag(30, 2)])
        assert torch.equal(model(packed).logits, model(packed).logits)


class TestGatedAbmil(AggregatorContract):
    def build(self, out: int) -> nn.Module:
        return GatedAbmil(AbmilSettings(hidden_dim=8, attention_dim=5, dropout=0.25), DIM, out)

    def test_logits_equal_ilse_equation_9(self) -> None:
        torch.manual_seed(0)
        model, tiles = as_if_trained(self.build(1)).eval(), bag(20)
        hidden = torch.relu(tiles @ model.embed[0].weight.T + model.embed[0].bias)
        gated = torch.tanh(model.attend(hidden)) * torch.sigmoid(model.gate(hidden))
        weights = torch.softmax(gated @ model.score.weight.T, dim=0)
        close(model(pack([tiles])).logits, (weights * hidden).sum(dim=0, keepdim=True) @ model.head.weight.T)


class TestMeanPool(AggregatorContract):
    has_attention = False

    def build(self, out: int) -> nn.Module:
        return MeanPool(MeanPoolSettings(), DIM, out)

    def test_logits_are_those_of_the_mean_tile(self) -> None:
        torch.manual_seed(0)
        model = as_if_trained(self.build(2))
        close(model(pack([bag(20)])).logits, bag(20).mean(dim=0, keepdim=True) @ model.head.weight.T)
