"""HDF5 files that others may have made: what a file claims is judged before anything of it is read."""

import math
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pathoml.errors import BagFormatError, PathomlError
from pathoml.units import AnyArray

COMPRESSION_BOUND = 20
"""Compressed data may claim this many times the file's size; features shrink by 2 to 4, zeros by 1000."""
MAX_BYTES = 16 << 30
MAX_ROWS = 10_000_000
MAX_COLUMNS = 100_000
_MAX_ATTRIBUTE_VALUES = 8
_MAX_TEXT_BYTES = 4096
_WORTH_A_THREAD, _PIECE_BYTES = 4 << 20, 1 << 19
"""From which size on two threads read; and what is read before it is looked at, which a core's cache holds."""
Seer = Callable[[AnyArray], None]
_LINKS = {h5py.h5l.TYPE_SOFT: "it is a soft link", h5py.h5l.TYPE_EXTERNAL: "it is a link into another file"}


@dataclass(frozen=True)
class AuditedFile:
    """An open HDF5 file whose datasets and attributes are read only after they were judged.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    path : Path
        Where it lies.
    descriptor : int
        The same file, open for reading past HDF5.
    remedy : str
        What to do about a file that is refused; ends every message.
    """

    file: h5py.File
    path: Path
    descriptor: int
    remedy: str

    def array(self, name: str, *, see: Seer | None = None) -> AnyArray:
        """Read a dataset that lies in the file itself and is no larger than the file can hold.

        Parameters
        ----------
        name : str
            Of the dataset, at the root.
        see : callable, optional
            Shown the numbers, flat, piece by piece and in no order, while the cache holds them; possibly by two threads.

        Returns
        -------
        ndarray
            Its numbers.

        Raises
        ------
        BagFormatError
            If it is missing, a link, stored elsewhere, virtual, not of numbers, or claims too much.
        """
        dataset = self._inside(name)
        self._judge_claim(name, dataset)
        offset = _offset_of_plain(dataset)
        if offset is not None:
            return self._numbers_at(name, dataset, offset, see or _look_away)
        array: AnyArray = dataset[()]
        (see or _look_away)(array.reshape(-1))
        return array

    def mapped(self, name: str) -> AnyArray:
        """Map a dataset into memory, so that only what is used is read; see `array`.

        Parameters
        ----------
        name : str
            Of the dataset, at the root.

        Returns
        -------
        ndarray
            Read-only and backed by the file, which must not be shortened meanwhile; a copy where it is not stored in one piece.

        Raises
        ------
        BagFormatError
            As `array`.
        """
        dataset = self._inside(name)
        self._judge_claim(name, dataset)
        offset = _offset_of_plain(dataset)
        if offset is None:
            return self.array(name)
        before = offset % mmap.ALLOCATIONGRANULARITY
        pages = mmap.mmap(self.descriptor, before + dataset.nbytes, access=mmap.ACCESS_READ, offset=offset - before)
        array: AnyArray = np.frombuffer(pages, dataset.dtype, dataset.size, before).reshape(dataset.shape)
        return array

    def number(self, attribute: str, of: str = "/") -> float | None:
        """Read an attribute that is one number.

        Parameters
        ----------
        attribute : str
            Its name.
        of : str, optional
            Dataset that carries it; by default the file.

        Returns
        -------
        float or None
            None where the attribute is not there.

        Raises
        ------
        BagFormatError
            If it is not one finite number.
        """
        values = self.numbers(attribute, of)
        if values is not None and len(values) != 1:
            raise self.refusal(f"attribute '{attribute}' holds {len(values)} values, expected one")
        return None if values is None else values[0]

    def numbers(self, attribute: str, of: str = "/") -> tuple[float, ...] | None:
        """Read an attribute that is a few numbers.

        Parameters
        ----------
        attribute : str
            Its name.
        of : str, optional
            Dataset that carries it; by default the file.

        Returns
        -------
        tuple of float or None
            None where the attribute is not there.

        Raises
        ------
        BagFormatError
            If it is no short list of finite numbers.
        """
        found = self._attribute(attribute, of)
        if found is None:
            return None
        if found.dtype.kind not in "fiu" or math.prod(found.shape) > _MAX_ATTRIBUTE_VALUES:
            raise self.refusal(f"attribute '{attribute}' is {found.dtype} of shape {found.shape}, expected numbers")
        raw: Any = self._holder(of).attrs[attribute]
        values = tuple(float(value) for value in raw.ravel())
        if not all(math.isfinite(value) for value in values):
            raise self.refusal(f"attribute '{attribute}' is not finite")
        return values

    def text(self, attribute: str, of: str = "/") -> str | None:
        """Read an attribute that is a short text; it is never interpreted.

        Parameters
        ----------
        attribute : str
            Its name.
        of : str, optional
            Dataset that carries it; by default the file.

        Returns
        -------
        str or None
            None where the attribute is not there.

        Raises
        ------
        BagFormatError
            If it is no short text.
        """
        found = self._attribute(attribute, of)
        if found is None:
            return None
        if h5py.check_string_dtype(found.dtype) is None or found.shape != ():
            raise self.refusal(f"attribute '{attribute}' is {found.dtype} of shape {found.shape}, expected a text")
        value = self._holder(of).attrs[attribute]
        text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
        if len(text) > _MAX_TEXT_BYTES:
            raise self.refusal(f"attribute '{attribute}' is a text of {len(text)} characters")
        return text

    def refusal(self, reason: str) -> BagFormatError:
        """Return the error that says why this file is refused.

        Parameters
        ----------
        reason : str
            What was found, and what was expected.

        Returns
        -------
        BagFormatError
            With the file's name in front and the remedy behind.
        """
        return BagFormatError(f"{self.path.name}: {reason}; {self.remedy}")

    def _inside(self, name: str) -> h5py.Dataset:
        """Return a dataset, not yet read, that the file holds itself."""
        # The type of a link is asked for without following it: h5py's own look-ups would open the file that it names.
        links = self.file.id.links
        kind = links.get_info(name.encode()).type if links.exists(name.encode()) else None
        dataset = self.file[name] if kind == h5py.h5l.TYPE_HARD else None
        reason = _why_not_inside(kind, dataset)
        if reason:
            raise self.refusal(f"no dataset '{name}' inside the file ({reason})")
        return dataset

    def _judge_claim(self, name: str, dataset: h5py.Dataset) -> None:
        if dataset.dtype.kind not in "fiu" or dataset.shape is None:
            raise self.refusal(f"dataset '{name}' holds {dataset.dtype}, expected numbers")
        held = self.path.stat().st_size * (1 if _is_plain(dataset) else COMPRESSION_BOUND)
        # A chunk is unpacked whole, also where the dataset claims only a part of it.
        chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        claimed = max(int(dataset.nbytes), chunk if dataset.size else 0)
        if claimed > min(held, MAX_BYTES):
            where = "a smaller file" if claimed > held else f"a limit of {MAX_BYTES}"
            raise self.refusal(f"dataset '{name}' claims {claimed} bytes in {where}; refused")
        rows, columns = (*dataset.shape, 1, 1)[:2]
        if rows > MAX_ROWS or columns > MAX_COLUMNS:
            raise self.refusal(f"dataset '{name}' has shape {dataset.shape}, more than {MAX_ROWS} x {MAX_COLUMNS}")

    def _numbers_at(self, name: str, dataset: h5py.Dataset, offset: int, see: Seer) -> AnyArray:
        """Read numbers that lie in the file in one piece, past HDF5, which would clear the memory first; many by two threads."""
        array: AnyArray = np.empty(dataset.shape, dataset.dtype)
        flat = array.reshape(-1)
        half = len(flat) // 2 if array.nbytes > _WORTH_A_THREAD else 0
        if half:
            with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
                second = pool.submit(self._fill, flat[half:], offset + half * array.itemsize, see)
                count = self._fill(flat[:half], offset, see) + second.result()
        else:
            count = self._fill(flat, offset, see)
        if count < array.nbytes:
            raise self.refusal(f"dataset '{name}' ends after {count} of {array.nbytes} bytes")
        return array

    def _fill(self, flat: AnyArray, offset: int, see: Seer) -> int:
        """Fill an array with what lies at a place of the file, and return how many bytes there were."""
        filled, piece = 0, _PIECE_BYTES // flat.itemsize
        for start in range(0, len(flat), piece):
            part = flat[start : start + piece]
            count = _read_all(self.descriptor, part.view(np.uint8).data, offset + filled)
            filled += count
            if count < part.nbytes:
                break
            see(part)
        return filled

    def _holder(self, of: str) -> Any:
        return self.file if of == "/" else self._inside(of)

    def _attribute(self, name: str, of: str) -> Any:
        """Return an attribute's type and shape, not yet its value."""
        attributes = self._holder(of).attrs
        return attributes.get_id(name) if name in attributes else None


@contextmanager
def open_audited(path: Path, what: str, remedy: str) -> Iterator[AuditedFile]:
    """Open an HDF5 file; whatever a damaged or foreign file makes HDF5 or the decoding say becomes one error.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it is expected to be, for the message.
    remedy : str
        What to do if it is not.

    Yields
    ------
    AuditedFile
        Closed afterwards.

    Raises
    ------
    BagFormatError
        If it cannot be read as HDF5.
    """
    try:
        with h5py.File(path, "r") as file, path.open("rb", buffering=0) as past_hdf5:
            yield AuditedFile(file, path, past_hdf5.fileno(), remedy)
    except PathomlError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise BagFormatError(f"{path.name}: not a readable {what} ({error}); {remedy}") from error


def _look_away(numbers: AnyArray) -> None:
    """See nothing."""


def _read_all(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read until a buffer is full or the file ends; one call may give less, and at most 2 GB."""
    filled = 0
    while filled < len(buffer):
        count = os.preadv(descriptor, [buffer[filled:]], offset + filled)
        if not count:
            break
        filled += count
    return filled


def _why_not_inside(link_kind: int | None, dataset: object) -> str:
    """Say why a name does not stand for a dataset of the file itself; empty if it does."""
    if link_kind is None:
        return "nothing of that name"
    if link_kind != h5py.h5l.TYPE_HARD:
        return _LINKS.get(link_kind, "it is a link of an unknown kind")
    if not isinstance(dataset, h5py.Dataset):
        return "it is no dataset"
    if dataset.is_virtual:
        return "it is virtual: put together from other files"
    return "its data are stored in other files" if dataset.external is not None else ""


def _offset_of_plain(dataset: h5py.Dataset) -> int | None:
    """Return where in the file the numbers of a dataset lie as numpy would hold them; None where HDF5 has to bring them."""
    as_numpy = h5py.h5t.py_create(dataset.dtype).equal(dataset.id.get_type())
    # Of numbers that were never written HDF5 may name a place all the same, in a file that begins with a block of others.
    is_written = dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
    if dataset.size == 0 or dataset.chunks is not None or not (as_numpy and is_written and _is_plain(dataset)):
        return None
    offset: int | None = dataset.id.get_offset()
    return offset


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Tell whether every byte of a dataset stands in the file as it is."""
    return int(dataset.id.get_create_plist().get_nfilters()) == 0
