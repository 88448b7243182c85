"""STAMP: ``<extractor>/<slide>.h5`` with float16 features and corners in micrometres."""

from pathlib import Path

import numpy as np

from pathoml.bags import Bag
from pathoml.errors import BagFormatError
from pathoml.foreign_bags.record import (
    MPP_ATTRIBUTE,
    ForeignBag,
    Known,
    checked_arrays,
    required,
    required_px,
    resolve_encoder,
    resolve_mpp,
)
from pathoml.foreign_bags.writing import encoder_name, folder_name, new_hdf5
from pathoml.hdf5_audit import AuditedFile, open_audited
from pathoml.provenance import pathoml_version

LAYOUT = "stamp"
_STAMP_VERSION = "2.1.0"
"""The first STAMP with these attributes; later ones read the files of earlier ones and refuse those of later ones."""


def read(path: Path, known: Known) -> ForeignBag:
    """Read a feature file of STAMP.

    Parameters
    ----------
    path : Path
        ``<extractor>/<slide>.h5``.
    known : Known
        What is known beside it; the slide's resolution turns micrometres into its pixels.

    Returns
    -------
    ForeignBag
        In level-0 pixels.

    Raises
    ------
    BagFormatError
        If the file is not of this layout, or not to be trusted.
    NoTissueError
        If it holds no tile.
    MissingMppError, BadMppError
        If nobody says the slide's microns per pixel.
    """
    with open_audited(path, "STAMP feature file", "refused") as file:
        _check_kind(file)
        side_um, tile_px = _tile_sizes(file)
        features, coords_um = file.array("feats"), file.array("coords")
        in_file = file.numbers(MPP_ATTRIBUTE)
        encoder = file.text("extractor")
    checked_arrays(path.name, features, coords_um)
    mpp, mpp_from = resolve_mpp(path.name, known, in_file)
    _, coords = checked_arrays(path.name, features, coords_um.astype(np.float64) / np.asarray(mpp))
    return ForeignBag(
        layout=LAYOUT, features=features, coords=coords, footprint_level0_px=(side_um / mpp[0], side_um / mpp[1]),
        step_level0_px=None, tile_px=tile_px, encoder=resolve_encoder(path.name, known.encoder, encoder), mpp=mpp,
        mpp_from=mpp_from, asked_mpp=side_um / tile_px, extent_px=(0, 0),
    )  # fmt: skip


def write(bag: Bag, folder: Path) -> tuple[Path, ...]:
    """Write a bag as a feature file of STAMP.

    Parameters
    ----------
    bag : Bag
        What to write; features become float16.
    folder : Path
        The output folder.

    Returns
    -------
    tuple of Path
        ``<extractor>/<slide_id>.h5``.

    Raises
    ------
    BagFormatError
        If a feature is too large for float16.
    OutputError
        If it cannot be written.
    """
    header, encoder = bag.header, encoder_name(bag.header)
    with np.errstate(over="ignore"):  # what overflows is refused below, with its remedy
        feats = bag.features.astype(np.float16)
    if not np.isfinite(feats).all():
        raise BagFormatError(
            f"{header.slide_id}: features up to {np.abs(bag.features).max():g} do not fit STAMP's float16;"
            " export as trident or clam"
        )
    mpp = np.asarray(header.slide_mpp)
    path = folder / folder_name(encoder) / f"{header.slide_id}.h5"
    with new_hdf5(path) as file:
        file["feats"] = feats
        file["coords"] = (bag.coords * mpp).astype(np.float32)
        file.attrs.update(
            {
                "stamp_version": _STAMP_VERSION,
                "extractor": encoder,
                "unit": "um",
                "tile_size_um": float(np.mean(np.asarray(header.footprint_level0_px) * mpp)),
                "tile_size_px": header.tile_px,
                "code_hash": f"pathoml-{pathoml_version()}",
                "feat_type": "tile",
                MPP_ATTRIBUTE: header.slide_mpp,
            }
        )
    return (path,)


def _check_kind(file: AuditedFile) -> None:
    unit, kind = file.text("unit"), file.text("feat_type")
    if unit != "um":
        raise file.refusal(
            f"coordinates in the unit '{unit}', expected 'um'; make the file again with STAMP 2.1 or later"
        )
    if kind not in {None, "tile"}:
        raise file.refusal(f"features of a {kind}, expected those of tiles")


def _tile_sizes(file: AuditedFile) -> tuple[float, int]:
    """Return a tile's side in micrometres and in pixels."""
    name = file.path.name
    side_um = required(name, "tile_size_um", file.number("tile_size_um"))
    return side_um, required_px(name, "tile_size_px", file.number("tile_size_px"))
