"""Shrinking while decoding is a choice that costs little: grey levels and features stay close on real tissue."""

from pathlib import Path

import numpy as np
import torch

from pathoml.encoders.build import build_encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.slides import TileState, open_slide
from pathoml.tiling import TilingSettings, plan_reading

CMU = "slides/CMU-1-Small-Region.svs"
MPP = 0.25
"""Claimed for the slide, so that half the resolution is asked for; what it really is plays no part here."""


def tiles(path: Path, decode: str) -> np.ndarray:
    with open_slide(path, mpp=MPP) as slide:
        plan = plan_reading(slide.geometry, TilingSettings(decode=decode))
        assert plan.reduction == (2 if decode == "scaled" else 1)
        coords = np.array(
            [(x, y) for y in range(0, 2967 - 448, 448) for x in range(0, 2220 - 448, 448)], dtype=np.int32
        )
        out = np.empty((len(coords), 224, 224, 3), dtype=np.uint8)
        assert (slide.tile_reader(coords, plan).read(0, len(coords), out) == TileState.WHOLE).all()
    return out


def test_scaled_tiles_differ_little_from_exact_ones_and_so_do_their_features(data_dir: Path) -> None:
    exact, scaled = tiles(data_dir / CMU, "exact"), tiles(data_dir / CMU, "scaled")
    apart = np.abs(exact.astype(np.int16) - scaled).mean(axis=(1, 2, 3))
    assert apart.mean() < 1.5
    encoder = build_encoder(Lite0Settings())
    one, other = (encoder.encode(torch.from_numpy(batch), precision=torch.float32).numpy() for batch in (exact, scaled))
    cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert apart.max() < 1.5, f"worst tile: {apart.max():.2f} grey levels"
    assert cosine.min() >= 0.999, f"worst tile: cosine {cosine.min():.5f}"
