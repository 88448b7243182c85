"""An HDF5 file around one large array, which goes to the disk straight from memory, past HDF5 and without a copy."""

import io
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pathoml.files import atomic_path
from pathoml.units import AnyArray

_ROOM_BYTES = 1 << 20
"""For HDF5's own structure, beside twice the small arrays."""
_WORTH_A_SYNC = 4 << 20


def write_hdf5(
    path: Path, large: str, arrays: Mapping[str, AnyArray], attributes: Callable[[], Mapping[str, Any]]
) -> None:  # fmt: skip
    """Write arrays and attributes as one HDF5 file: whole or not at all.

    HDF5 writes into memory, because on a full disk it takes the process down with it; of the large array it only lays out the
    place, whose pages are never touched.

    Parameters
    ----------
    path : Path
        Where the file is to stand.
    large : str
        Name of the array that is written past HDF5.
    arrays : mapping of str to ndarray
        C-contiguous; each becomes a contiguous dataset of the root.
    attributes : callable
        Gives the attributes of the root. Called once the large array is on its way to the disk, so that digests may be
        computed meanwhile.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    array = arrays[large]
    small = sum(one.nbytes for name, one in arrays.items() if name != large)
    with (
        _Image(array.nbytes + 2 * small + _ROOM_BYTES) as image,
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
    ):
        # The newest layout of HDF5 carries checksums of its own structure; texts of fixed length stay inside it.
        with h5py.File(image, "w", libver="latest") as file:
            for name, one in arrays.items():
                if name != large:
                    file.create_dataset(name, data=one)
            first = _lay_out(file, large, array)
            stream.seek(first)
            stream.write(array.reshape(-1).view(np.uint8).data)
            if array.nbytes > _WORTH_A_SYNC:  # while others compute digests; what is left for the last one is little
                stream.flush()
                os.fsync(stream.fileno())
            for name, value in attributes().items():
                file.attrs[name] = value
        stream.seek(0)
        stream.write(image.part(0, first))
        stream.seek(first + array.nbytes)
        stream.write(image.part(first + array.nbytes, image.size))


def _lay_out(file: h5py.File, name: str, array: AnyArray) -> int:
    """Make a contiguous dataset whose numbers HDF5 leaves alone, and return where in the file they belong."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # the same numbers give the same file at any hour
    kind, space = h5py.h5t.py_create(array.dtype), h5py.h5s.create_simple(array.shape)
    dataset = h5py.h5d.create(file.id, name.encode("ascii"), kind, space, layout)
    return int(dataset.get_offset())


class _Image(io.RawIOBase):
    """A file in memory that takes only the pages that are written to."""

    def __init__(self, most: int) -> None:
        self._memory, self._at, self.size = mmap.mmap(-1, most), 0, 0

    def part(self, start: int, stop: int) -> bytes:
        """Return some of its bytes."""
        return self._memory[start:stop]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._at))
        view[:count] = self._memory[self._at : self._at + count]
        self._at += count
        return count

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._memory[self._at : self._at + len(view)] = view
        self._at += len(view)
        self.size = max(self.size, self._at)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def close(self) -> None:
        if not self.closed:
            self._memory.close()
        super().close()
