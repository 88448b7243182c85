"""Maps for other programs: what they read is what was written, where it belongs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import shapely.geometry
import tifffile

from pathoml.geojson import mask_of_features, read_features
from pathoml.heatmaps import (
    SlideMaps,
    Window,
    band_features,
    overlay_image,
    paint,
    scaled_map,
    tile_raster,
    tile_table,
    write_band_file,
    write_ome_tiff,
    write_overlay,
    write_tile_file,
    write_tile_table,
)
from pathoml.slides import SlideGeometry
from tests.test_heatmaps import grid_of, header


def maps_of(width: int = 3001, height: int = 2003, side: float = 224.4, stride: float | None = None) -> SlideMaps:
    one = header(width, height, side, stride)
    step = one.stride_level0_px[0]
    grid = grid_of(int((height - 1) // step) + 1, int((width - 1) // step) + 1, 0.7)
    generator = np.random.default_rng(5)
    values = {"contribution": generator.normal(size=len(grid)), "attention": generator.random(len(grid)) * 2}
    coords = np.rint(grid[:, ::-1] * step).astype(np.int32)
    return SlideMaps(one, coords, grid, values, {"contribution": 2.5, "attention": 1.8})


@pytest.mark.parametrize("stride", [224.4, 112.2])
@pytest.mark.parametrize("kind", ["contribution", "attention"])
def test_bands_of_geojson_cover_each_tile_once_in_the_band_of_its_colour(
    tmp_path: Path, kind: str, stride: float
) -> None:
    maps = maps_of(stride=stride)
    path = tmp_path / "map.geojson"
    write_band_file(path, maps, kind, "cohort")
    features = read_features(path)
    names = [feature["properties"]["classification"]["name"] for feature in features]
    assert names == [
        f"{kind}: {number} {word}" for number, word in enumerate(("lowest", "low", "middle", "high", "highest"), 1)
    ]
    geometry = SlideGeometry(maps.header.width_px, maps.header.height_px, (1.0,), (0.5, 0.5))
    pixels = 16 if stride == 224.4 else 8
    shape = tuple(int(size // (stride / pixels)) for size in (maps.header.height_px, maps.header.width_px))
    masks = [mask_of_features([feature], geometry, shape) for feature in features]
    window = Window(0, 0, maps.header.width_px, maps.header.height_px, shape)
    painted = paint(maps.lattice(kind, "cohort"), window)
    covered = np.sum(masks, axis=0)
    assert (covered[np.isfinite(painted)] == 1).mean() > 0.97, "all but pixels on the edges of tiles"
    assert covered.max() == 1
    scaled = maps.scaled(kind, "cohort")
    edges = np.linspace(scaled.low, scaled.high, 6)
    for number, (mask, feature) in enumerate(zip(masks, features, strict=True)):
        low, high = (feature["properties"]["measurements"][name] for name in ("from", "to"))
        assert (low, high) == pytest.approx((edges[number], edges[number + 1]))
        inside = np.clip(painted[mask & np.isfinite(painted)], scaled.low, scaled.high)
        assert ((inside >= low - 1e-9) & (inside <= high + 1e-9)).mean() > 0.9
        red, green, blue = feature["properties"]["classification"]["color"]
        if kind == "contribution" and number in {0, 4}:
            assert (red > blue) == (number == 4)
        assert all(isinstance(part, int) and 0 <= part <= 255 for part in (red, green, blue))


def test_regions_are_valid_geojson_inside_the_slide_with_closed_rings(tmp_path: Path) -> None:
    maps = maps_of()
    for feature in band_features(maps, "contribution", "raw"):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "MultiPolygon"
        assert feature["properties"]["objectType"] == "annotation"
        for polygon in feature["geometry"]["coordinates"]:
            for ring in polygon:
                assert len(ring) >= 4
                assert ring[0] == ring[-1]
                points = np.array(ring)
                assert points.min() >= 0
                assert (points <= [maps.header.width_px, maps.header.height_px]).all()


@pytest.mark.parametrize("stride", [224.4, 112.2])
@pytest.mark.parametrize("kind", ["contribution", "attention"])
def test_regions_and_tiles_are_valid_to_the_geometry_that_qupath_uses(tmp_path: Path, kind: str, stride: float) -> None:
    """GEOS is the same geometry as QuPath's: rings closed, none crossing itself, holes inside, bands beside each other."""
    maps = maps_of(stride=stride)
    write_band_file(tmp_path / "bands.geojson", maps, kind, "raw")
    write_tile_file(tmp_path / "tiles.geojson", maps, kind, "raw")
    content = {name: json.loads((tmp_path / f"{name}.geojson").read_text()) for name in ("bands", "tiles")}
    for collection in content.values():
        assert collection["type"] == "FeatureCollection"
        for feature in collection["features"]:
            assert set(feature) >= {"type", "geometry", "properties"}
            geometry = shapely.geometry.shape(feature["geometry"])
            assert geometry.is_valid, shapely.is_valid_reason(geometry)
            assert geometry.area > 0
    bands, tiles = (
        [shapely.geometry.shape(feature["geometry"]) for feature in content[name]["features"]] for name in content
    )
    slide = shapely.box(0, 0, maps.header.width_px, maps.header.height_px)
    whole = shapely.union_all(bands)
    assert whole.area == pytest.approx(sum(band.area for band in bands), rel=1e-6), "bands lie beside each other"
    seen = shapely.intersection(shapely.union_all(tiles), slide)
    assert shapely.symmetric_difference(whole, seen).area < 0.001 * seen.area, "together they are the tiles"


def test_tiles_of_geojson_and_csv_hold_every_value_at_its_place(tmp_path: Path) -> None:
    maps = maps_of(stride=100.1)
    write_tile_file(tmp_path / "tiles.geojson", maps, "attention", "raw")
    write_tile_table(tmp_path / "tiles.csv", maps)
    features = read_features(tmp_path / "tiles.geojson")
    table = pd.read_csv(tmp_path / "tiles.csv", dtype={"slide_id": str})
    assert len(features) == len(table) == len(maps.grid)
    assert list(table) == list(tile_table(maps))
    for kind, values in maps.values.items():
        np.testing.assert_allclose(table[kind], values, rtol=1e-6)
        found = [feature["properties"]["measurements"][kind] for feature in features]
        np.testing.assert_array_equal(found, values)
    corners = np.array([feature["geometry"]["coordinates"][0][0] for feature in features])
    np.testing.assert_allclose(corners, table[["x_px", "y_px"]], rtol=1e-6)
    np.testing.assert_allclose(corners, maps.coords, atol=0.51)
    sides = np.array([np.ptp(feature["geometry"]["coordinates"][0], axis=0) for feature in features])
    np.testing.assert_allclose(sides, 224.4)


def test_the_ome_tiff_holds_the_values_the_resolution_and_halved_levels(tmp_path: Path) -> None:
    maps = maps_of()
    raster = tile_raster(maps.header, maps.grid, maps.values["contribution"], (801, 1203))
    path = tmp_path / "map.ome.tif"
    write_ome_tiff(path, raster, mpp=(1.247, 1.25), name="S<1>", label='what "it" is & more')
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        (series,) = tiff.series
        assert [level.shape for level in series.levels] == [(801, 1203), (400, 601), (200, 300), (100, 150)]
        np.testing.assert_array_equal(series.levels[0].asarray(), raster.astype(np.float32))
        description = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        assert description["Name"] == "S<1>"
        pixels = description["Pixels"]
        assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == (1.247, 1.25)
        assert pixels["Channel"]["Name"] == 'what "it" is & more'
        assert tiff.pages[0].is_tiled
        last = series.levels[-1].asarray()
    assert np.nanmean(last) == pytest.approx(np.nanmean(raster), abs=0.02)
    assert np.isnan(last).any()
    high = np.nanquantile(raster, 0.98)
    assert np.nanmax(last) <= np.nanmax(raster) + 1e-6
    assert (last > high).sum() > 0, "the mean of known pixels, not thinned by those without"


def test_an_overlay_changes_the_picture_only_where_there_are_tiles(tmp_path: Path) -> None:
    maps = maps_of()
    scaled = scaled_map(maps.values["contribution"], "contribution", "raw")
    raster = tile_raster(maps.header, maps.grid, scaled.values, (200, 300))
    picture = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    image = overlay_image(picture, raster, scaled, 0.5)
    empty = np.isnan(raster)
    np.testing.assert_array_equal(image[empty], picture[empty])
    colours = scaled.palette()[scaled.steps_of(raster[~empty]).astype(int) - 1]
    np.testing.assert_allclose(image[~empty].astype(float), (picture[~empty] + colours.astype(float)) / 2, atol=0.51)
    np.testing.assert_array_equal(overlay_image(picture, raster, scaled, 1.0)[~empty], colours)
    write_overlay(tmp_path / "o.png", image)
    from PIL import Image

    with Image.open(tmp_path / "o.png") as read:
        np.testing.assert_array_equal(np.asarray(read), image)
