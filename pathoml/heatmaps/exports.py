"""Maps for other programs: a table of tiles, regions for QuPath, and a pyramidal image of the values."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pandas as pd
import tifffile

from pathoml.files import atomic_path, write_text
from pathoml.geojson import mask_features, write_features
from pathoml.heatmap_settings import MapName, MapScale
from pathoml.heatmaps.painting import Window, paint, tile_lattice
from pathoml.heatmaps.scales import ScaledMap
from pathoml.heatmaps.slide_maps import SlideMaps
from pathoml.slides import SlideGeometry
from pathoml.units import FloatArray

BANDS = 5
_BAND_NAMES = ("lowest", "low", "middle", "high", "highest")
_TILE_PX = 256


def tile_table(maps: SlideMaps) -> pd.DataFrame:
    """Return the values of a slide's tiles as a table.

    Parameters
    ----------
    maps : SlideMaps
        Of the slide.

    Returns
    -------
    DataFrame
        One row a tile: slide_id, tile, row, column, place and size in level-0 pixels, and a column a kind of map.
    """
    header = maps.header
    place: dict[str, Any] = {
        "slide_id": header.slide_id, "tile": np.arange(len(maps.grid)), "row": maps.grid[:, 0], "column": maps.grid[:, 1],
        "x_px": header.origin_level0_px[0] + maps.grid[:, 1] * header.stride_level0_px[0],
        "y_px": header.origin_level0_px[1] + maps.grid[:, 0] * header.stride_level0_px[1],
        "width_px": header.footprint_level0_px[0], "height_px": header.footprint_level0_px[1],
    }  # fmt: skip
    return pd.DataFrame({**place, **{str(kind): values for kind, values in maps.values.items()}})


def write_tile_table(path: Path, maps: SlideMaps) -> None:
    """Write the values of a slide's tiles as CSV.

    Parameters
    ----------
    path : Path
        Where to.
    maps : SlideMaps
        Of the slide.
    """
    write_text(path, tile_table(maps).to_csv(index=False, float_format="%.8g"))


def band_features(maps: SlideMaps, kind: MapName, scale: MapScale) -> list[dict[str, Any]]:
    """Return a map as regions of five bands of its colours, along the edges of tiles.

    Parameters
    ----------
    maps : SlideMaps
        Of the slide.
    kind, scale : str
        Which map.

    Returns
    -------
    list of dict
        One GeoJSON feature a band that has tiles, lowest first: class ``contribution: 5 highest`` and so on, in the colour
        of the band's middle, with its ends as measurements.
    """
    scaled = maps.scaled(kind, scale)
    lattice = tile_lattice(maps.header, maps.grid, scaled.values)
    extra = [math.ceil(lattice.footprint_px[axis] / lattice.stride_px[axis] - 1e-9) - 1 for axis in (1, 0)]
    rows, columns = (lattice.values.shape[axis] - 1 + extra[axis] for axis in (0, 1))
    left = lattice.origin_px[0] + lattice.first[1] * lattice.stride_px[0]
    top = lattice.origin_px[1] + lattice.first[0] * lattice.stride_px[1]
    # What of overlapping tiles lies beyond the slide's edge is left out: cut to the edge it would be a line.
    columns = min(columns, math.ceil((maps.header.width_px - left) / lattice.stride_px[0] - 1e-9))
    rows = min(rows, math.ceil((maps.header.height_px - top) / lattice.stride_px[1] - 1e-9))
    width, height = columns * lattice.stride_px[0], rows * lattice.stride_px[1]
    band = _bands(paint(lattice, Window(left, top, width, height, (rows, columns))), scaled)
    geometry = SlideGeometry(1, 1, (1.0,), None)  # polygons in shares of the window, brought to their places below
    features = []
    for number in range(BANDS):
        for feature in mask_features(band == number, geometry, _band_class(kind, number)):
            feature["geometry"]["coordinates"] = _placed(
                feature["geometry"]["coordinates"], (left, top), (width, height), maps
            )
            features.append(_classified(feature, kind, scaled, number))
    return features


def tile_value_features(maps: SlideMaps, kind: MapName, scale: MapScale) -> list[dict[str, Any]]:
    """Return the tiles as rectangles with their values.

    Parameters
    ----------
    maps : SlideMaps
        Of the slide.
    kind, scale : str
        Which map gives the classes; the measurements hold all.

    Returns
    -------
    list of dict
        One GeoJSON feature a tile, in their order.
    """
    scaled = maps.scaled(kind, scale)
    bands = _bands(scaled.values, scaled)
    features = []
    for row, band in zip(tile_table(maps).to_dict("records"), bands.tolist(), strict=True):
        x, y, right, bottom = row["x_px"], row["y_px"], row["x_px"] + row["width_px"], row["y_px"] + row["height_px"]
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
        one = _classified(feature, kind, scaled, band)
        one["properties"]["objectType"] = "detection"
        one["properties"]["measurements"] = {name: row[name] for name in ("tile", *map(str, maps.values))}
        features.append(one)
    return features


def write_band_file(path: Path, maps: SlideMaps, kind: MapName, scale: MapScale) -> None:
    """Write `band_features` for QuPath.

    Parameters
    ----------
    path : Path
        ``.geojson`` file.
    maps : SlideMaps
        Of the slide.
    kind, scale : str
        Which map.
    """
    write_features(path, band_features(maps, kind, scale))


def write_tile_file(path: Path, maps: SlideMaps, kind: MapName, scale: MapScale) -> None:
    """Write `tile_value_features` for QuPath.

    Parameters
    ----------
    path : Path
        ``.geojson`` file.
    maps : SlideMaps
        Of the slide.
    kind, scale : str
        Which map.
    """
    write_features(path, tile_value_features(maps, kind, scale))


def write_ome_tiff(path: Path, raster: FloatArray, *, mpp: tuple[float, float], name: str, label: str) -> None:
    """Write a map's values as a pyramidal OME-TIFF.

    Parameters
    ----------
    path : Path
        ``.ome.tif`` file.
    raster : ndarray of float64, shape (rows, columns)
        Of `pathoml.heatmaps.tile_raster`; it covers the slide, so that it lies on it at the same corner.
    mpp : tuple of float
        Microns that its pixels span in x and y.
    name : str
        Of the image.
    label : str
        What the values are; the name of the only channel.

    Notes
    -----
    Float32, NaN where there is no tile, tiles of 256 pixels, Deflate. Halved levels as SubIFDs, as OME-TIFF 6 says. A
    coarser pixel is the mean of the finer ones that have a value.
    """
    levels = list(_halvings(raster.astype(np.float32)))
    description = _ome_xml(levels[0].shape, mpp, name, label)
    options: Mapping[str, Any] = {
        "photometric": "minisblack", "tile": (_TILE_PX, _TILE_PX), "compression": "zlib", "metadata": None,
        "compressionargs": {"level": 1}, "software": False,
    }  # fmt: skip
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, ome=False) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, description=description, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)


def _bands(values: FloatArray, scaled: ScaledMap) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return which fifth of the colours each value falls in; -1 for none."""
    share = np.clip((np.nan_to_num(values) - scaled.low) / (scaled.high - scaled.low), 0, 1)
    return np.where(np.isfinite(values), np.minimum((share * BANDS).astype(np.int64), BANDS - 1), -1)


def _band_class(kind: MapName, number: int) -> str:
    return f"{kind}: {number + 1} {_BAND_NAMES[number]}"


def _classified(feature: dict[str, Any], kind: MapName, scaled: ScaledMap, number: int) -> dict[str, Any]:
    step = (scaled.high - scaled.low) / BANDS
    colour = scaled.palette()[round((number + 0.5) / BANDS * 254)].tolist()
    properties = {
        "objectType": "annotation", "classification": {"name": _band_class(kind, number), "color": colour},
        "measurements": {"from": scaled.low + number * step, "to": scaled.low + (number + 1) * step},
    }  # fmt: skip
    return {**feature, "properties": properties}


def _placed(polygons: Any, corner: tuple[float, float], size: tuple[float, float], maps: SlideMaps) -> list[Any]:
    """Bring polygons to level-0 pixels, cut at the slide's edge."""
    limit = (maps.header.width_px, maps.header.height_px)
    return [
        [
            [[min(corner[axis] + point[axis] * size[axis], limit[axis]) for axis in (0, 1)] for point in ring]
            for ring in polygon
        ]
        for polygon in polygons
    ]


def _halvings(values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> Iterator[Any]:
    yield values
    while max(values.shape) > _TILE_PX:
        size = (max(1, values.shape[1] // 2), max(1, values.shape[0] // 2))
        known = np.isfinite(values).astype(np.float32)
        total = cv2.resize(np.nan_to_num(values), size, interpolation=cv2.INTER_AREA)
        share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
        values = np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0).astype(np.float32)
        yield values


def _ome_xml(shape: tuple[int, ...], mpp: tuple[float, float], name: str, label: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 '
        'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd">'
        f'<Image ID="Image:0" Name={quoteattr(name)}><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="float" '
        f'SizeX="{shape[1]}" SizeY="{shape[0]}" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{mpp[0]:.9g}" '
        f'PhysicalSizeXUnit="&#181;m" PhysicalSizeY="{mpp[1]:.9g}" PhysicalSizeYUnit="&#181;m">'
        f'<Channel ID="Channel:0:0" Name={quoteattr(label)} SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
