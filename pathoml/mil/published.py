"""Published weights of attention heads, read into ours: parameter layouts of other tools."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pathoml.errors import EncoderError
from pathoml.mil.abmil import Abmil
from pathoml.mil.aggregator import Aggregator
from pathoml.mil.clam import ClamSb
from pathoml.mil.settings import AbmilSettings, ClamSettings, PublishedSettings
from pathoml.weights import check_fit, read_checked_weights

Layout = Literal["clam", "abmil"]


class PublishedHead(NamedTuple):
    """A head with published weights.

    Parameters
    ----------
    aggregator : ClamSb or Abmil
        In evaluation mode.
    bias : Tensor, shape (out,)
        What the published classifier adds to the logits; ours has that beside the aggregator.
    """

    aggregator: Abmil
    bias: Tensor


def read_published_head(path: Path, layout: Layout, sha256: str) -> PublishedHead:
    """Read a checkpoint of another tool, running no code of it.

    Parameters
    ----------
    path : Path
        State dict, ``.pt``, ``.pth`` or ``.safetensors``.
    layout : str
        ``clam``: CLAM_SB of mahmoodlab/CLAM, models/model_clam.py, with a gated attention network, from before and after its
        dropout layers became fixed; ``abmil``: ABMIL of dazhangyu123/ACMIL, architecture/transformer.py.
    sha256 : str
        What the file's SHA-256 has to be.

    Returns
    -------
    PublishedHead
        Gives the logits that the published network gives.

    Raises
    ------
    EncoderError
        If the file is missing, another one, no plain state dict, or of another layout.
    """
    state = read_checked_weights(path, sha256)
    named = {re.sub(r"^module\.", "", key): value.float() for key, value in state.items()}
    return _clam(path.name, named) if layout == "clam" else _abmil(path.name, named)


def start_from(aggregator: Aggregator, settings: PublishedSettings) -> None:
    """Put published weights into a head that is to be trained further.

    The layer that ends in logits is taken over only if it has as many; else it stays as it is.

    Parameters
    ----------
    aggregator : ClamSb or Abmil
        Changed in place.
    settings : PublishedSettings
        Which.

    Raises
    ------
    EncoderError
        As `read_published_head`, or if the weights are of another width; the message says which settings they need.
    """
    head = read_published_head(settings.weights, settings.layout, settings.sha256)
    theirs, ours = head.aggregator.state_dict(), aggregator.state_dict()
    end = "head.weight"
    chosen = {key: value for key, value in theirs.items() if key != end or value.shape == ours[end].shape}
    wrong = [key for key, value in chosen.items() if value.shape != ours[key].shape]
    if wrong:
        hidden, dim = theirs["embed.0.weight"].shape
        raise EncoderError(
            f"weights {settings.weights.name}: made for features of {dim} columns, hidden_dim {hidden}, attention_dim"
            f" {len(theirs['attention.attend.weight'])}; the bags have {ours['embed.0.weight'].shape[1]} columns, the model"
            f" hidden_dim {len(ours['embed.0.weight'])}, attention_dim {len(ours['attention.attend.weight'])}."
            " Set both in model.aggregator, or use the encoder that the weights were made for"
        )
    with torch.no_grad():
        for key, value in chosen.items():
            ours[key].copy_(value)


def _clam(name: str, state: dict[str, Tensor]) -> PublishedHead:
    found = next((one for one in ("3", "2") if f"attention_net.{one}.attention_a.0.weight" in state), None)
    if found is None or "classifiers.weight" not in state:
        raise EncoderError(
            f"weights {name}: no CLAM_SB with gated attention (it has {_some(state)}); choose another layout"
        )
    inside = f"attention_net.{found}."
    ours = {
        **_pair(state, "attention_net.0", "embed.0"),
        **_pair(state, f"{inside}attention_a.0", "attention.attend"),
        **_pair(state, f"{inside}attention_b.0", "attention.gate"),
        **_pair(state, f"{inside}attention_c", "attention.score"),
        "head.weight": state["classifiers.weight"],
        # Of its instance classifiers, one a class, ours has one: that of the last class.
        **_pair(state, f"instance_classifiers.{len(state['classifiers.weight']) - 1}", "tell_apart"),
    }
    hidden, dim = state["attention_net.0.weight"].shape
    settings = ClamSettings(hidden_dim=hidden, attention_dim=len(state[f"{inside}attention_a.0.weight"]), dropout=0.25)
    head = ClamSb(settings, dim, len(state["classifiers.weight"]))
    return _filled(name, head, ours, state["classifiers.bias"])


def _abmil(name: str, state: dict[str, Tensor]) -> PublishedHead:
    wanted = ("dimreduction.fc1.weight", "attention.attention_V.0.weight", "classifier.fc.weight")
    if any(one not in state for one in wanted):
        raise EncoderError(f"weights {name}: no gated ABMIL (it has {_some(state)}); choose another layout")
    hidden, dim = state["dimreduction.fc1.weight"].shape
    ours = {
        "embed.0.weight": state["dimreduction.fc1.weight"],
        "embed.0.bias": state.get("dimreduction.fc1.bias", torch.zeros(hidden)),
        **_pair(state, "attention.attention_V.0", "attention.attend"),
        **_pair(state, "attention.attention_U.0", "attention.gate"),
        **_pair(state, "attention.attention_weights", "attention.score"),
        "head.weight": state["classifier.fc.weight"],
    }
    settings = AbmilSettings(
        hidden_dim=hidden, attention_dim=len(state["attention.attention_V.0.weight"]), dropout=0.25
    )
    head = Abmil(settings, dim, len(state["classifier.fc.weight"]))
    return _filled(name, head, ours, state["classifier.fc.bias"])


def _pair(state: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias") if f"{theirs}.{part}" in state}


def _filled(name: str, head: Abmil, state: dict[str, Tensor], bias: Tensor) -> PublishedHead:
    check_fit(head, state, f"weights {name}")
    head.load_state_dict(state)
    return PublishedHead(head.eval(), bias)


def _some(state: dict[str, Tensor]) -> str:
    return ", ".join(sorted(state)[:4]) + ", ..."
