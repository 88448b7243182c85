"""Engines that exist: bags made by Ray's tasks are those of one process; a compiled encoder computes what the encoder does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pathoml.cohort import SlideEntry
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract import extract_with_ray
from pathoml.extract.archive import built_encoder
from pathoml.extract_settings import ExtractSettings
from tests.extract.test_shards import alone, bags, entry, recipe, slides

__all__ = ["alone", "slides"]

pytestmark = pytest.mark.slow


def test_ray_gives_the_same_bags(slides: list[SlideEntry], alone: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='no Ray here: pip install "pathoml[ray]"')
    broken = tmp_path / "broken.tif"
    broken.write_text("no slide", encoding="ascii")
    outcomes = extract_with_ray([*slides, entry(broken)], recipe(2), tmp_path / "bags")
    assert [one.status for one in outcomes] == ["done"] * 4 + ["failed"]
    assert outcomes[-1].code == "TEXT"
    assert bags(tmp_path / "bags") == alone
    assert {one.status for one in extract_with_ray(slides, recipe(2), tmp_path / "bags")} == {"kept"}


def small() -> Encoder:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Encoder("small", module, 4, 0.5, 16, (0.5,) * 3, (0.5,) * 3, "e" * 64, "", "")


def test_a_compiled_encoder_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.encoders.build.build_encoder", lambda _: small())
    built_encoder.cache_clear()
    tiles = torch.randint(0, 255, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, compiled = (built_encoder(Lite0Settings(), ExtractSettings(compile=one), "cpu") for one in (False, True))
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    features = compiled.encode(tiles, precision=torch.float32)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compilations
    torch.testing.assert_close(features, plain.encode(tiles, precision=torch.float32), rtol=1e-4, atol=1e-5)
    built_encoder.cache_clear()
