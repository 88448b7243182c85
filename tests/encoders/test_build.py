"""Encoders know what they should know, and weights are what they claim to be."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest
import timm
import torch
from matplotlib.image import imread
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from pathoml.encoders.build import build_encoder, fold_batch_norm, lite0_network, state_digest
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings, LocalSettings, TimmSettings
from pathoml.errors import EncoderError
from pathoml.files import file_digest
from pathoml.weights import read_weights

VIT, SMALL = "vit_tiny_patch16_224", "test_vit"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return lite0_network()


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Grace Hopper, a Chinese temple, a flower: 224 px, by area averaging of the middle square."""
    hopper = imread(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return [middle_square(image) for image in (hopper, *load_sample_images().images)]


def middle_square(image: np.ndarray) -> np.ndarray:
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    return np.asarray(cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA))


def normalised(images: list[np.ndarray]) -> Tensor:
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


@torch.inference_mode()
def three_best(network: nn.Module, image: np.ndarray) -> list[int]:
    return network(normalised([image]))[0].topk(3).indices.tolist()


def test_lite0_sees_a_military_uniform_on_grace_hopper(network: nn.Module, photographs: list[np.ndarray]) -> None:
    """Class 653 of the 1001 that TensorFlow's examples use for this photograph, 652 of ImageNet's 1000."""
    assert three_best(network, photographs[0])[0] == 652


def test_lite0_sees_a_palace_or_a_monastery_in_china(network: nn.Module, photographs: list[np.ndarray]) -> None:
    assert {663, 698} & set(three_best(network, photographs[1])), "663 monastery, 698 palace"


def test_lite0_sees_a_daisy_in_a_flower(network: nn.Module, photographs: list[np.ndarray]) -> None:
    assert three_best(network, photographs[2])[0] == 985


@torch.inference_mode()
def test_folding_batch_norm_changes_nothing_but_rounding(network: nn.Module, photographs: list[np.ndarray]) -> None:
    folded = lite0_network()
    fold_batch_norm(folded)
    assert sum("running_mean" in name for name in folded.state_dict()) == 0, "nothing left to fold"
    images = normalised(photographs)
    expected, found = network(images), folded(images)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@torch.inference_mode()
def test_stages_are_the_means_of_the_strides_8_and_16(network: nn.Module, photographs: list[np.ndarray]) -> None:
    seen: list[Tensor] = []
    handles = [network.blocks[index].register_forward_hook(lambda *hook: seen.append(hook[2])) for index in (2, 4)]
    network(normalised(photographs))
    for handle in handles:
        handle.remove()
    assert [one.shape[1:] for one in seen] == [(40, 28, 28), (112, 14, 14)]
    expected = torch.cat([one.mean(dim=(2, 3)) for one in seen], dim=1)
    encoder = build_encoder(Lite0Settings())
    found = encoder.encode(torch.from_numpy(np.stack(photographs)), precision=torch.float32)
    assert found.shape == (3, encoder.dim)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@torch.inference_mode()
def test_head_is_what_the_classifier_sees(network: nn.Module, photographs: list[np.ndarray]) -> None:
    encoder = build_encoder(Lite0Settings(features="head"))
    features = encoder.encode(torch.from_numpy(np.stack(photographs)), precision=torch.float32)
    assert features.shape == (3, encoder.dim)
    logits = network.classifier(features)
    torch.testing.assert_close(logits, network(normalised(photographs)), rtol=1e-3, atol=1e-3)


def test_an_encoder_is_frozen_and_says_what_it_is() -> None:
    encoder = build_encoder(Lite0Settings())
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    assert (encoder.tile_px, encoder.mpp, encoder.licence) == (224, 0.5, "Apache-2.0")
    assert "natural images" in encoder.pretraining
    assert len(encoder.weights_digest) == 64


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model(VIT, pretrained=False).eval()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """One of the miniatures that timm keeps for tests."""
    return timm.create_model(SMALL, pretrained=False).eval()


def saved(network: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return path


def local(path: Path, **changes: str) -> LocalSettings:
    return LocalSettings(**{"architecture": SMALL, "weights": path, "sha256": file_digest(path), **changes})


@torch.inference_mode()
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_local_weights_give_the_output_of_the_network_that_was_saved(
    vit: nn.Module, tmp_path: Path, suffix: str
) -> None:
    path = saved(vit, tmp_path / f"w.{suffix}")
    encoder = build_encoder(local(path, architecture=VIT))
    tiles = torch.randint(0, 255, (2, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = (tiles.permute(0, 3, 1, 2) / 255 - mean) / std
    expected = vit.forward_head(vit.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder.encode(tiles, precision=torch.float32), expected, rtol=1e-4, atol=1e-5)
    assert encoder.weights_digest == file_digest(path)
    assert encoder.dim == 192


def test_weights_of_another_digest_are_refused(small: nn.Module, tmp_path: Path) -> None:
    path = saved(small, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=f"SHA-256 is {file_digest(path)}, the configuration says 0{{64}}"):
        build_encoder(local(path, sha256="0" * 64))


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"gone\.pth: no such file"):
        build_encoder(LocalSettings(architecture=SMALL, weights=tmp_path / "gone.pth", sha256="0" * 64))


class Trojan:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("trojan",)


@pytest.mark.parametrize(
    ("suffix", "said"),
    [("pth", "the file holds more than tensors.*can run code"), ("safetensors", "but one of PyTorch; call it .pth")],
)
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(1), "code": Trojan()}, tmp_path / f"w.{suffix}")
    with pytest.raises(EncoderError, match=rf"w\.{suffix}: .*{said}"):
        build_encoder(local(tmp_path / f"w.{suffix}"))
    assert not (tmp_path / "trojan").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; download it again"),
        (b"<!doctype html><p>please log in", "the file is a text .* perhaps the page of a login; download it again"),
        (b"not weights at all", "(none of PyTorch|none of safetensors).*; download it again"),
        (b"\xff" * 64, "(none of PyTorch|none of safetensors).*; download it again"),
        (b"J\xb39\xc0a\xa3\x9c,\x8cwi6\x84f\xd5", "(none of PyTorch|none of safetensors).*; download it again"),
    ],
    ids=["empty", "page", "text", "bytes", "what PyTorch takes for an instruction"],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_holds_no_weights_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, suffix: str, said: str
) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=rf"w\.{suffix}: .*{said}") as refused:
        build_encoder(local(path))
    assert "Traceback" not in str(refused.value)
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_download_that_was_cut_short_says_so(tmp_path: Path, share: float, suffix: str) -> None:
    whole = tmp_path / "whole"
    state = {"weight": torch.ones(300, 300)}
    if suffix == "pth":
        torch.save(state, whole)
    else:
        save_file(state, whole)
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(EncoderError, match=rf"w\.{suffix}: .*cut short or damaged; download it again"):
        read_weights(path)


def test_a_checkpoint_around_the_weights_is_refused(small: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": small.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="expected a dictionary of tensors"):
        build_encoder(local(tmp_path / "w.pth"))


def test_weights_that_lack_or_add_something_are_refused_by_name(small: nn.Module, tmp_path: Path) -> None:
    state = dict(small.state_dict())
    state["stranger"] = state.pop("norm.weight")
    state["norm.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        EncoderError, match=r"1 missing \(norm\.weight\), 1 unknown \(stranger\), 1 of another shape \(norm\.bias\)"
    ):
        build_encoder(local(tmp_path / "w.pth"))


def test_an_unknown_architecture_is_refused(small: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="architecture 'vit_nano' is unknown to timm"):
        build_encoder(local(saved(small, tmp_path / "w.pth"), architecture="vit_nano"))


def test_without_the_network_a_hub_encoder_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(EncoderError, match=r"resnet18: cannot be loaded \(no route to host\).*HF_TOKEN.*kind: local"):
        build_encoder(TimmSettings(name="resnet18"))


def build_without_download(vit: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: vit)
    return build_encoder(TimmSettings(name=VIT, mpp=0.25))


def test_a_hub_encoder_takes_its_input_from_timm(vit: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_without_download(vit, monkeypatch)
    assert (encoder.mpp, encoder.tile_px, encoder.mean) == (0.25, 224, (0.5, 0.5, 0.5))
    assert encoder.weights_digest == state_digest(vit.state_dict())


def test_the_digest_of_weights_depends_on_names_shapes_types_and_values_and_not_on_order() -> None:
    state = {"a": torch.arange(6.0), "b": torch.ones(2)}
    assert state_digest(dict(reversed(state.items()))) == state_digest(state)
    others = [
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0), "b": torch.ones(2).bfloat16()},
        {"a": torch.arange(6.0) + 1e-6, "b": torch.ones(2)},
    ]
    assert len({state_digest(one) for one in [state, *others]}) == 5
