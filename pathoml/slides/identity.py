"""Which file a slide is: a fast fingerprint to notice replacement, a full digest to notice a flipped bit."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from pathoml.files import file_digest
from pathoml.slides.belonging import slide_files

_END_BYTES = 1 << 16
_SAMPLE_BYTES = 4096
_SAMPLES = 64


def slide_fingerprint(path: Path) -> str:
    """Return a digest of a slide's size, header, tail and 64 evenly spread blocks.

    Reads at most 400 KB per file, so that ten thousand slides on a network share can be compared in minutes.

    Parameters
    ----------
    path : Path
        The slide; every file that belongs to it is included, see `pathoml.slides.belonging`.

    Returns
    -------
    str
        64 hexadecimal digits. Changes when the slide is replaced or saved again.
    """
    digest = hashlib.sha256()
    for file in slide_files(path):
        with file.open("rb") as stream:
            digest.update(sampled_digest(stream, file.stat().st_size))
    return digest.hexdigest()


def slide_digest(path: Path) -> str:
    """Return the SHA-256 of the whole file, or of every file of a multi-file slide in name order.

    Parameters
    ----------
    path : Path
        The slide.

    Returns
    -------
    str
        64 hexadecimal digits. Changes when a single bit does.
    """
    files = slide_files(path)
    if len(files) == 1:
        return file_digest(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()


def sampled_digest(stream: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of a file's size and of some of its bytes.

    Parameters
    ----------
    stream : file
        Open for reading, seekable; possibly not of this machine.
    size : int
        Its bytes.

    Returns
    -------
    bytes
        32 of them.
    """
    digest = hashlib.sha256(str(size).encode("ascii"))
    digest.update(stream.read(_END_BYTES))
    for index in range(_SAMPLES):
        stream.seek(size * index // _SAMPLES)
        digest.update(stream.read(_SAMPLE_BYTES))
    stream.seek(max(0, size - _END_BYTES))
    digest.update(stream.read(_END_BYTES))
    return digest.digest()
