"""Batches over all slides: each feature comes back to its tile, whatever shares its batch; memory that is too small."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pathoml.encoders.build import build_encoder
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import EncoderError
from pathoml.extract.stream import BatchStream, EncodingPlace, SlideFeatures

SIDE = 16


class Means(nn.Module):
    """Mean colour; refuses more tiles at once than there is memory for."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.mean(dim=(2, 3))


def toy(module: nn.Module) -> Encoder:
    return Encoder("toy", module, 3, 0.5, SIDE, (0.0,) * 3, (1.0,) * 3, "e" * 64, "", "")


def stream(module: nn.Module, *, batch_tiles: int = 8, at_once: int = 1) -> BatchStream:
    places = [EncodingPlace(toy(module), "cpu")] * at_once
    return BatchStream(places, batch_tiles=batch_tiles, tile_px=SIDE, precision="float32")


def slides(counts: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8) for count in counts]


def expected(tiles: np.ndarray) -> np.ndarray:
    return tiles.astype(np.float64).mean(axis=(1, 2)) / 255


@pytest.mark.parametrize("at_once", [1, 3])
def test_features_come_back_to_their_slides_in_order(at_once: int) -> None:
    pictures = slides((5, 1, 23, 8))
    module = Means()
    with stream(module, at_once=at_once) as running:
        features = [SlideFeatures() for _ in pictures]
        for start in range(0, 23, 3):  # pages of all slides, one after the other
            for slide, tiles in zip(features, pictures, strict=True):
                page = tiles[start : start + 3]
                if len(page):
                    running.add(slide, page, np.arange(start, start + len(page)))
        running.flush()
        running.collect(wait=True)
    assert module.seen == [8] * 5, "37 tiles in full batches, the last one padded"
    for slide, tiles in zip(features, pictures, strict=True):
        assert slide.is_whole(len(tiles))
        np.testing.assert_allclose(slide.array(), expected(tiles), atol=1e-5)


def test_each_slide_has_its_own_change_of_colours_and_rows() -> None:
    told: list[tuple[int, list[int]]] = []

    def change(number: int):
        def apply(tiles: Tensor, rows: np.ndarray) -> Tensor:
            told.append((number, rows.tolist()))
            return torch.full_like(tiles, number)

        return apply

    first, second, plain = SlideFeatures(change(10)), SlideFeatures(change(20)), SlideFeatures()
    tiles = slides((3,))[0]
    with stream(Means()) as running:
        running.add(first, tiles, np.array([4, 5, 9]))
        running.add(second, tiles[:2], np.array([0, 1]))
        running.add(plain, tiles, np.arange(3))
        running.collect(wait=True)
    assert told == [(10, [4, 5, 9]), (20, [0, 1])]
    np.testing.assert_allclose(first.array(), 10 / 255, atol=1e-6)
    np.testing.assert_allclose(second.array(), 20 / 255, atol=1e-6)
    np.testing.assert_allclose(plain.array(), expected(tiles), atol=1e-5)


def test_too_little_memory_halves_the_batch_from_there_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS row 27."""
    tiles = slides((20,))[0]
    module, features = Means(most=3), SlideFeatures()
    with stream(module) as running:
        running.add(features, tiles, np.arange(20))
        running.flush()
        running.collect(wait=True)
    np.testing.assert_allclose(features.array(), expected(tiles), atol=1e-5)
    assert module.seen == [8, 4, 2, 2, 2, 2] + [2] * 4 + [2] * 4
    assert features.batch_used == 2
    assert [record.message for record in caplog.records] == [
        "cpu has no memory for 8 tiles at once; going on with 4",
        "cpu has no memory for 4 tiles at once; going on with 2",
    ]


def test_too_little_memory_for_a_change_of_colours_halves_the_batch_too() -> None:
    def change(tiles: Tensor, rows: np.ndarray) -> Tensor:
        if len(tiles) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 255 - tiles

    pictures = slides((5, 9))
    changed, plain = SlideFeatures(change), SlideFeatures()
    with stream(Means()) as running:
        running.add(changed, pictures[0], np.arange(5))
        running.add(plain, pictures[1], np.arange(9))
        running.flush()
        running.collect(wait=True)
    np.testing.assert_allclose(changed.array(), 1 - expected(pictures[0]), atol=1e-5)
    np.testing.assert_allclose(plain.array(), expected(pictures[1]), atol=1e-5)
    assert changed.batch_used == 2


def test_no_memory_for_a_single_tile_is_an_error() -> None:
    with stream(Means(most=0), batch_tiles=2) as running:
        running.add(SlideFeatures(), slides((2,))[0], np.arange(2))
        with pytest.raises(EncoderError, match="no memory for a single tile"):
            running.collect(wait=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tile_has_the_same_bytes_at_every_place_of_a_batch_and_beside_all_others(precision: str) -> None:
    """What lets batches be shared between slides: resuming and sharding change who shares a batch with whom."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    encoder = build_encoder(Lite0Settings())
    encoder.module.to(dtype)
    tiles = torch.randint(0, 255, (12, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    alone = encoder.encode(torch.cat([tiles[:1], torch.full_like(tiles[:3], 255)]), precision=dtype)[0]
    for place in range(4):
        others = tiles[1 + place * 2 : 4 + place * 2]
        batch = torch.cat([others[:place], tiles[:1], others[place:]])
        assert torch.equal(encoder.encode(batch, precision=dtype)[place], alone)


def test_batches_are_shared_out_over_places_one_at_a_time_each() -> None:
    pictures = slides((40,))
    modules = [Alone() for _ in range(3)]
    places = [EncodingPlace(toy(module), "cpu") for module in modules]
    with BatchStream(places, batch_tiles=4, tile_px=SIDE, precision="float32") as running:
        features = SlideFeatures()
        running.add(features, pictures[0], np.arange(40))
        running.flush()
        running.collect(wait=True)
    np.testing.assert_allclose(features.array(), expected(pictures[0]), atol=1e-6)
    assert sum(len(module.seen) for module in modules) == 10
    assert all(module.seen for module in modules)


class Alone(Means):
    """Fails if it is called while it is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        assert self.lock.acquire(blocking=False)
        time.sleep(0.02)
        try:
            return super().forward(images)
        finally:
            self.lock.release()
