"""A compiled encoder computes what the encoder computes, and its bags are not taken for those of the other."""

import pytest
import torch
from torch import nn

from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract.archive import built_encoder
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings


def small() -> Encoder:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Encoder("small", module, 4, 0.5, 16, (0.5,) * 3, (0.5,) * 3, "e" * 64, "", "")


def test_a_compiled_encoder_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.extract.archive.build_encoder", lambda _: small())
    built_encoder.cache_clear()
    tiles = torch.randint(0, 255, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, compiled = (built_encoder(Lite0Settings(), ExtractSettings(compile=one), "cpu") for one in (False, True))
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    features = compiled.encode(tiles, precision=torch.float32)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compilations
    torch.testing.assert_close(features, plain.encode(tiles, precision=torch.float32), rtol=1e-4, atol=1e-5)
    built_encoder.cache_clear()


def test_compiling_changes_the_digest() -> None:
    first, second = (
        Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings(compile=one)).digest
        for one in (False, True)
    )
    assert first != second
