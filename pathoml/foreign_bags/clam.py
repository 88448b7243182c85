"""CLAM: ``h5_files/<slide>.h5`` or ``pt_files/<slide>.pt`` with features, ``patches/<slide>.h5`` with the grid."""

import io
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np

from pathoml.bags import Bag
from pathoml.errors import BagFormatError
from pathoml.files import write_bytes
from pathoml.foreign_bags.record import (
    MPP_ATTRIBUTE,
    TILE_PX_ATTRIBUTE,
    ForeignBag,
    Known,
    checked_arrays,
    required,
    required_px,
    resolve_encoder,
    resolve_mpp,
)
from pathoml.foreign_bags.writing import new_hdf5, side_level0_px
from pathoml.hdf5_audit import MAX_BYTES, AuditedFile, open_audited
from pathoml.units import AnyArray

LAYOUT = "clam"
_SAVE_AGAIN = "save it again as one plain tensor with torch.save"


def read(path: Path, known: Known, patches: Path | None = None) -> ForeignBag:
    """Read a feature file of CLAM and the patch file of the same slide.

    Parameters
    ----------
    path : Path
        ``h5_files/<slide>.h5`` or ``pt_files/<slide>.pt``.
    known : Known
        What is known beside it. CLAM records neither the encoder nor the slide's resolution.
    patches : Path, optional
        Folder of the patch files; by default ``patches`` beside the folder of the feature file.

    Returns
    -------
    ForeignBag
        In level-0 pixels.

    Raises
    ------
    BagFormatError
        If a file is missing, not of this layout, or not to be trusted.
    NoTissueError
        If it holds no tile.
    MissingMppError, BadMppError
        If nobody says the slide's microns per pixel.
    """
    grid = _read_patches(_patch_file(path, patches))
    if path.suffix == ".pt":
        features, coords = _read_pt(path), grid.coords
    else:
        with open_audited(path, "CLAM feature file", "refused") as file:
            features, coords = file.array("features"), file.array("coords")
        if not np.array_equal(coords, grid.coords):
            raise BagFormatError(
                f"{path.name}: its coordinates are not those of its patch file; give the --patches that it was made from"
            )
    features, whole = checked_arrays(path.name, features, coords)
    mpp, mpp_from = resolve_mpp(path.name, known, grid.mpp)
    return ForeignBag(
        layout=LAYOUT, features=features, coords=whole, footprint_level0_px=grid.footprint_level0_px, step_level0_px=None,
        tile_px=grid.tile_px, encoder=resolve_encoder(path.name, known.encoder), mpp=mpp,
        mpp_from=mpp_from, asked_mpp=None, extent_px=grid.extent_px,
    )  # fmt: skip


def write(bag: Bag, folder: Path) -> tuple[Path, ...]:
    """Write a bag as the three files of CLAM.

    Parameters
    ----------
    bag : Bag
        What to write; features become float32, which loses nothing.
    folder : Path
        Where ``patches``, ``h5_files`` and ``pt_files`` are made.

    Returns
    -------
    tuple of Path
        The three files.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    import torch

    name, features = bag.header.slide_id, np.ascontiguousarray(bag.features, dtype=np.float32)
    patches, h5, pt = (
        folder / part / f"{name}.{end}" for part, end in (("patches", "h5"), ("h5_files", "h5"), ("pt_files", "pt"))
    )
    with new_hdf5(patches) as file:
        coords = file.create_dataset("coords", data=bag.coords.astype(np.int64), chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update(_attributes(bag))
    with new_hdf5(h5) as file:
        dim = features.shape[1]
        file.create_dataset("features", data=features, chunks=(32, dim), maxshape=(None, dim))
        file.create_dataset("coords", data=bag.coords.astype(np.int32), chunks=(32, 2), maxshape=(None, 2))
    image = io.BytesIO()
    torch.save(torch.from_numpy(features), image)
    write_bytes(pt, image.getvalue())
    return patches, h5, pt


class _Patches(NamedTuple):
    """What a patch file says."""

    coords: AnyArray
    tile_px: int
    footprint_level0_px: tuple[float, float]
    extent_px: tuple[int, int]
    mpp: tuple[float, ...] | None


def _patch_file(path: Path, patches: Path | None) -> Path:
    found = (patches or path.parent.parent / "patches") / f"{path.stem}.h5"
    if not found.is_file():
        raise BagFormatError(
            f"{path.name}: no patch file {found.name} in the folder {found.parent.name}, so the size of its tiles is not"
            " known; give --patches, the folder 'patches' of create_patches_fp"
        )
    return found


def _read_patches(path: Path) -> _Patches:
    with open_audited(path, "CLAM patch file", "refused") as file:
        name = f"patches/{path.name}"
        patch_size = required_px(name, "patch_size", file.number("patch_size", "coords"))
        down = _downsample(file, name)
        level = file.numbers("level_dim", "coords") or (0.0, 0.0)
        own = file.number(TILE_PX_ATTRIBUTE, "coords")
        return _Patches(
            file.array("coords"),
            patch_size if own is None else required_px(name, TILE_PX_ATTRIBUTE, own),
            (patch_size * down[0], patch_size * down[1]),
            (round(level[0] * down[0]), round(level[-1] * down[1])),
            file.numbers(MPP_ATTRIBUTE, "coords"),
        )


def _downsample(file: AuditedFile, name: str) -> tuple[float, float]:
    """Return what one pixel of the patch level is in level-0 pixels; level 0 is that itself."""
    found = file.numbers("downsample", "coords")
    if found is None and file.number("patch_level", "coords") == 0:
        return 1.0, 1.0
    first = required(name, "downsample", None if found is None else found[0])
    return first, required(name, "downsample", (found or (first,))[-1])


def _attributes(bag: Bag) -> dict[str, object]:
    header = bag.header
    extent = (header.width_px, header.height_px)
    known = {"downsampled_level_dim": extent, "level_dim": extent} if header.width_px else {}
    return {
        "patch_size": round(side_level0_px(header)),
        "patch_level": 0,
        "downsample": (1.0, 1.0),
        **known,
        "name": header.slide_id,
        "save_path": "patches",
        MPP_ATTRIBUTE: header.slide_mpp,
        TILE_PX_ATTRIBUTE: header.tile_px,
    }


def _read_pt(path: Path) -> AnyArray:
    """Read one plain tensor; code in the file is never run, and its claims are held against its size."""
    import torch

    _judge_archive(path)
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BagFormatError(f"{path.name}: not a plain tensor ({reason}); {_SAVE_AGAIN}") from error
    plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
    if not plain or tensor.device.type != "cpu" or tensor.dtype not in {torch.float16, torch.float32, torch.float64}:
        raise BagFormatError(f"{path.name}: holds something else than one tensor of floats; {_SAVE_AGAIN}")
    if not tensor.is_contiguous() or tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise BagFormatError(f"{path.name}: a tensor of shape {tuple(tensor.shape)} in a smaller file; {_SAVE_AGAIN}")
    array: AnyArray = tensor.detach().numpy()
    return array


def _judge_archive(path: Path) -> None:
    """Refuse what is not an archive of uncompressed parts, as torch.save writes it, before anything unpacks it."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise BagFormatError(f"{path.name}: not an archive as torch.save writes it ({error}); {_SAVE_AGAIN}") from error
    held = min(path.stat().st_size, MAX_BYTES)
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > held:
        raise BagFormatError(f"{path.name}: compressed, or larger than its file or {MAX_BYTES} bytes; {_SAVE_AGAIN}")
