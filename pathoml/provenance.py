"""Who made a file: versions, digests of settings and of arrays."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from typing import Any

import numpy as np

from pathoml.settings import Settings, result_settings
from pathoml.units import AnyArray

RESEARCH_USE_ONLY = "research use only"
_RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "h5py",
    "openslide-bin",
    "scikit-survival",
    "opencv-python-headless",
)


def pathoml_version() -> str:
    """Return the installed version of pathoml.

    Returns
    -------
    str
        For example ``0.1.0``.
    """
    return importlib.metadata.version("pathoml")


def environment(device: str = "cpu") -> dict[str, str]:
    """Return the versions that results depend on, and the device.

    Parameters
    ----------
    device : str, optional
        Where networks ran.

    Returns
    -------
    dict of str to str
        Package name to version; Python and the processor kind among them. No host, user or path.
    """
    versions = {
        "pathoml": pathoml_version(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device,
    }
    for name in _RECORDED_PACKAGES:
        versions[name] = importlib.metadata.version(name)
    return versions


def canonical_json(value: Any) -> str:
    """Return the one spelling of a JSON value that digests are taken of.

    Parameters
    ----------
    value : Any
        Any JSON value.

    Returns
    -------
    str
        Sorted keys, no spaces, shortest round-trip floats.

    Examples
    --------
    >>> canonical_json({"b": 0.1, "a": [1, True]})
    '{"a":[1,true],"b":0.1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical spelling.

    Parameters
    ----------
    value : Any
        Any JSON value.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def patients_digest(patient_ids: Iterable[str]) -> str:
    """Return the digest by which a fitted transform says whom it was fitted on.

    Parameters
    ----------
    patient_ids : iterable of str
        Who, in any order.

    Returns
    -------
    str
        64 hexadecimal digits, from which nobody can be told.
    """
    return digest_of(sorted(str(one) for one in patient_ids))


def settings_digest(*settings: Settings) -> str:
    """Return the SHA-256 of what in the settings decides the result.

    Parameters
    ----------
    *settings : Settings
        One or more settings objects, in a fixed order.

    Returns
    -------
    str
        64 hexadecimal digits; paths, device and worker counts do not enter.
    """
    return digest_of([result_settings(one) for one in settings])


def array_digest(array: AnyArray) -> str:
    """Return the SHA-256 of an array: dtype and shape, then its little-endian C-order bytes.

    Parameters
    ----------
    array : ndarray
        Any numeric array.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = canonical_json([little.dtype.str, list(little.shape)]).encode("ascii")
    digest = hashlib.sha256(head)
    digest.update(little.reshape(-1).view(np.uint8).data)  # in place: a copy of a large bag costs as much as its digest
    return digest.hexdigest()


def hash_as_read_out(text: str) -> str:
    """Return the digits of a hash that was read out: in groups, in capitals.

    Parameters
    ----------
    text : str
        Such as ``4F0C 91D2``.

    Returns
    -------
    str
        Such as ``4f0c91d2``.
    """
    return "".join(text.replace("-", " ").split()).lower()
