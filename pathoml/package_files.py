"""The files of a package as bytes: read, written, known by a digest, and refused where they are not what they say."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathoml.errors import PackageError
from pathoml.files import write_bytes
from pathoml.provenance import digest_of

PACKAGE_FORMAT = "pathoml-package"
PACKAGE_VERSION = 2
TENSORS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True)
class PackageFiles:
    """The two files of a package that make it one, as they stand on disk or came over a network.

    Parameters
    ----------
    description : bytes
        model.json.
    tensors : bytes
        model.safetensors.
    """

    description: bytes
    tensors: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of model.json, which holds that of the tensors: what a package is known by."""
        return hashlib.sha256(self.description).hexdigest()


def read_package_files(folder: Path) -> PackageFiles:
    """Read a package's files as they are.

    Parameters
    ----------
    folder : Path
        As `pathoml.packages.save_package` wrote it.

    Returns
    -------
    PackageFiles
        For `pathoml.packages.package_of`, which verifies them.

    Raises
    ------
    PackageError
        If one of them is missing or cannot be read.
    """
    if not (folder / DESCRIPTION).is_file():
        raise PackageError(f"{folder}: not a model package (no {DESCRIPTION} in it); give the folder package/ of a run")
    try:
        return PackageFiles((folder / DESCRIPTION).read_bytes(), (folder / TENSORS).read_bytes())
    except OSError as error:
        raise PackageError(f"{folder}: cannot be read as a package ({error}); get it again") from error


def write_package_files(folder: Path, files: PackageFiles) -> None:
    """Write a package's files as they are, without its card.

    Parameters
    ----------
    folder : Path
        Exists.
    files : PackageFiles
        For `read_package_files`.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    write_bytes(folder / TENSORS, files.tensors)
    write_bytes(folder / DESCRIPTION, files.description)


def checked_description(content: bytes, name: str) -> dict[str, Any]:
    """Read model.json and refuse it if it is of another version or was altered.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        What to call the package in an error.

    Returns
    -------
    dict
        Plain JSON values, without the digest of themselves.

    Raises
    ------
    PackageError
        If it is not the description of a package of this version, or was altered.
    """
    try:
        description = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise PackageError(f"{name}: not a model package ({error})") from error
    if not isinstance(description, dict) or description.get("format") != PACKAGE_FORMAT:
        raise PackageError(f"{name}: not a model package ({DESCRIPTION} does not say '{PACKAGE_FORMAT}')")
    version = description.get("format_version")
    if version != PACKAGE_VERSION:
        raise PackageError(
            f"{name}: package version {version}, this pathoml reads {PACKAGE_FORMAT} version {PACKAGE_VERSION}"
        )
    stated = description.pop("description_sha256", None)
    if digest_of(description) != stated:
        raise PackageError(f"{name}: {DESCRIPTION} was altered (its SHA-256 differs); get the package again")
    return description
