"""One picture a slide of what was kept, what was dropped and why; one page for a whole archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from pathoml.artefacts import TileFlag
from pathoml.files import atomic_path, make_folder, write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.slides import SlideGeometry
from pathoml.tiles import LaidTiles
from pathoml.tiling import Rejection, TileGrid
from pathoml.units import BoolArray, FloatArray, RgbImage

_LONGEST_PX = 1100
_KEPT = (0, 90, 200)
_OUTLINE = (0, 0, 0)
_REJECTED = {
    Rejection.LITTLE_TISSUE: ((240, 140, 0), "little tissue"),
    Rejection.PEN: ((220, 0, 200), "pen"),
    Rejection.FOLD: ((120, 60, 0), "fold"),
    Rejection.BUBBLE: ((0, 150, 130), "bubble"),
    Rejection.BLOOD_OR_PIGMENT: ((200, 0, 0), "blood or pigment"),
    Rejection.EDGE: ((110, 110, 0), "mostly beyond the slide's edge"),
    Rejection.NOT_DRAWN: ((150, 150, 150), "not drawn"),
}
_FLAGGED = {
    TileFlag.PEN: Rejection.PEN,
    TileFlag.FOLD: Rejection.FOLD,
    TileFlag.BUBBLE: Rejection.BUBBLE,
    TileFlag.BLOOD_OR_PIGMENT: Rejection.BLOOD_OR_PIGMENT,
}
"""Artefacts whose area is tinted in the colour of the reason, also where their tiles stay."""
_UNUSED = ((120, 80, 170), "out of focus or damaged")
_LINE_PX, _LEAST_WIDTH_PX = 22, 420
_OUTLINED_FROM_PX, _TINT = 14, 0.28
"""Tiles that are smaller on the sheet are tinted: their outlines would cover what is to be seen."""


@dataclass(frozen=True)
class SheetEntry:
    """One slide on the page of an archive.

    Parameters
    ----------
    slide_id : str
        The slide.
    site : str
        Its hospital; empty where unknown.
    outcome : str
        ``done``, ``kept``, or the code and sentence of what went wrong.
    sheet : Path or None
        Its picture, or None where it could not be looked at.
    """

    slide_id: str
    site: str
    outcome: str
    sheet: Path | None

    @property
    def failed(self) -> bool:
        """Whether the slide has no bag."""
        return self.outcome not in ("done", "kept")


def draw_contact_sheet(
    laid: LaidTiles, geometry: SlideGeometry, title: str, *, in_bag: NDArray[np.int32] | None = None
) -> RgbImage:  # fmt: skip
    """Draw a slide with its tissue's outline, its tiles, and those that were dropped by reason.

    Parameters
    ----------
    laid : LaidTiles
        What was seen of the slide.
    geometry : SlideGeometry
        Its size.
    title : str
        Name of the slide, as it may be shown.
    in_bag : ndarray of int32, shape (tiles, 2), optional
        Row and column of the tiles that came into the bag; before they are read, all of the grid are shown as kept.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        Picture above, legend below.
    """
    rows, columns = laid.picture.shape[:2]
    factor = _LONGEST_PX / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    sheet: RgbImage = np.ascontiguousarray(cv2.resize(laid.picture, size, interpolation=method))
    scale = (size[0] / geometry.width_px, size[1] / geometry.height_px)
    kept = laid.grid.grid if in_bag is None else in_bag
    shown = [(laid.grid.rejected[laid.grid.reasons == reason], *how) for reason, how in _REJECTED.items()]
    shown.append((_without(laid.grid.grid, kept), *_UNUSED))
    flagged = _tint_artefacts(sheet, laid)
    for places, colour, _ in [*shown, (kept, _KEPT, "")]:
        _draw_tiles(sheet, laid.grid, places, scale, colour)
    _draw_outline(sheet, laid.mask.tissue)
    lines = [(_headline(title, geometry), (0, 0, 0)), (f"{len(kept)} tiles kept", _KEPT)]
    lines += [(f"{len(places)} dropped: {text}", colour) for places, colour, text in shown if len(places)]
    lines += flagged
    lines.append(("outline of the tissue", _OUTLINE))
    width = max(size[0], _LEAST_WIDTH_PX)
    margin = ((0, 0), (0, width - size[0]), (0, 0))
    return np.vstack([np.pad(sheet, margin, constant_values=255), _legend(width, lines)])


def _headline(title: str, geometry: SlideGeometry) -> str:
    """Name a slide and its resolution, which a person can see to be wrong."""
    return title if geometry.mpp is None else f"{title}, {geometry.mpp[0]:.4g} microns per pixel"


def _tint_artefacts(sheet: RgbImage, laid: LaidTiles) -> list[tuple[str, tuple[int, int, int]]]:
    """Tint where artefacts were found; return what to say of kept tiles that are flagged for each."""
    lines = []
    for artefact, reason in _FLAGGED.items():
        where = laid.mask.of(artefact) & ~laid.mask.cut.get(artefact, np.zeros_like(laid.mask.tissue))
        if not where.any():
            continue
        colour, text = _REJECTED[reason]
        area = cv2.resize(where.astype(np.uint8), sheet.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        sheet[area] = np.rint((1 - _TINT) * sheet[area] + _TINT * np.array(colour)).astype(np.uint8)
        count = int(((laid.grid.flags & artefact) > 0).sum())
        lines.append((f"{count} kept and flagged: {text} (tinted)", colour))
    return lines


def sheet_path(bags: Path, slide_id: str) -> Path:
    """Return where a slide's contact sheet lies.

    Parameters
    ----------
    bags : Path
        Folder of the bags.
    slide_id : str
        The slide.

    Returns
    -------
    Path
        PNG file in the folder ``contact_sheets`` beside the bags.
    """
    return bags / "contact_sheets" / f"{slide_id}.png"


def write_contact_sheet(path: Path, sheet: RgbImage) -> None:
    """Write a sheet, whole or not at all; its folder is made if need be.

    Parameters
    ----------
    path : Path
        PNG file.
    sheet : ndarray of uint8, shape (rows, columns, 3)
        From `draw_contact_sheet`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        _, coded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        temporary.write_bytes(coded.tobytes())


def write_archive_page(path: Path, name: str, entries: Sequence[SheetEntry]) -> None:
    """Write one page with the sheets of all slides; those that failed come first.

    Parameters
    ----------
    path : Path
        HTML file; it names the sheets by paths relative to itself.
    name : str
        Of the study.
    entries : sequence of SheetEntry
        The slides.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    ordered = sorted(entries, key=lambda entry: (not entry.failed, entry.site, entry.slide_id))
    failed = sum(entry.failed for entry in entries)
    first = f"{failed} of {len(entries)} slides have no bag; they come first." if failed else "All slides have a bag."
    figures = "\n".join(_figure(entry, path.parent) for entry in ordered)
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: contact sheets</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 1.5rem; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem; align-items: start }}
figure {{ margin: 0; border: 1px solid #ccc; padding: .4rem }}
img {{ width: 100% }} .failed {{ background: #fbeaea }}
</style></head><body>
<h1>{escape(name)}: what was kept of {len(entries)} slides</h1>
<p>{first} {_colours()} Black line: edge of the tissue. {escape(RESEARCH_USE_ONLY.capitalize())}.</p>
<main>
{figures}
</main></body></html>
""",
    )


def _colours() -> str:
    """Explain the colours of the sheets, each beside a sample of itself."""
    named = [(_KEPT, "kept"), *_REJECTED.values(), _UNUSED]
    return " ".join(f'<span style="color: rgb{colour}">&#9632;</span> {escape(text)}.' for colour, text in named)


def _figure(entry: SheetEntry, folder: Path) -> str:
    image = ""
    if entry.sheet is not None:
        source = quote(entry.sheet.relative_to(folder).as_posix())
        image = f'<a href="{source}"><img loading="lazy" src="{source}" alt="{escape(entry.slide_id, quote=True)}"></a>'
    text = escape(entry.slide_id) + (f", {escape(entry.site)}" if entry.site else "")
    text += f"<br>{escape(entry.outcome)}" if entry.failed else ""
    return f'<figure class="{"failed" if entry.failed else ""}">{image}<figcaption>{text}</figcaption></figure>'


def _draw_outline(sheet: RgbImage, tissue: BoolArray) -> None:
    size = (sheet.shape[1], sheet.shape[0])
    mask = cv2.resize(tissue.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(sheet, contours, -1, _OUTLINE, 1)


def _draw_tiles(
    sheet: RgbImage, grid: TileGrid, places: NDArray[np.int32], scale: tuple[float, float], colour: tuple[int, int, int]
) -> None:  # fmt: skip
    stride, footprint = np.array(grid.stride_level0_px), np.array(grid.footprint_level0_px)
    first: FloatArray = (places[:, ::-1] * stride + np.array(grid.origin_level0_px)) * scale
    last = first + footprint * scale - 1
    if (footprint * scale).min() < _OUTLINED_FROM_PX:
        _tint(sheet, np.rint(first).astype(int), np.rint(last).astype(int) + 1, colour)
        return
    for (left, top), (right, bottom) in zip(np.rint(first).astype(int), np.rint(last).astype(int), strict=True):
        cv2.rectangle(sheet, (int(left), int(top)), (int(right), int(bottom)), colour, 1)


def _tint(sheet: RgbImage, first: NDArray[np.int_], stop: NDArray[np.int_], colour: tuple[int, int, int]) -> None:
    covered = np.zeros(sheet.shape[:2], dtype=bool)
    for (left, top), (right, bottom) in zip(np.maximum(first, 0), stop, strict=True):
        covered[top:bottom, left:right] = True
    mixed = (1 - _TINT) * sheet[covered] + _TINT * np.array(colour)
    sheet[covered] = np.rint(mixed).astype(np.uint8)


def _without(places: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the (row, column) pairs that are not among others."""
    among = {tuple(place) for place in others.tolist()}
    return np.array([place for place in places.tolist() if tuple(place) not in among], dtype=np.int32).reshape(-1, 2)


def _legend(width: int, lines: Sequence[tuple[str, tuple[int, int, int]]]) -> RgbImage:
    strip = np.full((_LINE_PX * len(lines) + 8, width, 3), 255, dtype=np.uint8)
    for number, (text, colour) in enumerate(lines, start=1):
        cv2.putText(strip, text, (6, _LINE_PX * number - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)
    return strip
