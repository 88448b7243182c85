"""Regions of a slide as QuPath reads and writes them: GeoJSON polygons in level-0 pixels."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.artefacts import MAPPED_ARTEFACTS, QualitySettings, flag_name
from pathoml.errors import InputError, NoRegionsError
from pathoml.files import write_text
from pathoml.slides import Slide, SlideGeometry
from pathoml.tiles import LaidTiles, TissueFinder
from pathoml.tiling import TileGrid
from pathoml.tissue import IGNORED_CLASSES, GeojsonTissueSettings
from pathoml.units import BoolArray, FloatArray, RgbImage

logger = logging.getLogger(__name__)

Ring = list[tuple[float, float]]
_AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")

_COLOURS = {
    "Tissue": [0, 0, 0], "Pen": [220, 0, 200], "Tile": [0, 90, 200], "Fold": [120, 60, 0], "Bubble": [0, 150, 130],
    "Blood or pigment": [200, 0, 0],
}  # fmt: skip
_MAX_BYTES = 500_000_000
EXCLUDED: tuple[str, ...] = GeojsonTissueSettings.model_fields["exclude"].default
"""Classes that are taken away unless other ones are named."""


def regions_path(settings: GeojsonTissueSettings, slide_id: str) -> Path:
    """Return where the regions of a slide are expected.

    Parameters
    ----------
    settings : GeojsonTissueSettings
        The folder.
    slide_id : str
        The slide.

    Returns
    -------
    Path
        ``<folder>/<slide_id>.geojson``.
    """
    return settings.folder / f"{slide_id}.geojson"


def geojson_finder(settings: GeojsonTissueSettings, slide_id: str) -> TissueFinder:
    """Return the finder that takes what a person outlined for tissue.

    Parameters
    ----------
    settings : GeojsonTissueSettings
        Folder and classes.
    slide_id : str
        The slide.

    Returns
    -------
    TissueFinder
        Raises `NoRegionsError` where the slide has no usable file.
    """

    def find(slide: Slide, picture: RgbImage, mpp: float, hidden: BoolArray) -> BoolArray:
        path, shape = regions_path(settings, slide_id), (picture.shape[0], picture.shape[1])
        classes = {"include": settings.include, "exclude": settings.exclude, "ignore": settings.ignore}
        try:
            return mask_of_features(read_features(path, exclude=settings.exclude), slide.geometry, shape, **classes)
        except InputError as error:
            raise NoRegionsError(f"{slide.path.name}: {error}") from error

    return find


def laid_features(laid: LaidTiles, geometry: SlideGeometry, quality: QualitySettings) -> list[dict[str, Any]]:
    """Return what was seen of a slide: its tissue, each artefact, and the tiles that were kept.

    Parameters
    ----------
    laid : LaidTiles
        What was seen.
    geometry : SlideGeometry
        Size of the slide.
    quality : QualitySettings
        Which artefacts are cut out; the others are called ``Fold (kept)`` and so on, and are ignored where the file is read.

    Returns
    -------
    list of dict
        GeoJSON features. Read as tissue (`geojson_finder`), they give the same mask and the same tiles.
    """
    regions = mask_features(laid.mask.tissue, geometry, "Tissue")
    for artefact in MAPPED_ARTEFACTS:
        name = flag_name(artefact).replace("_", " ").capitalize()
        shown = name if quality.drops(artefact) else f"{name} (kept)"
        regions += mask_features(laid.mask.of(artefact), geometry, shown)
    return regions + tile_features(laid.grid)


def mask_features(mask: BoolArray, geometry: SlideGeometry, name: str) -> list[dict[str, Any]]:
    """Return a mask as polygons along the edges of its pixels, holes included.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
        Covers the slide exactly.
    geometry : SlideGeometry
        Size of the slide.
    name : str
        Class shown in QuPath.

    Returns
    -------
    list of dict
        One GeoJSON feature, or none for an empty mask. `mask_of_features` gives the same mask back.
    """
    rings = list(_rings(mask))
    if not rings:
        return []
    scale = (geometry.width_px / mask.shape[1], geometry.height_px / mask.shape[0])
    outer = [ring for ring in rings if _area(ring) > 0]
    polygons = [[ring] for ring in outer]
    for hole in (ring for ring in rings if _area(ring) < 0):
        holders = [index for index, ring in enumerate(outer) if _holds(ring, hole)]
        polygons[min(holders, key=lambda index: _area(outer[index]))].append(hole)
    coordinates = [[_scaled(ring, scale) for ring in polygon] for polygon in polygons]
    return [_feature({"type": "MultiPolygon", "coordinates": coordinates}, name)]


def tile_features(grid: TileGrid) -> list[dict[str, Any]]:
    """Return kept tiles as rectangles.

    Parameters
    ----------
    grid : TileGrid
        The tiles.

    Returns
    -------
    list of dict
        One GeoJSON feature a tile, in their order, with row, column and tissue share as measurements.
    """
    width, height = grid.footprint_level0_px
    features = []
    for (x, y), (row, column), share in zip(
        grid.coords.tolist(), grid.grid.tolist(), grid.tissue_share.tolist(), strict=True
    ):
        corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
        feature = _feature({"type": "Polygon", "coordinates": [corners]}, "Tile")
        feature["properties"]["measurements"] = {"row": row, "column": column, "tissue share": share}
        features.append(feature)
    return features


def write_features(path: Path, features: Sequence[Mapping[str, Any]]) -> None:
    """Write features as a collection that QuPath imports by dropping it onto the slide.

    Parameters
    ----------
    path : Path
        ``.geojson`` file.
    features : sequence of dict
        GeoJSON features.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(path, json.dumps({"type": "FeatureCollection", "features": list(features)}))


def read_features(path: Path, *, exclude: Sequence[str] = EXCLUDED) -> list[dict[str, Any]]:
    """Read what QuPath exports: a collection, a list of features, or one feature.

    Parameters
    ----------
    path : Path
        ``.geojson`` or ``.json`` file.
    exclude : sequence of str, optional
        Classes of regions that are taken away: a line or a point of one of them is refused, since nobody can say what it
        takes away.

    Returns
    -------
    list of dict
        The features that are polygons; lines and points are left out, with a line in the log.

    Raises
    ------
    InputError
        If the file is not GeoJSON, holds no polygon, or a region that cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path.name}: no such file; export the regions from QuPath (File, Export objects as GeoJSON)")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path.name}: {path.stat().st_size:,} bytes; regions of one slide are smaller")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: not GeoJSON ({error}); export it again from QuPath") from error
    found = content.get("features", [content]) if isinstance(content, dict) else content
    polygons = _polygons_among(found, path.name, exclude) if isinstance(found, list) else []
    if not polygons:
        raise InputError(f"{path.name}: holds no polygon; draw regions of tissue in QuPath and export them")
    return polygons


def mask_of_features(
    features: Sequence[Mapping[str, Any]], geometry: SlideGeometry, shape: tuple[int, int], *,
    include: Sequence[str] = (), exclude: Sequence[str] = EXCLUDED, ignore: Sequence[str] = IGNORED_CLASSES,
) -> BoolArray:  # fmt: skip
    """Fill polygons: a pixel is in where its centre is.

    Parameters
    ----------
    features : sequence of dict
        From `read_features`.
    geometry : SlideGeometry
        Size of the slide.
    shape : tuple of int
        (rows, columns) of the mask, which covers the slide exactly.
    include : sequence of str, optional
        Classes or names of regions that are added, in any case of letters; none given: all that are not excluded.
    exclude : sequence of str, optional
        Those that are taken away from the others; where all are of that kind, from the whole slide.
    ignore : sequence of str, optional
        Those that are neither, unless they are named in one of the two.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True inside.
    """
    scale = (shape[1] / geometry.width_px, shape[0] / geometry.height_px)
    inside, outside = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    wanted, unwanted, passed = ({name.lower() for name in names} for names in (include, exclude, ignore))
    included = bool(wanted)
    for feature in features:
        names = _names(feature)
        excluded = bool(names & unwanted)
        if not excluded and (not names & wanted if wanted else bool(names & passed)):
            continue
        included |= not excluded
        target = outside if excluded else inside
        for polygon in _polygons(feature["geometry"]):
            target |= _filled([np.asarray(ring, dtype=np.float64)[:, :2] * scale for ring in polygon], shape)
    return (inside if included else np.ones(shape, dtype=bool)) & ~outside


def _feature(geometry: dict[str, Any], name: str) -> dict[str, Any]:
    colour = _COLOURS.get(name.removesuffix(" (kept)"), [128, 128, 128])
    return {
        "type": "Feature", "geometry": geometry,
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": colour}},
    }  # fmt: skip


def _polygons_among(features: Sequence[object], name: str, exclude: Sequence[str]) -> list[dict[str, Any]]:
    """Return those that are polygons; what is none is logged, and refused where it cannot be passed over."""
    polygons, others = [], Counter[str]()
    unwanted = {one.lower() for one in exclude}
    for number, feature in enumerate(features, start=1):
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            others["without a shape"] += 1
            continue
        kind, called = str(feature["geometry"].get("type")), _names(feature)
        region = f"{name}: region {number} ({min(called, key=len, default='without a class')})"
        if kind not in _AREAS:
            if called & unwanted:
                raise InputError(f"{region} is a {kind}, which encloses nothing to take away; outline it in QuPath")
            others[kind] += 1
        elif not _is_sound(feature["geometry"]):
            raise InputError(f"{region} is no polygon that can be read; delete it in QuPath or draw it again")
        else:
            polygons.append(feature)
    if others:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        logger.warning("%s: regions that enclose nothing are left out: %s", name, listed)
    return polygons


def _is_sound(geometry: Mapping[str, Any]) -> bool:
    """Say whether all rings of a shape are finite coordinates of three points at least."""
    try:
        rings = [np.asarray(ring, dtype=np.float64) for polygon in _polygons(geometry) for ring in polygon]
    except (ValueError, TypeError, KeyError):
        return False
    return bool(rings) and all(
        ring.ndim == 2 and ring.shape[1] >= 2 and len(ring) >= 3 and np.isfinite(ring).all() for ring in rings
    )


def _polygons(geometry: Mapping[str, Any]) -> list[Any]:
    if geometry["type"] == "GeometryCollection":
        return [polygon for one in geometry["geometries"] for polygon in _polygons(one)]
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else list(geometry["coordinates"])


def _names(feature: Mapping[str, Any]) -> set[str]:
    """Return what a region is called, in small letters: its class, each part of a derived class, and its own name.

    QuPath has written classes as ``{"name": "Tumor: Positive"}`` and as ``{"names": ["Tumor", "Positive"]}``; others write a
    plain text, or a list of them.
    """
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    classification = properties.get("classification") or {}
    parts: Any = classification.get("names") or [] if isinstance(classification, dict) else classification
    parts = [parts] if isinstance(parts, str) else parts
    if not isinstance(parts, list):
        raise InputError(
            f"a region's class is {str(classification)[:60]!r}, which names none; export it again from QuPath"
        )
    if isinstance(classification, dict) and classification.get("name"):
        parts = [*parts, classification["name"], *str(classification["name"]).split(": ")]
    classes = list(dict.fromkeys(str(part) for part in parts))
    return {name.lower() for name in [*classes, ": ".join(classes), str(properties.get("name") or "")] if name}


def _rings(mask: BoolArray) -> Iterator[Ring]:
    """Trace the boundary between True and False: outer rings run clockwise on the screen, holes the other way."""
    padded = np.pad(mask, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each edge of a True pixel towards a False one, directed so that True lies on its right (y points down).
    for (dy, dx), (start, stop) in {
        (-1, 0): ((0, 0), (1, 0)), (0, 1): ((1, 0), (1, 1)), (1, 0): ((1, 1), (0, 1)), (0, -1): ((0, 1), (0, 0)),
    }.items():  # fmt: skip
        beyond = padded[1 + dy : 1 + dy + mask.shape[0], 1 + dx : 1 + dx + mask.shape[1]]
        for y, x in np.argwhere(mask & ~beyond).tolist():
            following.setdefault((x + start[0], y + start[1]), []).append((x + stop[0], y + stop[1]))
    while following:
        first = next(iter(following))
        ring, here, before = [first], first, (0, 0)
        while True:
            there = _next(following, here, before)
            step = (there[0] - here[0], there[1] - here[1])
            if step == before:
                ring[-1] = there
            else:
                ring.append(there)
            here, before = there, step
            if here == first:
                break
        yield from _without_touching([(float(x), float(y)) for x, y in ring])


def _without_touching(ring: Ring) -> Iterator[Ring]:
    """Part a ring where it touches itself at a corner: valid polygons have a hole there, whose ring touches theirs."""
    path: Ring = []
    place: dict[tuple[float, float], int] = {}
    for point in ring:
        start = place.get(point)
        if start is None:
            place[point] = len(path)
            path.append(point)
            continue
        yield [*path[start:], point]
        for passed in path[start + 1 :]:
            del place[passed]
        del path[start + 1 :]


def _next(
    following: dict[tuple[int, int], list[tuple[int, int]]], here: tuple[int, int], before: tuple[int, int]
) -> tuple[int, int]:
    """Take the next edge; where two pixels touch at a corner, the one that turns right, so that each has its own ring."""
    choices = following[here]
    right = (here[0] - before[1], here[1] + before[0])
    there = right if right in choices and len(choices) > 1 else choices[0]
    choices.remove(there)
    if not choices:
        del following[here]
    return there


def _area(ring: Ring) -> float:
    """Return twice the signed area: positive for rings that run clockwise on the screen."""
    points = np.array(ring)
    x, y = points[:, 0], points[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def _holds(ring: Ring, hole: Ring) -> bool:
    """Say whether a point just inside a hole's ring lies inside a ring, by counting crossings to its right."""
    x, y = (hole[0][0] + hole[1][0]) / 2, (hole[0][1] + hole[1][1]) / 2
    y += 0.25 if hole[0][1] == hole[1][1] else 0.0
    points = np.array(ring)
    y0, y1, x0 = points[:-1, 1], points[1:, 1], points[:-1, 0]
    crossed = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1)) & (x0 > x)
    return bool(crossed.sum() % 2)


def _scaled(ring: Ring, scale: tuple[float, float]) -> list[list[float]]:
    return [[x * scale[0], y * scale[1]] for x, y in ring]


def _filled(rings: Sequence[FloatArray], shape: tuple[int, int]) -> BoolArray:
    """Fill rings by the even-odd rule at pixel centres, so that holes stay open."""
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    for ring in rings:
        closed = np.vstack([ring, ring[:1]])
        for (x0, y0), (x1, y1) in pairwise(closed.tolist()):
            low, high = min(y0, y1), max(y0, y1)
            first, last = max(0, int(np.ceil(low - 0.5))), min(rows, int(np.ceil(high - 0.5)))
            if first >= last:
                continue
            centres = np.arange(first, last) + 0.5
            x = x0 + (centres - y0) / (y1 - y0) * (x1 - x0)
            column = np.clip(np.ceil(x - 0.5), 0, columns).astype(int)
            crossings[np.arange(first, last), column] += 1
    inside: BoolArray = np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
    return inside
