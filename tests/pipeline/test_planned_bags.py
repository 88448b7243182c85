"""A plan counts the bags that a run would keep: those of the same settings and the same weights."""

from dataclasses import replace
from pathlib import Path

import pytest

from pathoml.bags import write_bag
from pathoml.pipeline.planning import _has_bag
from tests.test_bags import bag


@pytest.mark.parametrize(
    ("settings", "weights", "kept"),
    [("d", "c", True), ("d", None, True), ("d", "e", False), ("e", "c", False)],
    ids=["the same", "weights not known yet", "other weights", "other settings"],
)
def test_a_bag_counts_if_a_run_would_keep_it(settings: str, weights: str | None, kept: bool, tmp_path: Path) -> None:
    one = bag()
    header = replace(one.header, settings_digest="d" * 64, weights_digest="c" * 64)
    write_bag(tmp_path / "S1.h5", replace(one, header=header))
    assert _has_bag(tmp_path / "S1.h5", settings * 64, weights and weights * 64) is kept
    assert not _has_bag(tmp_path / "S2.h5", settings * 64, weights)
