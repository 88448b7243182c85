"""Shrinking while decoding is a choice that costs little: grey levels and features stay close on real tissue."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pathoml.encoders.build import build_encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.slides import TileState, open_slide
from pathoml.tiling import TilingSettings, plan_reading

CMU = "slides/CMU-1-Small-Region.svs"


def tiles(path: Path, settings: TilingSettings, mpp: float, reduction: int) -> np.ndarray:
    """Read tiles of a slide of which another resolution is claimed; what it really is plays no part here."""
    with open_slide(path, mpp=mpp) as slide:
        plan = plan_reading(slide.geometry, settings)
        assert plan.reduction == reduction
        step = round(plan.footprint_level0_px(slide.geometry)[0])
        coords = np.array(
            [(x, y) for y in range(0, 2967 - step, step) for x in range(0, 2220 - step, step)], dtype=np.int32
        )
        out = np.empty((len(coords), 224, 224, 3), dtype=np.uint8)
        assert (slide.tile_reader(coords, plan).read(0, len(coords), out) == TileState.WHOLE).all()
    return out


@pytest.mark.parametrize(("mpp", "reduction"), [(0.25, 2), (0.2527, 2), (0.125, 4), (0.2425, 1), (0.1, 1)])
def test_scaled_tiles_differ_little_from_exact_ones_and_so_do_their_features(
    data_dir: Path, mpp: float, reduction: int
) -> None:
    """Against exact tiles of the resolution that results, where the one asked for lies within the tolerance."""
    scaled = tiles(data_dir / CMU, TilingSettings(decode="scaled"), mpp, reduction)
    same = TilingSettings(target_mpp=mpp * reduction if reduction > 1 else 0.5)
    exact = tiles(data_dir / CMU, same, mpp, 1)
    apart = np.abs(exact.astype(np.int16) - scaled).mean(axis=(1, 2, 3))
    assert apart.mean() < 1.5
    encoder = build_encoder(Lite0Settings())
    one, other = (encoder.encode(torch.from_numpy(batch), precision=torch.float32).numpy() for batch in (exact, scaled))
    cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert apart.max() < 1.5, f"worst tile: {apart.max():.2f} grey levels"
    assert cosine.min() >= 0.999, f"worst tile: cosine {cosine.min():.5f}"
