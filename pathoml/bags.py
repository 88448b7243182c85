"""One slide's tiles as features: written whole, read with every check."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from pathoml.errors import BagFormatError, BagMismatchError
from pathoml.finite import FiniteLook
from pathoml.hdf5_audit import open_audited
from pathoml.hdf5_image import write_hdf5
from pathoml.provenance import array_digest
from pathoml.units import AnyArray

BAG_FORMAT = "pathoml-bag"
BAG_VERSION = 1
_DATASETS: dict[str, tuple[tuple[str, ...], int]] = {
    "features": (("float16", "float32"), 0),
    "coords": (("int32",), 2),
    "grid": (("int32",), 2),
    "tissue_share": (("float32",), 1),
    "flags": (("uint8",), 1),
}
"""Datasets of a bag: number formats and columns (0: any number)."""
_REMEDY = "extract the slide again"


@dataclass(frozen=True)
class FeatureSpec:
    """What features mean: two bags whose specs agree can be mixed, and scored by the same model. Names no slide.

    Parameters
    ----------
    encoder : str
        Name of the encoder and what of it is kept.
    weights_digest : str
        SHA-256 of its weights.
    target_mpp : float
        Resolution asked for, microns per pixel.
    tile_px : int
        Side of a tile in pixels.
    precision_asked : str
        ``float32``, ``bfloat16`` or ``float16`` in the encoder.
    settings_digest : str
        SHA-256 of the tissue, tiling and extraction settings that decide the result.
    """

    encoder: str
    weights_digest: str
    target_mpp: float
    tile_px: int
    precision_asked: str
    settings_digest: str


@dataclass(frozen=True)
class BagHeader:
    """Everything that a bag says of itself; see docs/formats.md.

    Parameters
    ----------
    slide_id : str
        The slide.
    slide_fingerprint, slide_digest : str
        Fast and full SHA-256 of the slide's files.
    width_px, height_px : int
        Extent of level 0.
    slide_mpp : tuple of float
        Microns per level-0 pixel in x and y.
    mpp_from : str
        ``metadata`` or ``manifest``; in imported bags also ``option`` or ``file``.
    target_mpp : float
        Resolution asked for.
    mpp_read : tuple of float
        Resolution of the tiles as read.
    tile_px : int
        Side of a tile in pixels.
    footprint_level0_px, stride_level0_px, origin_level0_px : tuple of float
        Tile size, grid step and grid origin (x, y) in level-0 pixels.
    encoder : str
        Name of the encoder and what of it is kept.
    weights_digest : str
        SHA-256 of its weights.
    precision_asked, precision_used : str
        ``float32``, ``bfloat16`` or ``float16`` in the encoder.
    reader, decode : str
        Tier that read the slide and how its codec was used (``exact`` or ``scaled``).
    batch_tiles, batch_used : int
        Tiles of one encoder call as asked for, padded; and as used, less where memory was too small.
    settings_digest : str
        SHA-256 of the tissue, tiling and extraction settings that decide the result.
    lost_tiles : int
        Tiles that could not be decoded and are left out.
    rejected : dict of str to int
        Tiles that touch tissue or an artefact and were not kept, counted by reason.
    regions_digest : str
        SHA-256 of the file of outlined regions; empty where tissue was found otherwise.
    stain : str
        How colours were changed before encoding; ``none`` where they were not.
    optical_density : dict of str to float
        Mean and standard deviation over sampled pixels of tissue, for each of red, green and blue, before any change.
    pathoml_version : str
        Version that wrote it.
    """

    slide_id: str
    slide_fingerprint: str
    slide_digest: str
    width_px: int
    height_px: int
    slide_mpp: tuple[float, float]
    mpp_from: str
    target_mpp: float
    mpp_read: tuple[float, float]
    tile_px: int
    footprint_level0_px: tuple[float, float]
    stride_level0_px: tuple[float, float]
    origin_level0_px: tuple[float, float]
    encoder: str
    weights_digest: str
    precision_asked: str
    precision_used: str
    reader: str
    decode: str
    batch_tiles: int
    batch_used: int
    settings_digest: str
    lost_tiles: int
    rejected: dict[str, int]
    regions_digest: str
    stain: str
    optical_density: dict[str, float]
    pathoml_version: str

    @property
    def feature_spec(self) -> FeatureSpec:
        """What the features mean."""
        return FeatureSpec(**{one.name: getattr(self, one.name) for one in fields(FeatureSpec)})


@dataclass(frozen=True)
class Bag:
    """The feature bag of one slide.

    Parameters
    ----------
    header : BagHeader
        What it is.
    features : ndarray of float16 or float32, shape (tiles, dim)
        One row per tile.
    coords : ndarray of int32, shape (tiles, 2)
        Top-left corner (x, y), level-0 pixels.
    grid : ndarray of int32, shape (tiles, 2)
        Row and column; rows ascend by (row, column).
    tissue_share : ndarray of float32, shape (tiles,)
        Share of tissue.
    flags : ndarray of uint8, shape (tiles,)
        `pathoml.tiling.TileFlag` bits.
    """

    header: BagHeader
    features: NDArray[np.floating[Any]]
    coords: NDArray[np.int32]
    grid: NDArray[np.int32]
    tissue_share: NDArray[np.float32]
    flags: NDArray[np.uint8]


def write_bag(path: Path, bag: Bag) -> None:
    """Write a bag: whole or not at all. Its checksums are computed while its features go to the disk.

    Parameters
    ----------
    path : Path
        ``<folder>/<slide_id>.h5``.
    bag : Bag
        What to write.

    Raises
    ------
    BagFormatError
        If a feature is NaN or infinite, or the arrays disagree in length.
    OutputError
        If the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(getattr(bag, name)) for name in _DATASETS}
    name = bag.header.slide_id
    _check_shapes(name, arrays)
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        digests = {key: pool.submit(array_digest, array) for key, array in arrays.items()}
        finite = pool.submit(_is_finite, arrays["features"])  # last: digests take longest

        def attributes() -> dict[str, Any]:
            if not finite.result():
                raise _not_finite(name, arrays["features"])
            return {
                "format": np.bytes_(BAG_FORMAT),
                "format_version": BAG_VERSION,
                "header": np.bytes_(json.dumps(asdict(bag.header))),
                "digests": np.bytes_(json.dumps({key: one.result() for key, one in digests.items()})),
                "complete": True,
            }

        write_hdf5(path, "features", arrays, attributes)


def read_bag(path: Path, *, verify: bool = True, mapped: bool = False) -> Bag:
    """Read a bag and check it.

    Parameters
    ----------
    path : Path
        The bag's file.
    verify : bool, optional
        Whether to recompute the checksums; without, only shapes and finiteness are checked.
    mapped : bool, optional
        Whether features stay on disk and are read where they are used.

    Returns
    -------
    Bag
        Its arrays in memory, or features mapped.

    Raises
    ------
    BagFormatError
        If the file is missing, not a bag of a known version, incomplete, or altered.
    """
    with open_audited(path, "bag", _REMEDY) as audited:
        header, digests = _read_attributes(path, audited.file)
        look = FiniteLook()
        features = audited.mapped("features") if mapped else audited.array("features", see=look.see)
        arrays = {"features": features, **{name: audited.array(name) for name in _DATASETS if name != "features"}}
    if mapped:
        look.see(features.reshape(-1))
    _check_shapes(path.name, arrays)
    if not look.all_finite:
        raise _not_finite(path.name, features)
    if verify:
        altered = [name for name, array in arrays.items() if array_digest(array) != digests.get(name)]
        if altered:
            raise BagFormatError(
                f"{path.name}: checksum of {', '.join(altered)} differs; the file was altered, extract it again"
            )
    return Bag(header, **arrays)


def read_bag_header(path: Path) -> BagHeader:
    """Read only what a bag says of itself.

    Parameters
    ----------
    path : Path
        The bag's file.

    Returns
    -------
    BagHeader
        Its attributes.

    Raises
    ------
    BagFormatError
        If the file is missing, not a bag of a known version, or incomplete.
    """
    with open_audited(path, "bag", _REMEDY) as audited:
        return _read_attributes(path, audited.file)[0]


def check_same_features(header: BagHeader, expected: FeatureSpec, what: str) -> None:
    """Refuse a bag whose features mean something else than expected.

    Parameters
    ----------
    header : BagHeader
        The bag at hand.
    expected : FeatureSpec
        What the model, or the first slide of the cohort, was made with.
    what : str
        Who expects it, for the message.

    Raises
    ------
    BagMismatchError
        If encoder, weights, resolution, tile size, precision or settings differ; each difference is named.
    """
    differences = [
        f"{one.name} is {getattr(header, one.name)!r}, {what} has {getattr(expected, one.name)!r}"
        for one in fields(FeatureSpec)
        if getattr(header, one.name) != getattr(expected, one.name)
    ]
    if differences:
        message = f"bag of slide {header.slide_id}: {'; '.join(differences)}; extract it with the same settings"
        raise BagMismatchError(message)


def _read_attributes(path: Path, file: h5py.File) -> tuple[BagHeader, dict[str, str]]:
    attributes = file.attrs
    if _text(attributes.get("format", "")) != BAG_FORMAT:
        raise BagFormatError(f"{path.name}: not a pathoml bag (its attribute 'format' is not '{BAG_FORMAT}')")
    version = int(attributes.get("format_version", 0))
    if version != BAG_VERSION:
        raise BagFormatError(f"{path.name}: bag version {version}, this pathoml reads {BAG_VERSION}; extract it again")
    if not bool(attributes.get("complete", False)):
        raise BagFormatError(f"{path.name}: incomplete; extract it again")
    try:
        header = header_from_dict(json.loads(_text(attributes["header"])))
    except BagFormatError as error:
        raise BagFormatError(f"{path.name}: {error}") from error
    digests = json.loads(_text(attributes["digests"]))
    if not isinstance(digests, dict):
        raise BagFormatError(f"{path.name}: its checksums are no table of names; {_REMEDY}")
    return header, digests


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def header_from_dict(values: dict[str, Any]) -> BagHeader:
    """Build a header from its JSON form.

    Parameters
    ----------
    values : dict
        As ``dataclasses.asdict`` gives it.

    Returns
    -------
    BagHeader
        The same header; lists become tuples.

    Raises
    ------
    BagFormatError
        If a field is missing, of another kind, or a size that no slide has.
    """
    if not isinstance(values, dict):
        raise BagFormatError("bag header is no table of names; extract it again")
    missing = [field.name for field in fields(BagHeader) if field.name not in values]
    if missing:
        raise BagFormatError(f"bag header lacks {', '.join(missing)}; extract it again")
    try:
        header = _HEADERS.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BagFormatError(
            f"bag header: {where} is {repr(first['input'])[:60]} ({first['msg']}); extract it again"
        ) from error
    sizes = {name: getattr(header, name) for name in _SIZES}
    wrong = [name for name, value in sizes.items() if not _is_size(value)]
    if wrong:
        raise BagFormatError(f"bag header: {wrong[0]} is {sizes[wrong[0]]}, expected more than 0; extract it again")
    return header


_HEADERS = TypeAdapter(BagHeader)
_SIZES = ("target_mpp", "tile_px", "slide_mpp", "mpp_read", "footprint_level0_px")
"""Of what a header says, that which divides and has to be larger than 0."""


def _is_size(value: float | tuple[float, float]) -> bool:
    return all(math.isfinite(one) and one > 0 for one in (value if isinstance(value, tuple) else (value,)))


def _check_shapes(name: str, arrays: dict[str, AnyArray]) -> None:
    for key, (dtypes, columns) in _DATASETS.items():
        array = arrays[key]
        fits = array.dtype.name in dtypes and array.ndim == (1 if columns == 1 else 2)
        if not fits or (columns and array.ndim == 2 and array.shape[1] != columns):
            expected = f"{' or '.join(dtypes)} with {columns or 'any number of'} column(s)"
            raise BagFormatError(f"{name}: '{key}' is {array.dtype.name} of shape {array.shape}, expected {expected}")
    lengths = {key: len(array) for key, array in arrays.items()}
    if lengths["features"] == 0 or len(set(lengths.values())) != 1:
        raise BagFormatError(f"{name}: arrays of different or zero length {lengths}")


def _is_finite(features: AnyArray) -> bool:
    look = FiniteLook()
    look.see(features.reshape(-1))
    return look.all_finite


def _not_finite(name: str, features: AnyArray) -> BagFormatError:
    remedy = "set extract.feature_dtype: float32" if features.dtype == np.float16 else "check the encoder"
    return BagFormatError(f"{name}: features hold NaN or infinity; {remedy}")
