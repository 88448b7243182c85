"""Bags to and from the layouts of other tools, file after file; one that fails does not stop the others."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pathoml.bags import Bag, read_bag, read_bag_header, write_bag
from pathoml.cohort import SlideEntry, SlidesSettings
from pathoml.errors import BagError, BagFormatError, InputError, NoTissueError, SlideError
from pathoml.files import make_folder
from pathoml.foreign_bags import ForeignBag, Known, SlideFacts, clam, import_bag, stamp, trident
from pathoml.foreign_bags.importing import IMPORT_READER
from pathoml.manifest import read_manifest
from pathoml.slides import SlideGeometry, open_slide, slide_digest, slide_fingerprint

Layout = Literal["trident", "clam", "stamp"]
_WRITERS: dict[Layout, Callable[[Bag, Path], tuple[Path, ...]]] = {
    "trident": trident.write,
    "clam": clam.write,
    "stamp": stamp.write,
}


@dataclass(frozen=True)
class ExchangeVerdict:
    """What became of one bag.

    Parameters
    ----------
    status : str
        ``done``, ``empty`` (no tissue, so there is nothing to make) or ``failed``.
    said : str
        A sentence.
    """

    status: Literal["done", "empty", "failed"]
    said: str


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported, and what is known beside the files.

    Parameters
    ----------
    layout : str
        ``trident``, ``clam`` or ``stamp``.
    files : tuple of Path
        Feature files, each named as its slide.
    output : Path
        Folder for ``<slide_id>.h5``.
    mpp : float or None
        Microns per level-0 pixel of every slide.
    encoder : str or None
        Name of the encoder.
    manifest : Path or None
        Names slides, their files and microns per pixel; slides that are there are fingerprinted.
    target_mpp : float or None
        Resolution that was asked for.
    weights_digest : str
        SHA-256 of the encoder's weights; empty where it is not known.
    patches : Path or None
        Folder of CLAM's patch files.
    """

    layout: Layout
    files: tuple[Path, ...]
    output: Path
    mpp: float | None = None
    encoder: str | None = None
    manifest: Path | None = None
    target_mpp: float | None = None
    weights_digest: str = ""
    patches: Path | None = None


def export_bags(layout: Layout, paths: Sequence[Path], output: Path) -> Iterator[ExchangeVerdict]:
    """Write bags in the layout of another tool.

    Parameters
    ----------
    layout : str
        ``trident``, ``clam`` or ``stamp``.
    paths : sequence of Path
        Bags.
    output : Path
        Folder for the result.

    Yields
    ------
    ExchangeVerdict
        One a bag, in order.

    Raises
    ------
    InputError
        If two bags are of one slide's name.
    OutputError
        If the folder cannot be written to.
    """
    _refuse_double([path.stem for path in paths])
    make_folder(output)
    slides: set[str] = set()
    for path in paths:
        try:
            bag = read_bag(path)
            _check_name(path, bag.header.slide_id, slides)
            written = _WRITERS[layout](bag, output)
        except BagError as error:
            yield ExchangeVerdict("failed", str(error))
            continue
        slides.add(bag.header.slide_id)
        names = ", ".join(str(one.relative_to(output)) for one in written)
        yield ExchangeVerdict("done", f"{path.name}: {len(bag.features)} tiles to {names}")


def import_bags(request: ImportRequest) -> Iterator[ExchangeVerdict]:
    """Turn feature files of another tool into bags.

    Parameters
    ----------
    request : ImportRequest
        Which, and what is known beside them.

    Yields
    ------
    ExchangeVerdict
        One a file, in order.

    Raises
    ------
    InputError
        If two files are of one slide's name, or the digest of weights is none.
    CohortError
        If the manifest has problems.
    OutputError
        If the folder cannot be written to.
    """
    _refuse_double([path.stem for path in request.files])
    if request.weights_digest and not re.fullmatch("[0-9a-f]{64}", request.weights_digest):
        raise InputError(f"weights digest '{request.weights_digest}': expected the 64 hexadecimal digits of a SHA-256")
    entries = None
    if request.manifest is not None:
        entries = read_manifest(SlidesSettings(manifest=request.manifest))
    make_folder(request.output)
    for path in request.files:
        try:
            yield _import_one(path, request, None if entries is None else _entry_of(path, entries))
        except NoTissueError as error:
            yield ExchangeVerdict("empty", str(error))
        except (BagError, SlideError) as error:
            yield ExchangeVerdict("failed", str(error))


def _import_one(path: Path, request: ImportRequest, entry: SlideEntry | None) -> ExchangeVerdict:
    slide, geometry = _facts_of(path, entry)
    foreign = _reader_of(request)(path, _known_of(request, entry, geometry))
    bag, notes = import_bag(foreign, slide, target_mpp=request.target_mpp, weights_digest=request.weights_digest)
    target = request.output / f"{slide.slide_id}.h5"
    if target.exists() and read_bag_header(target).reader != IMPORT_READER:
        raise BagFormatError(
            f"{path.name}: the output holds a bag of slide {slide.slide_id} that was not imported; choose another"
        )
    write_bag(target, bag)
    header = bag.header
    said = f"{path.name}: {len(bag.features)} tiles of {header.tile_px} px at {sum(header.mpp_read) / 2:.4g} mpp, {header.encoder}"
    return ExchangeVerdict("done", "; ".join([said, *notes]))


def _reader_of(request: ImportRequest) -> Callable[[Path, Known], ForeignBag]:
    if request.layout == "clam":
        return partial(clam.read, patches=request.patches)
    return trident.read if request.layout == "trident" else stamp.read


def _entry_of(path: Path, entries: Sequence[SlideEntry]) -> SlideEntry:
    """Return the manifest's line of a file: its slide's id, or its slide's file without the ending, is the file's name."""
    found = [entry for entry in entries if path.stem in {entry.slide_id, entry.path.stem}]
    exact = [entry for entry in found if entry.slide_id == path.stem] or found
    if len(exact) != 1:
        what = "no slide" if not exact else f"{len(exact)} slides"
        raise BagFormatError(f"{path.name}: the manifest names {what} {path.stem}; name each once in slide_id or path")
    return exact[0]


def _facts_of(path: Path, entry: SlideEntry | None) -> tuple[SlideFacts, SlideGeometry | None]:
    """Return what the bag will say of its slide; the slide itself is read only if the manifest says where it is."""
    if entry is None or not entry.path.exists():
        return SlideFacts(path.stem if entry is None else entry.slide_id), None
    with open_slide(entry.path) as slide:
        geometry = slide.geometry
    extent = (geometry.width_px, geometry.height_px)
    return SlideFacts(entry.slide_id, slide_fingerprint(entry.path), slide_digest(entry.path), extent), geometry


def _known_of(request: ImportRequest, entry: SlideEntry | None, geometry: SlideGeometry | None) -> Known:
    metadata = None if geometry is None else geometry.mpp
    if entry is not None and entry.mpp is not None:
        return Known(request.encoder, (entry.mpp, entry.mpp), "manifest", metadata)
    mpp = None if request.mpp is None else (request.mpp, request.mpp)
    return Known(request.encoder, mpp, "option", metadata)


def _check_name(path: Path, slide_id: str, written: Set[str]) -> None:
    """Refuse a name that would lead out of the folder, or onto what was just written."""
    if slide_id in {"", ".", ".."} or any(character in slide_id for character in "/\\\0"):
        raise BagFormatError(f"{path.name}: its slide '{slide_id}' cannot name a file; refused")
    if slide_id in written:
        raise BagFormatError(f"{path.name}: slide {slide_id} was exported already; export it to another folder")


def _refuse_double(names: Sequence[str]) -> None:
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise InputError(f"{len(double)} slide(s) are given more than once: {', '.join(double[:5])}; give each once")
