"""TRIDENT: ``features_<encoder>/<slide>.h5`` with features, level-0 coordinates and magnifications."""

from pathlib import Path

import numpy as np

from pathoml.bags import Bag
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
from pathoml.foreign_bags.writing import (
    encoder_name,
    folder_name,
    new_hdf5,
    overlap_share,
    side_level0_px,
    whole_if_whole,
)
from pathoml.hdf5_audit import AuditedFile, open_audited

LAYOUT = "trident"
_UM_PER_MAGNIFICATION = 10.0
"""By this convention 20x is 0.5 microns per pixel; a name for the resolution asked for, never the slide's mpp."""


def read(path: Path, known: Known) -> ForeignBag:
    """Read a feature file of TRIDENT.

    Parameters
    ----------
    path : Path
        ``features_<encoder>/<slide>.h5``.
    known : Known
        What is known beside it; its resolution has to be, unless the file is one of ours.

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
    with open_audited(path, "TRIDENT feature file", "refused") as file:
        features, coords = checked_arrays(path.name, file.array("features"), file.array("coords"))
        mpp, mpp_from = resolve_mpp(path.name, known, file.numbers(MPP_ATTRIBUTE, "coords"))
        tile_px = required_px(path.name, "patch_size", file.number("patch_size", "coords"))
        side = _side_level0_px(file, tile_px)
        step = side * (1 - (file.number("overlap", "coords") or 0.0) / tile_px)
        asked = file.number("target_magnification", "coords")
        size = [file.number(f"level0_{name}", "coords") or 0.0 for name in ("width", "height")]
        folder = path.parent.name.removeprefix("features_") if path.parent.name.startswith("features_") else None
        encoder = resolve_encoder(path.name, known.encoder, file.text("encoder", "features"), folder)
    return ForeignBag(
        layout=LAYOUT, features=features, coords=coords, footprint_level0_px=(side, side),
        step_level0_px=(step, step) if step > 0 else None, tile_px=tile_px, encoder=encoder, mpp=mpp, mpp_from=mpp_from,
        asked_mpp=_UM_PER_MAGNIFICATION / asked if asked else None, extent_px=(int(size[0]), int(size[1])),
    )  # fmt: skip


def write(bag: Bag, folder: Path) -> tuple[Path, ...]:
    """Write a bag as a feature file of TRIDENT.

    Parameters
    ----------
    bag : Bag
        What to write; features become float32, which loses nothing.
    folder : Path
        The job folder.

    Returns
    -------
    tuple of Path
        ``features_<encoder>/<slide_id>.h5``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    header, encoder = bag.header, encoder_name(bag.header)
    folder_of_features = f"features_{folder_name(encoder)}"
    path = folder / folder_of_features / f"{header.slide_id}.h5"
    with new_hdf5(path) as file:
        dim = bag.features.shape[1]
        features = file.create_dataset(
            "features", data=bag.features.astype(np.float32), chunks=(1, dim), maxshape=(None, dim)
        )
        features.attrs.update({"name": header.slide_id, "savetodir": folder_of_features, "encoder": encoder})
        coords = file.create_dataset("coords", data=bag.coords.astype(np.int64), chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update(_attributes(bag))
        coords.attrs["savetodir"] = folder_of_features
    return (path,)


def _side_level0_px(file: AuditedFile, tile_px: int) -> float:
    """Return a tile's side before TRIDENT rounded it, where the magnifications still tell."""
    rounded = required(file.path.name, "patch_size_level0", file.number("patch_size_level0", "coords"))
    level0, target = (file.number(f"{name}_magnification", "coords") for name in ("level0", "target"))
    if level0 is None or target is None:
        return rounded
    side = tile_px * level0 / required(file.path.name, "target_magnification", target)
    if abs(side - rounded) > 1:
        raise file.refusal(
            f"a tile is {rounded:g} level-0 pixels by patch_size_level0, {side:g} by patch_size and magnifications"
        )
    return side


def _attributes(bag: Bag) -> dict[str, object]:
    header, side = bag.header, side_level0_px(bag.header)
    target = _UM_PER_MAGNIFICATION / header.target_mpp
    extent = {"level0_width": header.width_px, "level0_height": header.height_px} if header.width_px else {}
    return {
        "patch_size": header.tile_px,
        "patch_size_level0": round(side),
        "level0_magnification": whole_if_whole(target * side / header.tile_px),
        "target_magnification": whole_if_whole(target),
        "overlap": whole_if_whole(overlap_share(header) * header.tile_px),
        "name": header.slide_id,
        **extent,
        MPP_ATTRIBUTE: header.slide_mpp,
    }
