"""Encoders kept and given up; float32 that is float32 while batches are encoded, and what it was before afterwards."""

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract import release_encoders
from pathoml.extract.built import built_encoder
from pathoml.extract.stream import BatchStream, EncodingPlace
from pathoml.extract_settings import ExtractSettings


class Watching(nn.Module):
    """Remembers whether faster and rounder products were allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[tuple[bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.allowed.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return images.mean(dim=(2, 3))


def encoder(module: nn.Module) -> Encoder:
    return Encoder("toy", module, 3, 0.5, 16, (0.0,) * 3, (1.0,) * 3, "e" * 64, "", "")


@pytest.fixture
def _tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("_tf32")
@pytest.mark.parametrize(("precision", "allowed"), [("float32", (False, False)), ("bfloat16", (True, True))])
def test_float32_is_exact_while_batches_run_and_what_it_was_afterwards(
    precision: str, allowed: tuple[bool, bool]
) -> None:
    module = Watching()
    with BatchStream([EncodingPlace(encoder(module), "cpu")], batch_tiles=2, tile_px=16, precision=precision) as stream:
        stream._encode(stream._batch())
    assert module.allowed == [allowed]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (True, True)


@pytest.mark.usefixtures("_tf32")
def test_an_error_in_between_leaves_the_state_as_it_was() -> None:
    places = [EncodingPlace(encoder(Watching()), "cpu")]
    with (
        pytest.raises(KeyboardInterrupt, match="now"),
        BatchStream(places, batch_tiles=2, tile_px=16, precision="float32"),
    ):
        raise KeyboardInterrupt("now")
    assert torch.backends.cudnn.allow_tf32


def test_an_encoder_is_kept_until_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.encoders.build.build_encoder", lambda _: encoder(Watching()))
    release_encoders()
    built = built_encoder(Lite0Settings(), ExtractSettings(), "cpu")
    assert built_encoder(Lite0Settings(), ExtractSettings(), "cpu") is built
    module = weakref.ref(built.module)
    del built
    gc.collect()
    assert module() is not None
    release_encoders()
    assert module() is None
