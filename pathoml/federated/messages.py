"""What travels between coordinator and sites: a kind, a round, named arrays, named numbers, and nothing else."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from pathoml.errors import FederationError
from pathoml.provenance import canonical_json
from pathoml.units import AnyArray

_HEADER = "pathoml"
_HEADER_BYTES = 8  # safetensors begins with the length of its JSON header
VERSION = 1
DTYPES = ("float32", "float64", "int64", "uint8")
"""Types of arrays that a message can have. Bytes are files of a package on their way to a site; on no list of what leaves one."""


@dataclass(frozen=True)
class Message:
    """One request of the coordinator, or one site's answer to it.

    Parameters
    ----------
    kind : str
        What is asked, or what is answered; one of the words of `pathoml.federated.plan`.
    plan : str
        Hash of the plan that it belongs to.
    round_number : int
        Counted from 0.
    arrays : mapping of str to ndarray
        Tensors by name, of one of DTYPES.
    numbers : mapping of str to float
        Typed aggregates: counts, losses, metrics. Never a word.
    code : str
        Why a site refused, one of `pathoml.errors.RefusalCode`; empty if it did not.
    """

    kind: str
    plan: str
    round_number: int = 0
    arrays: Mapping[str, AnyArray] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    code: str = ""


def to_bytes(message: Message) -> bytes:
    """Spell a message: the one place through which anything leaves.

    Parameters
    ----------
    message : Message
        What to send.

    Returns
    -------
    bytes
        A safetensors file whose metadata hold the rest; the same message gives the same bytes.

    Raises
    ------
    FederationError
        If an array is not of a type that may travel.
    """
    for name, array in message.arrays.items():
        if array.dtype.name not in DTYPES:
            raise FederationError(f"message {message.kind}: array {name} is {array.dtype.name}, not {'/'.join(DTYPES)}")
    said = {
        "version": VERSION, "kind": message.kind, "plan": message.plan, "round": message.round_number,
        "numbers": dict(message.numbers), "code": message.code,
    }  # fmt: skip
    arrays = {name: np.ascontiguousarray(message.arrays[name]) for name in sorted(message.arrays)}
    return save_arrays(arrays, {_HEADER: canonical_json(said)})


def from_bytes(content: bytes) -> Message:
    """Read a message and refuse whatever is not exactly one; nothing in it is ever executed.

    Parameters
    ----------
    content : bytes
        As `to_bytes` spells it.

    Returns
    -------
    Message
        Its arrays are as they came: whether they may be used is for its receiver to judge.

    Raises
    ------
    FederationError
        If it is no message of this version.
    """
    try:
        length = int.from_bytes(content[:_HEADER_BYTES], "little")
        header = json.loads(content[_HEADER_BYTES : _HEADER_BYTES + length])
        said: dict[str, Any] = json.loads(header["__metadata__"][_HEADER])
        arrays = load_arrays(content)
        if said["version"] != VERSION:
            raise FederationError(f"message of version {said['version']!r}; this pathoml speaks version {VERSION}")
        numbers = {str(name): _number(value) for name, value in said["numbers"].items()}
        words = [said["kind"], said["plan"], said["code"]]
        if not all(isinstance(word, str) for word in words) or not isinstance(said["round"], int):
            raise FederationError("message whose kind, plan, round or code is of another type")
        return Message(said["kind"], said["plan"], said["round"], arrays, numbers, said["code"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FederationError(f"not a message of pathoml ({type(error).__name__})") from error


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise FederationError("message with a number that is none")
    return float(value)
