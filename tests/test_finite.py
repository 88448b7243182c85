"""A look at the bits of numbers says what isfinite says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathoml.finite import FiniteLook


def looks_finite(numbers: np.ndarray) -> bool:
    look = FiniteLook()
    look.see(numbers)
    return look.all_finite


def test_every_number_of_16_bits_is_told_right() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    assert [looks_finite(one) for one in numbers.reshape(-1, 1)] == np.isfinite(numbers).tolist()


@pytest.mark.parametrize(
    "bits",
    [0, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF, 0x80000000, 0xFF7FFFFF, 0xFF800000, 0xFF800001, 0xFFFFFFFF],
)
def test_numbers_of_32_bits_are_told_right_at_every_border(bits: int) -> None:
    number = np.array([bits], np.uint32).view(np.float32)
    assert looks_finite(number) == np.isfinite(number).all()


@given(place=st.integers(0, 199_999), poison=st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]), big=st.booleans())
@pytest.mark.parametrize("kind", ["f2", "f4"])
def test_a_single_one_is_found_wherever_it_is(kind: str, place: int, poison: float, big: bool) -> None:
    numbers = np.linspace(-9, 9, 200_000).astype(f"{'>' if big else '<'}{kind}")
    assert looks_finite(numbers)
    numbers[place] = poison
    assert not looks_finite(numbers)


def test_pieces_seen_later_do_not_make_it_good_again() -> None:
    look = FiniteLook()
    for numbers in ([np.nan], [1.0]):
        look.see(np.array(numbers, np.float32))
    assert not look.all_finite
