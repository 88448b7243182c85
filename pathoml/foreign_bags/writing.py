"""What writing every layout has in common."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from pathoml.bags import BagHeader
from pathoml.files import write_bytes

_IMPORTED = re.compile(r"^imported-(trident|clam|stamp)-(?P<name>.+)$")
_IRREGULAR_STEP_PX = 1.0


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file in memory, and write it whole when it is done.

    HDF5 on a full disk takes the process down with it.

    Parameters
    ----------
    path : Path
        Where the finished file is to stand.

    Yields
    ------
    h5py.File
        To be filled.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    write_bytes(path, image.getvalue())


def encoder_name(header: BagHeader) -> str:
    """Return the encoder's name as its own tool calls it.

    Parameters
    ----------
    header : BagHeader
        Of the bag.

    Returns
    -------
    str
        Without what import put in front.
    """
    found = _IMPORTED.match(header.encoder)
    return found["name"] if found else header.encoder


def folder_name(encoder: str) -> str:
    """Return an encoder's name as a folder may be called.

    Parameters
    ----------
    encoder : str
        Any name, for example ``timm-hf-hub:owner/name``.

    Returns
    -------
    str
        Letters, digits, dot, hyphen and underscore.

    Examples
    --------
    >>> folder_name("timm-hf-hub:owner/name")
    'timm-hf-hub_owner_name'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", encoder).lstrip(".") or "encoder"


def side_level0_px(header: BagHeader) -> float:
    """Return the side of a tile in level-0 pixels, as one number.

    Parameters
    ----------
    header : BagHeader
        Of the bag.

    Returns
    -------
    float
        The mean of width and height, which differ where pixels are not square.
    """
    return sum(header.footprint_level0_px) / 2


def overlap_share(header: BagHeader) -> float:
    """Return the share of a tile's side that the next one repeats.

    Parameters
    ----------
    header : BagHeader
        Of the bag.

    Returns
    -------
    float
        0 where tiles lie on no regular grid.
    """
    step = sum(header.stride_level0_px) / 2
    return 0.0 if step <= _IRREGULAR_STEP_PX else max(0.0, 1 - step / side_level0_px(header))


def whole_if_whole(value: float) -> int | float:
    """Return a number as an integer where it is one but for rounding.

    Parameters
    ----------
    value : float
        Any number.

    Returns
    -------
    int or float
        The same number.
    """
    return round(value) if abs(value - round(value)) < 1e-6 else value
