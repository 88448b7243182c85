"""Bags one after another: sums and softmax bag by bag."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pathoml.mil.packed import pack

LENGTHS = (3, 0, 1, 7, 0)


def bags(scale: float = 1.0, *, dtype: torch.dtype = torch.float64, columns: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, columns, generator=generator, dtype=dtype) * scale for length in LENGTHS]


def test_packing_keeps_every_row_and_where_bags_begin() -> None:
    packed = pack(bags())
    assert packed.offsets.tolist() == [0, 3, 3, 4, 11, 11]
    assert packed.offsets.dtype == torch.int64
    torch.testing.assert_close(packed.values, torch.cat(bags()), rtol=0, atol=0)


def test_each_row_knows_its_bag() -> None:
    assert pack(bags()).bag_of_row.tolist() == [0, 0, 0, 2, 3, 3, 3, 3, 3, 3, 3]


def test_sums_are_those_of_each_bag_and_zero_for_an_empty_one() -> None:
    torch.testing.assert_close(pack(bags()).sums(), torch.stack([bag.sum(dim=0) for bag in bags()]))


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_is_torchs_bag_by_bag(scale: float, dtype: torch.dtype) -> None:
    found = pack(bags(scale, dtype=dtype)).softmax()
    expected = torch.cat([torch.softmax(bag, dim=0) for bag in bags(scale, dtype=dtype)])
    torch.testing.assert_close(found.values, expected)


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_softmax_does_not_change_when_a_bag_shifts(shift: float) -> None:
    moved = [bag + shift * index for index, bag in enumerate(bags())]
    torch.testing.assert_close(pack(moved).softmax().values, pack(bags()).softmax().values, rtol=0, atol=1e-10)


def test_softmax_gradients_are_torchs() -> None:
    weights = torch.cat(bags(columns=2)).cos()
    packed = [bag.clone().requires_grad_() for bag in bags()]
    plain = [bag.clone().requires_grad_() for bag in bags()]
    (pack(packed).softmax().values * weights).sum().backward()
    (torch.cat([torch.softmax(bag, dim=0) for bag in plain]) * weights).sum().backward()
    for one, other in zip(packed, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_bag_of_one_row_has_weight_one_whatever_its_score() -> None:
    packed = pack([torch.tensor([[-1e30]]), torch.tensor([[1e30]])])
    assert packed.softmax().values.tolist() == [[1.0], [1.0]]


def test_sums_over_many_rows_do_not_drift() -> None:
    rows = np.random.default_rng(0).random((20_000, 1))
    found = pack([torch.from_numpy(rows).float()]).sums().item()
    assert found == pytest.approx(rows.sum(), rel=1e-5)
