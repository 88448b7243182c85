"""Encoding a batch: a tile's features depend on that tile."""

import numpy as np
import pytest
import torch
from torch import nn

from pathoml.encoders.build import build_encoder
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import EncoderError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(Lite0Settings())


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    """Smooth colours with a little noise, each tile another."""
    rng = np.random.default_rng(4)
    coarse = torch.from_numpy(rng.uniform(60, 240, (6, 3, 14, 14)).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, size=224, mode="bilinear")
    return (smooth + torch.from_numpy(rng.normal(0, 4, smooth.shape))).clamp(0, 255).byte().permute(0, 2, 3, 1)


def test_features_are_those_of_the_module_on_normalised_colours() -> None:
    mean_colour = Encoder(
        name="mean", module=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), dim=3, mpp=0.5, tile_px=4,
        mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2), weights_digest="", licence="", pretraining="",
    )  # fmt: skip
    tile = torch.tensor([51, 102, 204], dtype=torch.uint8).expand(2, 4, 4, 3)
    found = mean_colour.encode(tile, precision=torch.float32)
    expected = torch.tensor([(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.8 - 0.3) / 0.2])
    torch.testing.assert_close(found, expected.expand(2, 3), rtol=1e-5, atol=1e-6)


def test_other_tiles_in_the_batch_do_not_change_features(encoder: Encoder, tiles: torch.Tensor) -> None:
    together = encoder.encode(tiles, precision=torch.float32)
    alone = torch.cat([encoder.encode(one[None], precision=torch.float32) for one in tiles])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert float((together[0] - together[1]).abs().max()) > 0.05, "different tiles must differ for this to say anything"


def test_padding_changes_nothing_at_all_for_a_tile_in_the_same_slot(encoder: Encoder, tiles: torch.Tensor) -> None:
    padded = tiles.clone()
    padded[3:] = 255
    full, short = (encoder.encode(batch, precision=torch.float32) for batch in (tiles, padded))
    assert torch.equal(full[:3], short[:3])
    assert not torch.equal(full[3:], short[3:])


def test_the_same_batch_gives_the_same_bits(encoder: Encoder, tiles: torch.Tensor) -> None:
    first, second = (encoder.encode(tiles, precision=torch.float32) for _ in range(2))
    assert torch.equal(first, second)


def test_bfloat16_features_point_where_float32_ones_do(tiles: torch.Tensor) -> None:
    exact = build_encoder(Lite0Settings())
    expected = exact.encode(tiles, precision=torch.float32)
    exact.module.to(torch.bfloat16)
    found = exact.encode(tiles, precision=torch.bfloat16)
    assert found.dtype == torch.float32
    assert float(nn.functional.cosine_similarity(found, expected).min()) > 0.999
    assert not torch.equal(found, expected)


def test_no_gradient_is_kept(encoder: Encoder, tiles: torch.Tensor) -> None:
    assert not encoder.encode(tiles[:1], precision=torch.float32).requires_grad


@pytest.mark.parametrize(("mpp", "tile_px"), [(0.5, 224), (0.491, 224), (0.509, 224)])
def test_tiles_of_about_the_right_resolution_are_taken(encoder: Encoder, mpp: float, tile_px: int) -> None:
    encoder.check_tiles(target_mpp=mpp, tile_px=tile_px)


@pytest.mark.parametrize(("mpp", "tile_px"), [(0.25, 224), (1.0, 224), (0.52, 224), (0.5, 256), (0.5, 223)])
def test_other_tiles_are_refused_with_what_to_set(encoder: Encoder, mpp: float, tile_px: int) -> None:
    with pytest.raises(
        EncoderError, match=rf"makes {tile_px} px at {mpp}; set tiling.tile_px: 224 and tiling.target_mpp: 0\.5"
    ):
        encoder.check_tiles(target_mpp=mpp, tile_px=tile_px)
