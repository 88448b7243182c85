"""What finds the tissue of a slide follows from the settings, for extraction and for plans alike."""

import json
from pathlib import Path

import numpy as np
import pytest

from pathoml.artefacts import QualitySettings
from pathoml.looks import look_at
from pathoml.slides import open_slide
from pathoml.testing.pyramid import write_pyramid
from pathoml.tiles import lay_tiles
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings, GeojsonTissueSettings, ModelTissueSettings, TissueSettings

QUALITY = QualitySettings(drop=())
TILING = TilingSettings(tile_px=64)


def refuse(settings: ModelTissueSettings) -> None:
    raise AssertionError("no network was asked for")


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """White with a pink square in its upper left quarter."""
    picture = np.full((800, 800, 3), 245, dtype=np.uint8)
    picture[:400, :400] = (200, 110, 160)
    write_pyramid(tmp_path / "S1.tif", picture, mpp=0.5, downsamples=(4,))
    return tmp_path / "S1.tif"


def tissue_of(slide: Path, tissue: TissueSettings, network: object = refuse) -> np.ndarray:
    look = look_at(tissue, QUALITY, "S1", network)  # type: ignore[arg-type]
    assert look.mask_mpp == tissue.mask_mpp
    assert look.quality == QUALITY
    with open_slide(slide) as opened:
        return lay_tiles(opened, look, TILING).mask.tissue


def test_what_is_coloured_is_tissue(slide: Path) -> None:
    tissue = tissue_of(slide, ClassicalTissueSettings())
    assert tissue[:23, :23].all()
    assert not tissue[27:].any()


def test_what_was_outlined_is_tissue(slide: Path, tmp_path: Path) -> None:
    ring = [[400, 400], [800, 400], [800, 800], [400, 800], [400, 400]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "S1.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    tissue = tissue_of(slide, GeojsonTissueSettings(folder=tmp_path))
    assert tissue[50:, 50:].all()
    assert not tissue[:50, :50].any()


def test_a_network_is_asked_with_its_settings_and_what_stands_in_for_it_is_used(slide: Path, tmp_path: Path) -> None:
    settings = ModelTissueSettings(weights=tmp_path / "w.safetensors", sha256="0" * 64, mask_mpp=10.0)
    asked = []

    def network(given: ModelTissueSettings) -> object:
        asked.append(given)
        return lambda opened, picture, mpp, ink: np.ones(picture.shape[:2], dtype=bool)

    assert tissue_of(slide, settings, network).all()
    assert asked == [settings]
