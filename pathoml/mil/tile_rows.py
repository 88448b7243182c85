"""Tiles of one patient, of one slide or several, in memory or on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.units import AnyArray


class TileRows:
    """Rows of several arrays, one after another, that are put together only where they are used.

    Parameters
    ----------
    parts : sequence of ndarray, each of shape (tiles, dim)
        Of the same width; possibly mapped files.
    """

    def __init__(self, parts: Sequence[AnyArray]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), int(parts[0].shape[1]))
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> AnyArray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("tiles are taken in runs of neighbours")
        pieces, first = [], 0
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            low, high = max(start, first), min(stop, end)
            if low < high:
                pieces.append(part[low - first : high - first])
            first = end
        taken: AnyArray = np.concatenate(pieces) if pieces else np.zeros((0, self.shape[1]), self.dtype)
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:  # noqa: FBT001 - as numpy calls it
        return np.asarray(self[:], dtype=dtype)


def free_bytes() -> float:
    """Return the memory that programs may still take.

    Returns
    -------
    float
        Bytes; 8 GB where the system does not say.
    """
    memory = Path("/proc/meminfo")
    for line in memory.read_text(encoding="ascii").splitlines() if memory.exists() else []:
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return 8e9
