"""What is told of an encoder's weights without building it is what the built encoder says."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from pathoml.encoders.build import build_encoder
from pathoml.encoders.registry import find_record
from pathoml.encoders.settings import Lite0Settings, LocalSettings, RegisteredSettings, TimmSettings
from pathoml.encoders.weights_identity import known_weights_digest
from pathoml.files import file_digest


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False, num_classes=0)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def test_it_is_what_the_built_encoder_says(weights: Path) -> None:
    local = LocalSettings(architecture="resnet18", weights=weights, sha256=file_digest(weights))
    for settings in (Lite0Settings(), local):
        assert known_weights_digest(settings) == build_encoder(settings).weights_digest


def test_a_published_encoder_goes_by_what_is_stated_then_by_its_file(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = RegisteredSettings(name="phikon", weights=weights, sha256="a" * 64)
    assert known_weights_digest(stated) == "a" * 64
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(weights))
    assert known_weights_digest(RegisteredSettings(name="phikon")) == file_digest(weights)


def test_a_file_that_changes_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.bin"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(path))
    for content in (b"first", b"other", b"longer"):
        path.write_bytes(content)
        assert known_weights_digest(RegisteredSettings(name="phikon")) == file_digest(path)
        time.sleep(0.02)


def test_what_is_not_there_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    assert find_record("phikon").hub_id
    assert known_weights_digest(RegisteredSettings(name="phikon")) is None
    assert known_weights_digest(TimmSettings(name="resnet18")) is None


def test_asking_loads_no_torch() -> None:
    program = """
import sys
import time
from pathoml.encoders.settings import Lite0Settings, RegisteredSettings
from pathoml.encoders.weights_identity import known_weights_digest
known_weights_digest(Lite0Settings()), known_weights_digest(RegisteredSettings(name="phikon"))
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
