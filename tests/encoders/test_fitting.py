"""What can be told of an encoder before anything is loaded: its tiles, and whether its weights file is there."""

from pathlib import Path

import pytest

from pathoml.encoders.build import build_encoder
from pathoml.encoders.fitting import encoder_problems
from pathoml.encoders.settings import ImportedSettings, Lite0Settings, LocalSettings, RegisteredSettings
from pathoml.errors import EncoderError
from pathoml.tiling import TilingSettings


def test_an_encoder_with_its_own_tiles_has_no_problem() -> None:
    own = TilingSettings(tile_px=256, target_mpp=0.5)
    assert encoder_problems(RegisteredSettings(name="uni_v2"), own) == []
    assert encoder_problems(Lite0Settings(), TilingSettings()) == []
    assert encoder_problems(ImportedSettings(name="theirs"), TilingSettings(tile_px=999)) == []


def test_other_tiles_are_refused_with_what_to_set() -> None:
    (problem,) = encoder_problems(RegisteredSettings(name="uni_v2"), TilingSettings())
    assert problem.key == ("encoder",)
    for word in ("uni_v2", "256 px", "224 px", "tiling.tile_px: 256", "encoder.other_tiles"):
        assert word in problem.message
    assert encoder_problems(RegisteredSettings(name="uni_v2", other_tiles=True), TilingSettings()) == []


@pytest.mark.parametrize("kind", [RegisteredSettings, LocalSettings])
def test_a_weights_file_that_is_not_there_is_named(tmp_path: Path, kind: type) -> None:
    names = {"name": "uni_v2"} if kind is RegisteredSettings else {"architecture": "resnet18", "tile_px": 256}
    settings = kind(weights=tmp_path / "gone.bin", sha256="0" * 64, **names)
    (problem,) = encoder_problems(settings, TilingSettings(tile_px=256))
    assert "gone.bin" in problem.message


@pytest.mark.parametrize(("tile_px", "mpp"), [(224, 0.5), (224, 0.51), (224, 0.511), (256, 0.5), (224, 0.25)])
def test_the_check_beforehand_and_the_built_encoder_agree(tile_px: int, mpp: float) -> None:
    tiling = TilingSettings(tile_px=tile_px, target_mpp=mpp)
    try:
        build_encoder(Lite0Settings()).check_tiles(target_mpp=mpp, tile_px=tile_px)
        refused = False
    except EncoderError:
        refused = True
    assert refused == bool(encoder_problems(Lite0Settings(), tiling))
