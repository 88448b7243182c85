"""Networks of registered encoders: sizes as published, weights under the names that they are published with, input as stated."""

import logging
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pathoml.encoders.architectures import ClassAndMeanTokens, build_architecture, build_for_weights
from pathoml.encoders.build import build_encoder, download_weights, load_published
from pathoml.encoders.record import Encoder
from pathoml.encoders.registry import EncoderRecord, encoder_records, find_record
from pathoml.encoders.settings import RegisteredSettings
from pathoml.errors import EncoderError
from pathoml.files import file_digest
from pathoml.pipeline.encoder_facts import verify_encoder

TILES = [record for record in encoder_records() if record.kind == "tile"]
RUN_FOR_REAL = ("kaiko_vits16", "ctranspath", "resnet50", "conch_v1")
SMALL = "kaiko_vits16"

COUNTED = {
    # Counted on published checkpoints by a public benchmark script, as transformers or timm load them.
    "hibou_b": (85741056, 2 * 768),  # has a mask token, and a position of the class token that the mapping adds to it
    "phikon": (85798656, 0),
    "uni_v1": (303350784, 0),
    "phikon_v2": (303351808, 1024),  # has a mask token
    "hibou_l": (303659264, 2 * 1024),
    "conch_v15": (
        306109184,
        -(28**2 - 14**2) * 1024,
    ),  # has the positions of a 14 x 14 grid and resamples them when it runs
    "virchow": (631229184, 0),
    "virchow2": (631239424, 0),
    "uni_v2": (681394176, 0),
    "hoptimus0": (1134774272, 0),
    "hoptimus1": (1134774272, 0),
    "gigapath": (1134953984, 0),
    "midnight12k": (1136480768, 1536 + (37**2 - 16**2) * 1536),  # a mask token, and the positions of a 518 px input
}
FILE_SIZES = {
    # Megabytes of model.safetensors on the hub pages (float32: four bytes a parameter).
    "lunit_vits8": 86.7, "lunit_vits16": 86.7, "kaiko_vits16": 86.7, "kaiko_vitb8": 343, "kaiko_vitb16": 343,
    "kaiko_vitl14": 1220, "hibou_b": 343,
}  # fmt: skip


@cache
def without_memory(name: str) -> nn.Module:
    return build_architecture(find_record(name), "meta")


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.inference_mode()
def with_random_weights(name: str) -> nn.Module:
    """Build a network on the CPU with small random weights, far quicker than timm draws them."""
    torch.manual_seed(0)
    module = build_for_weights(find_record(name))
    if any(parameter.is_meta for parameter in module.parameters()):
        module = module.to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.normal_(0, 0.02)
    for buffer_name, buffer in module.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            buffer.fill_(buffer_name.endswith("running_var"))
    return module


def published(text: str) -> tuple[float, float]:
    """Return a published number and half of its last digit."""
    digits, unit = re.fullmatch(r"([\d.]+)([MB]?)", text).groups()  # type: ignore[union-attr]
    scale = {"": 1, "M": 1e6, "B": 1e9}[unit]
    places = len(digits.partition(".")[2])
    return float(digits) * scale, 0.5 * scale * 10.0**-places


@pytest.mark.parametrize("record", TILES, ids=lambda record: record.name)
@torch.inference_mode()
def test_a_network_gives_the_stated_features_at_the_stated_input(record: EncoderRecord) -> None:
    device = "cpu" if record.name in RUN_FOR_REAL else "meta"
    module = without_memory(record.name) if device == "meta" else with_random_weights(record.name)
    assert not module.training
    features = module(torch.rand(1, 3, record.input_px, record.input_px, device=device))
    assert features.shape == (1, record.dim)
    assert device == "meta" or bool(features.isfinite().all())


@pytest.mark.parametrize("record", [one for one in TILES if one.parameters], ids=lambda record: record.name)
def test_a_network_is_as_large_as_published_to_the_precision_published(record: EncoderRecord) -> None:
    number, half = published(record.parameters)
    unused = COUNTED.get(record.name, (0, 0))[1]
    assert abs(parameters_of(without_memory(record.name)) + unused - number) <= half


@pytest.mark.parametrize("name", COUNTED)
def test_a_network_has_exactly_the_parameters_counted_on_the_checkpoint(name: str) -> None:
    counted, unused = COUNTED[name]
    assert parameters_of(without_memory(name)) + unused == counted


@pytest.mark.parametrize("name", FILE_SIZES)
def test_a_network_fills_the_published_file(name: str) -> None:
    size = 4e-6 * parameters_of(without_memory(name))
    assert float(f"{size:.3g}") == FILE_SIZES[name]


def test_the_truncated_resnet_is_resnet50_less_its_last_stage() -> None:
    """torchvision's documentation gives 25,557,032 parameters for all of it."""
    with torch.device("meta"):
        whole = timm.create_model("resnet50", pretrained=False)
    assert parameters_of(whole) == 25_557_032
    rest = parameters_of(whole.layer4) + parameters_of(whole.fc)
    assert parameters_of(without_memory("resnet50")) == 25_557_032 - rest


@torch.inference_mode()
def test_the_truncated_resnet_averages_the_third_stage() -> None:
    module, images = with_random_weights("resnet50"), torch.rand(2, 3, 64, 64)
    seen: list[Tensor] = []
    module.network.layer3.register_forward_hook(lambda *hook: seen.append(hook[2]))
    features = module(images)
    assert torch.equal(features, seen[0].flatten(2).mean(dim=2))


@torch.inference_mode()
@pytest.mark.parametrize("registers", [0, 4])
def test_class_and_mean_tokens_leave_registers_out(registers: int) -> None:
    class Tokens(nn.Module):
        num_prefix_tokens = 1 + registers

        def forward_features(self, images: Tensor) -> Tensor:
            return images

    prefix = torch.tensor([[5.0, -5.0]] + [[1000.0, 1000.0]] * registers)
    patches = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
    found = ClassAndMeanTokens(Tokens())(torch.cat([prefix, patches])[None])
    assert found.tolist() == [[5.0, -5.0, 3.0, 5.0]]


@pytest.mark.parametrize(("name", "prefix"), [("virchow", 1), ("virchow2", 5), ("h0-mini", 5), ("midnight12k", 1)])
def test_encoders_of_class_and_mean_tokens_know_how_many_come_before_the_patches(name: str, prefix: int) -> None:
    module = without_memory(name)
    assert isinstance(module, ClassAndMeanTokens)
    assert module.network.num_prefix_tokens == prefix


# Saved and loaded back


def settings_for(path: Path, name: str, **changes: Any) -> RegisteredSettings:
    return RegisteredSettings(**{"name": name, "weights": path, "sha256": file_digest(path), **changes})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A random network of a small encoder, and its weights as its hub page would have them."""
    module = with_random_weights(SMALL)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(module.state_dict(), path)
    return module, path


def random_tiles(side: int, count: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_weights_from_a_file_give_the_output_of_the_network_that_was_saved(small: tuple[nn.Module, Path]) -> None:
    module, path = small
    encoder = build_encoder(settings_for(path, SMALL))
    tiles = random_tiles(224, 2)
    expected = module((tiles.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(encoder.encode(tiles, precision=torch.float32), expected, rtol=1e-4, atol=1e-5)
    assert (encoder.weights_digest, encoder.name) == (file_digest(path), f"{SMALL}-{file_digest(path)[:8]}")
    assert (encoder.dim, encoder.mpp, encoder.tile_px, encoder.licence) == (384, 0.5, 224, "Kaiko non-commercial")
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


@torch.inference_mode()
def test_weights_under_old_names_inside_a_checkpoint_are_found(tmp_path: Path) -> None:
    """Names of timm 0.5, as in TransPath's file (listed by TRIDENT): stages end with their downsampling, masks are kept."""
    module, record = with_random_weights("ctranspath"), find_record("ctranspath")
    old = {
        re.sub(r"^layers\.(\d)\.downsample", lambda at: f"layers.{int(at[1]) - 1}.downsample", key): value
        for key, value in module.state_dict().items()
    }
    assert "layers.0.downsample.reduction.weight" in old
    assert "layers.3.downsample.reduction.weight" not in old
    old |= {"layers.0.blocks.1.attn_mask": torch.ones(1), "layers.0.blocks.0.attn.relative_position_index": torch.ones(1),
            "head.weight": torch.ones(1000, 768), "head.bias": torch.ones(1000)}  # fmt: skip
    torch.save({"model": old}, tmp_path / "ctranspath.pth")
    encoder = build_encoder(settings_for(tmp_path / "ctranspath.pth", "ctranspath"))
    tiles = random_tiles(224)
    mean, std = (torch.tensor(value)[:, None, None] for value in (record.mean, record.std))
    expected = module((tiles.permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(encoder.encode(tiles, precision=torch.float32), expected, rtol=1e-3, atol=1e-4)


def test_weights_of_another_encoder_are_refused_by_what_is_missing(small: tuple[nn.Module, Path]) -> None:
    with pytest.raises(
        EncoderError, match=r"do not fit the architecture: 0 missing.* 0 unknown.* \d+ of another shape"
    ):
        build_encoder(settings_for(small[1], "kaiko_vits8"))
    with pytest.raises(EncoderError, match=r"model\.safetensors are not those of musk: they have no tensor 'beit3"):
        load_published(nn.Identity(), find_record("musk"), small[1], None)


def test_weights_of_another_digest_are_refused(small: tuple[nn.Module, Path]) -> None:
    with pytest.raises(EncoderError, match=f"SHA-256 is {file_digest(small[1])}, the configuration says 0{{64}}"):
        build_encoder(settings_for(small[1], SMALL, sha256="0" * 64))


def test_verifying_says_what_was_and_what_was_not_verified(small: tuple[nn.Module, Path]) -> None:
    without = dict(verify_encoder(SMALL, None, None))
    assert without["Network"] == "built; 21,665,664 parameters"
    assert without["Weights"].startswith("not verified")
    assert without["Published features"].startswith("not verified")
    unchecked = dict(verify_encoder(SMALL, small[1], None))["Weights"]
    assert file_digest(small[1]) in unchecked
    assert "not compared" in unchecked
    assert "as given; none is published" in dict(verify_encoder(SMALL, small[1], file_digest(small[1])))["Weights"]
    with pytest.raises(EncoderError, match=r"the configuration says 0{64}"):
        verify_encoder(SMALL, small[1], "0" * 64)


@pytest.mark.parametrize("same", [True, False])
def test_verifying_compares_with_the_published_digest(
    small: tuple[nn.Module, Path], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = file_digest(small[1])
    record = replace(find_record(SMALL), sha256=digest if same else "1" * 64)
    monkeypatch.setattr("pathoml.pipeline.encoder_facts.find_record", lambda _: record)
    said = dict(verify_encoder(SMALL, small[1], None))["Weights"]
    assert said.endswith("the published one" if same else f"not the published one, {'1' * 64}")


# The hub, without a network


def test_weights_come_from_the_recorded_commit(small: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def fetched(repository: str, file: str, *, revision: str | None) -> str:
        asked.append((repository, file, revision))
        return str(small[1])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    encoder = build_encoder(RegisteredSettings(name=SMALL))
    record = find_record(SMALL)
    assert asked == [(record.hub_id, "model.safetensors", record.revision)]
    assert encoder.weights_digest == file_digest(small[1])
    with pytest.raises(EncoderError, match=r"the configuration says 0{64}"):
        build_encoder(RegisteredSettings(name=SMALL, sha256="0" * 64))


def refusing(error: Exception) -> Any:
    def refuse(*_: object, **__: object) -> str:
        raise error

    return refuse


def test_attempts_of_the_hubs_library_are_not_told_one_by_one(
    small: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def fetched(*_: object, **__: object) -> str:
        heard.append(logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING))
        return str(small[1])

    before = huggingface_hub.logging.get_verbosity()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    download_weights(find_record(SMALL))
    assert heard == [False]
    assert huggingface_hub.logging.get_verbosity() == before


def gated() -> GatedRepoError:
    answer: Any = SimpleNamespace(headers={}, request=None)
    return GatedRepoError("access is restricted", response=answer)


def test_a_gated_encoder_says_what_to_accept_and_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.encoders.build.build_for_weights", lambda _: nn.Identity())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refusing(gated()))
    with pytest.raises(
        EncoderError,
        match=r"virchow2: paige-ai/Virchow2 is gated; accept the terms.*HF_TOKEN, or download.*encoder\.sha256",
    ):
        build_encoder(RegisteredSettings(name="virchow2"))


@pytest.mark.parametrize(
    ("name", "said"), [("phikon", "check the network, or download"), ("uni_v1", "accept the terms")]
)
def test_without_a_network_an_encoder_says_what_to_do(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.encoders.build.build_for_weights", lambda _: nn.Identity())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refusing(LocalEntryNotFoundError("no connection")))
    with pytest.raises(EncoderError, match=rf"{name}: .* cannot be had \(no connection\).*{said}.*encoder\.sha256"):
        build_encoder(RegisteredSettings(name=name))


@pytest.mark.parametrize(
    ("name", "where"), [("ctranspath", "of its authors"), ("keep", "on its page Astaxanthin/KEEP")]
)
def test_an_encoder_without_a_known_file_asks_for_it(name: str, where: str) -> None:
    with pytest.raises(
        EncoderError, match=f"{name}: the registry names no weights file {where}; download the file and give"
    ):
        download_weights(replace(find_record(name), weights_file=""))


# Input


class Centre(nn.Module):
    """Gives the whole input back, a pixel a column."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def encoder_of(**changes: Any) -> Encoder:
    values: dict[str, Any] = {
        "name": "e", "module": Centre(), "dim": 1, "mpp": 0.5, "tile_px": 256, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0),
        "weights_digest": "", "licence": "", "pretraining": "",
    }  # fmt: skip
    return Encoder(**{**values, **changes})


def seen_by(encoder: Encoder, tiles: Tensor) -> Tensor:
    """Return what the network was given, as (batch, height, width, 3) of 0-255."""
    flat = encoder.encode(tiles, precision=torch.float32) * 255
    side = round((flat.shape[1] / 3) ** 0.5)
    return flat.reshape(len(tiles), 3, side, side).permute(0, 2, 3, 1)


def test_tiles_of_the_input_size_are_taken_as_they_are() -> None:
    tiles = random_tiles(256)
    torch.testing.assert_close(seen_by(encoder_of(), tiles), tiles.float(), rtol=0, atol=1e-3)


def test_the_centre_is_cropped_where_the_record_says_so() -> None:
    tiles = random_tiles(256)
    found = seen_by(encoder_of(resize_px=256, input_px=224), tiles)
    torch.testing.assert_close(found, tiles[:, 16:240, 16:240].float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("how", "in_pillow"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("side", [256, 512])
def test_tiles_are_resized_as_pillow_does(side: int, how: str, in_pillow: Image.Resampling) -> None:
    tiles = random_tiles(side) // 2 + 64  # Pillow cuts what is beyond black and white off between its two passes
    found = seen_by(encoder_of(tile_px=side, resize_px=224, input_px=224, interpolation=how), tiles)
    pillow = np.array(Image.fromarray(tiles[0].numpy()).resize((224, 224), in_pillow))
    assert float((found[0] - torch.from_numpy(pillow).float()).abs().max()) <= 1.3, "Pillow rounds in each direction"


def test_resizing_goes_beyond_neither_black_nor_white() -> None:
    stripes = (
        (torch.arange(256) // 8 % 2 * 255).to(torch.uint8).expand(1, 256, 256).unsqueeze(-1).expand(1, 256, 256, 3)
    )
    found = seen_by(encoder_of(resize_px=224, input_px=224, interpolation="bicubic"), stripes)
    assert 0 <= float(found.min()) < 1e-3
    assert 255 - 1e-3 < float(found.max()) <= 255 + 1e-3


def test_other_tiles_are_refused_unless_asked_for_and_then_resized_and_cropped_alike() -> None:
    crop = {"resize_px": 256, "input_px": 224}
    with pytest.raises(EncoderError, match=r"takes 256 px tiles at 0\.5 mpp, tiling makes 512 px at 0\.25"):
        encoder_of(**crop).check_tiles(target_mpp=0.25, tile_px=512)
    other = encoder_of(**crop, other_tiles=True)
    other.check_tiles(target_mpp=0.25, tile_px=512)
    tiles = random_tiles(512)
    resized = seen_by(encoder_of(tile_px=512, resize_px=256, input_px=256), tiles)
    torch.testing.assert_close(seen_by(other, tiles), resized[:, 16:240, 16:240], rtol=0, atol=1e-3)


def test_a_record_reaches_the_encoder_with_its_input(
    small: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(find_record(SMALL), tile_px=256, resize_px=256, interpolation="bicubic")
    monkeypatch.setattr("pathoml.encoders.build.find_record", lambda _: record)
    encoder = build_encoder(settings_for(small[1], SMALL, other_tiles=True))
    assert (encoder.tile_px, encoder.resize_px, encoder.input_px, encoder.other_tiles) == (256, 256, 224, True)
    assert encoder.interpolation == "bicubic"
    tiles = random_tiles(256)
    alone = encoder.encode(tiles, precision=torch.float32)
    torch.testing.assert_close(alone, replace(encoder, resize_px=224, tile_px=224).encode(
        tiles[:, 16:240, 16:240], precision=torch.float32), rtol=1e-3, atol=1e-4)  # fmt: skip
