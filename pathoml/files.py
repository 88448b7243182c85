"""Writing a file whole or not at all, and the digest of a file."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pathoml.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success fsync it and rename it into place.

    Parameters
    ----------
    path : Path
        Where the finished file is to stand. Missing parent folders are made.

    Yields
    ------
    Path
        The temporary file to write to. It is gone afterwards, whatever happens.

    Raises
    ------
    OutputError
        If the folder cannot be written to or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another output folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Parameters
    ----------
    path : Path
        Where the file is to stand.
    content : bytes
        Its whole content.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically.

    Parameters
    ----------
    path : Path
        Where the file is to stand.
    content : str
        Its whole content.
    """
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, indented, keys in the order given, no NaN.

    Parameters
    ----------
    path : Path
        Where the file is to stand.
    content : Any
        Any JSON value.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Parameters
    ----------
    path : Path
        May exist already.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror}); choose another output folder") from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, which processes of several machines may do at once.

    Parameters
    ----------
    path : Path
        Made if missing.
    line : str
        Without its end.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as stream, _locked(stream):
            stream.write(f"{line}\n")
            stream.flush()
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another output folder"
        ) from error


@contextmanager
def _locked(stream: TextIO) -> Iterator[None]:
    """Hold a file for oneself: network shares know no atomic appending. Where a share knows no locks, go on without."""
    try:
        if fcntl is not None:
            fcntl.lockf(stream, fcntl.LOCK_EX)  # given back when the file is closed, or its process dies
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL}:
            raise
    yield


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines that is only ever appended to.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of dict
        Its objects; a line that was cut when its writer was killed is left out.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Read the process's umask; there is no way to read it without setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
