"""Version 1 of the generator stays what it was when the evidence on it was gathered."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from pathoml.testing.synthetic import DEMO_DESIGN, DEMO_SEED, EVALUATION_SEEDS, GENERATOR_VERSION, SMALL_DESIGN
from tests.testing import generator_pin

GREY_LEVELS = 1.5
"""What another build of the image libraries may change in the mean of a block."""


@cache
def pinned() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(generator_pin.pin_path(GENERATOR_VERSION).read_text(encoding="utf-8"))
    return content


def test_the_version_at_hand_is_pinned() -> None:
    assert pinned()["generator_version"] == GENERATOR_VERSION == 1
    assert set(pinned()["cohorts"]) == {"small", *(str(seed) for seed in (DEMO_SEED, *EVALUATION_SEEDS))}


@pytest.mark.parametrize("name", ["demo", "small", "pinned"])
def test_designs_are_those_of_the_version(name: str) -> None:
    design = {"demo": DEMO_DESIGN, "small": SMALL_DESIGN, "pinned": generator_pin.DESIGN}[name]
    assert generator_pin.design_digest(design) == pinned()["designs"][name]


@pytest.mark.parametrize("cohort", ["small", "20260", "101", "102", "103"])
def test_patients_oracle_and_outcomes_are_those_of_the_version(cohort: str) -> None:
    seed, design = (generator_pin.SEED, generator_pin.DESIGN) if cohort == "small" else (int(cohort), DEMO_DESIGN)
    assert generator_pin.planned(seed, design) == pinned()["cohorts"][cohort]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_slides_show_what_they_showed(index: int) -> None:
    expected, found = pinned()["slides"][index], generator_pin.drawn(generator_pin.slides()[index])
    assert (found["size_px"], found["composition"]) == (expected["size_px"], expected["composition"])
    for what in ("colour", "contrast"):
        np.testing.assert_allclose(found[what], expected[what], rtol=0, atol=GREY_LEVELS, err_msg=what)
