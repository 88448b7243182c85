"""Weights files of networks: read without running code, checked by digest, and held against an architecture."""

import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pathoml.errors import EncoderError
from pathoml.files import file_digest

_UNREADABLE = (
    SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, AttributeError,
    TypeError, AssertionError, struct.error,
)  # fmt: skip
"""What the readers raise on damaged files: PyTorch's interprets bytes as instructions before it judges them."""
_TEXTS = (b"<", b"{", b"version https://git-lfs")
_PICKLE, _ZIP = b"\x80", b"PK"
"""How files begin that are pages or pointers, pickles as PyTorch wrote them once, and archives as it writes them now."""


def read_checked_weights(path: Path, sha256: str, *, inside: str = "") -> dict[str, Tensor]:
    """Read a state dict whose digest is known.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or ``.pth`` and the like, read with ``weights_only``.
    sha256 : str
        What its SHA-256 has to be.
    inside : str, optional
        Key of the dictionary under which the file may keep the state dict.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    EncoderError
        If the file is missing, another one, or no plain state dict.
    """
    if not path.is_file():
        raise EncoderError(f"weights {path}: no such file")
    digest = file_digest(path)
    if digest != sha256:
        raise EncoderError(f"weights {path.name}: SHA-256 is {digest}, the configuration says {sha256}")
    return read_weights(path, inside=inside)


def read_weights(path: Path, *, inside: str = "") -> dict[str, Tensor]:
    """Read a state dict, running no code.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or ``.pth`` and the like, read with ``weights_only``.
    inside : str, optional
        Key of the dictionary under which the file may keep the state dict.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    EncoderError
        If the file holds anything but a plain state dict.
    """
    if not path.is_file():
        raise EncoderError(f"weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise EncoderError(f"weights {path.name}: {_why_unreadable(path)}") from error
    if inside and isinstance(state, dict) and isinstance(state.get(inside), dict):
        state = state[inside]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(f"weights {path.name}: expected a dictionary of tensors")
    return state


def _why_unreadable(path: Path) -> str:
    """Say in a sentence why no tensors come out of a file, from what it begins with."""
    with path.open("rb") as stream:
        first = stream.read(16)
    again = "download it again"
    if not first:
        return f"the file is empty; {again}"
    if first.startswith(_TEXTS):
        return f"the file is a text (it begins with {first!r}), perhaps the page of a login; {again}"
    if path.suffix == ".safetensors":
        kind = "one of PyTorch; call it .pth" if first.startswith((_ZIP, _PICKLE)) else f"cut short or damaged; {again}"
        return f"the file is none of safetensors, but {kind}"
    if zipfile.is_zipfile(path) or first.startswith(_PICKLE):
        return (
            "the file holds more than tensors, or is damaged; such files are not read, since they can run code; give a plain state"
            " dict"
        )
    if first.startswith(_ZIP):
        return f"the file is cut short or damaged; {again}"
    return f"the file is none of PyTorch (it begins with {first!r}); {again}, or call it .safetensors if it is one"


def check_fit(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Refuse a state dict that is not exactly an architecture's.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    state : dict of str to Tensor
        The weights.
    name : str
        Of the weights, for the message.

    Raises
    ------
    EncoderError
        If tensors are missing, unknown, or of another shape; examples are named.
    """
    expected = network.state_dict()
    missing = [key for key in expected if key not in state]
    foreign = [key for key in state if key not in expected]
    shaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if missing or foreign or shaped:
        raise EncoderError(
            f"weights {name} do not fit the architecture: {len(missing)} missing ({', '.join(missing[:3])}),"
            f" {len(foreign)} unknown ({', '.join(foreign[:3])}), {len(shaped)} of another shape ({', '.join(shaped[:3])})"
        )
