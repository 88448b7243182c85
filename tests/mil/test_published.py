"""Checkpoints of other tools give the logits of the networks they come from, spelt out here from their parameters."""

import hashlib
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from pathoml.errors import EncoderError
from pathoml.mil.packed import pack
from pathoml.mil.published import read_published_head
from pathoml.mil.settings import AbmilSettings, AggregatorSettings, ClamSettings, ModelSettings, PublishedSettings
from pathoml.train import fit_member
from tests.planted import QUICK, data, one_fold

DIM, HIDDEN, BRANCH, CLASSES = 12, 8, 5, 2


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def linear(name: str, out: int, into: int) -> dict[str, Tensor]:
    return {f"{name}.weight": numbers(out, into) * 0.3, f"{name}.bias": numbers(out) * 0.1}


def clam_state(place: int) -> dict[str, Tensor]:
    """Keys of CLAM_SB: https://github.com/mahmoodlab/CLAM/blob/master/models/model_clam.py."""
    inside = f"attention_net.{place}"
    state = {
        **linear("attention_net.0", HIDDEN, DIM), **linear(f"{inside}.attention_a.0", BRANCH, HIDDEN),
        **linear(f"{inside}.attention_b.0", BRANCH, HIDDEN), **linear(f"{inside}.attention_c", 1, BRANCH),
        **linear("classifiers", CLASSES, HIDDEN),
    }  # fmt: skip
    for number in range(CLASSES):
        state |= linear(f"instance_classifiers.{number}", 2, HIDDEN)
    return state


def abmil_state() -> dict[str, Tensor]:
    """Keys of ABMIL: https://github.com/dazhangyu123/ACMIL/blob/main/architecture/transformer.py."""
    return {
        "dimreduction.fc1.weight": numbers(HIDDEN, DIM) * 0.3, **linear("attention.attention_V.0", BRANCH, HIDDEN),
        **linear("attention.attention_U.0", BRANCH, HIDDEN), **linear("attention.attention_weights", 1, BRANCH),
        **linear("classifier.fc", CLASSES, HIDDEN),
    }  # fmt: skip


def spelt_out(state: dict[str, Tensor], names: tuple[str, ...], tiles: Tensor) -> Tensor:
    embed, tanh, gate, score, head = names

    def layer(name: str, values: Tensor) -> Tensor:
        return values @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))

    hidden = torch.relu(layer(embed, tiles))
    attention = torch.softmax(layer(score, torch.tanh(layer(tanh, hidden)) * torch.sigmoid(layer(gate, hidden))), dim=0)
    return layer(head, attention.T @ hidden)[0]


def write(path: Path, state: dict[str, Tensor]) -> str:
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", [2, 3])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_clam_gives_the_published_logits(tmp_path: Path, place: int, prefix: str) -> None:
    state, tiles = clam_state(place), numbers(30, DIM)
    digest = write(tmp_path / "clam.pt", {f"{prefix}{key}": value for key, value in state.items()})
    head = read_published_head(tmp_path / "clam.pt", "clam", digest)
    inside = f"attention_net.{place}"
    names = (
        "attention_net.0",
        f"{inside}.attention_a.0",
        f"{inside}.attention_b.0",
        f"{inside}.attention_c",
        "classifiers",
    )
    found = head.aggregator(pack([tiles])).logits[0] + head.bias
    torch.testing.assert_close(found, spelt_out(state, names, tiles), rtol=1e-5, atol=1e-6)


def test_gated_abmil_gives_the_published_logits(tmp_path: Path) -> None:
    state, tiles = abmil_state(), numbers(30, DIM)
    head = read_published_head(tmp_path / "a.pth", "abmil", write(tmp_path / "a.pth", state))
    names = (
        "dimreduction.fc1", "attention.attention_V.0", "attention.attention_U.0", "attention.attention_weights",
        "classifier.fc",
    )  # fmt: skip
    found = head.aggregator(pack([tiles])).logits[0] + head.bias
    torch.testing.assert_close(found, spelt_out(state, names, tiles), rtol=1e-5, atol=1e-6)


def test_another_layout_or_another_file_is_refused(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.pth", abmil_state())
    with pytest.raises(EncoderError, match="no CLAM_SB"):
        read_published_head(tmp_path / "a.pth", "clam", digest)
    with pytest.raises(EncoderError, match="SHA-256"):
        read_published_head(tmp_path / "a.pth", "abmil", "0" * 64)
    broken = abmil_state()
    del broken["attention.attention_weights.bias"]
    with pytest.raises(EncoderError):
        read_published_head(tmp_path / "b.pth", "abmil", write(tmp_path / "b.pth", broken))


class Code:
    def __reduce__(self) -> tuple:
        return (print, ("code of another party was run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"classifiers.weight": Code()}, tmp_path / "evil.pt")
    digest = hashlib.sha256((tmp_path / "evil.pt").read_bytes()).hexdigest()
    with pytest.raises(EncoderError):
        read_published_head(tmp_path / "evil.pt", "clam", digest)
    assert "code of another" not in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["clam", "abmil"])
def test_training_starts_from_published_weights(tmp_path: Path, layout: Literal["clam", "abmil"]) -> None:
    state = {"clam": clam_state(3), "abmil": abmil_state()}[layout]
    first = "attention_net.0" if layout == "clam" else "dimreduction.fc1"
    state[f"{first}.weight"] = state[f"{first}.weight"][:, :6].contiguous()
    digest = write(tmp_path / "weights.pt", state)
    start = PublishedSettings(layout=layout, weights=tmp_path / "weights.pt", sha256=digest)
    sizes = {"hidden_dim": HIDDEN, "attention_dim": BRANCH}
    head: AggregatorSettings = ClamSettings(**sizes) if layout == "clam" else AbmilSettings(**sizes)
    settings = ModelSettings(aggregator=head, tile_components=None, start=start)
    everything = data(60)
    still = QUICK.model_copy(update={"max_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0})
    member, _ = fit_member(everything, one_fold(everything), settings, still)
    found = member.model.state_dict()
    torch.testing.assert_close(found["slides.embed.0.weight"], state[f"{first}.weight"])
    assert member.projection is not None
    tiles = everything.features.of_patient["patient-000"]
    assert (member.projection.apply(tiles) == tiles.astype("float32")).all()
    other = settings.model_copy(update={"aggregator": head.model_copy(update={"hidden_dim": 16})})
    with pytest.raises(EncoderError, match=f"hidden_dim {HIDDEN}, attention_dim {BRANCH}; the bags have 6 columns"):
        fit_member(everything, one_fold(everything), other, still)


def test_published_weights_go_with_their_own_kind_and_plain_features(tmp_path: Path) -> None:
    start = PublishedSettings(layout="clam", weights=tmp_path / "w.pt", sha256="0" * 64)
    with pytest.raises(ValueError, match="goes with aggregator kind clam"):
        ModelSettings(start=start, tile_components=None)
    with pytest.raises(ValueError, match="set tile_components: null"):
        ModelSettings(aggregator=ClamSettings(), start=start)
