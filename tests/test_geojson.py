"""Masks and tiles go to QuPath and come back unchanged."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from pathoml.artefacts import MAPPED_ARTEFACTS, QualitySettings
from pathoml.errors import InputError, NoRegionsError
from pathoml.geojson import (
    geojson_finder,
    laid_features,
    mask_features,
    mask_of_features,
    read_features,
    tile_features,
    write_features,
)
from pathoml.slides import SlideGeometry
from pathoml.tiles import LaidTiles
from pathoml.tiling import TilingSettings, make_grid
from pathoml.tissue import GeojsonTissueSettings, TissueMask


def square(left: float, top: float, right: float, bottom: float, name: str | None = None) -> dict:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    properties = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def there_and_back(mask: np.ndarray, geometry: SlideGeometry, path: Path) -> np.ndarray:
    write_features(path, mask_features(mask, geometry, "Tissue"))
    return mask_of_features(read_features(path), geometry, mask.shape)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0.2, 0.95), st.integers(0, 2**32 - 1),
    st.tuples(st.integers(100, 90_001), st.integers(100, 90_001)),
)  # fmt: skip
def test_any_mask_comes_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, share: float, seed: int, size: tuple[int, int]
) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    mask[0, 0] = True
    path = tmp_path_factory.mktemp("geo") / "mask.geojson"
    np.testing.assert_array_equal(there_and_back(mask, SlideGeometry(*size, (1.0,), (0.5, 0.5)), path), mask)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(1, 25), st.floats(0.2, 0.95), st.integers(0, 2**32 - 1))
def test_regions_of_any_mask_are_valid_polygons_of_its_area(rows: int, columns: int, share: float, seed: int) -> None:
    """To GEOS, the same geometry as QuPath's: no ring crosses or touches itself, holes lie inside, parts beside each other."""
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    mask[0, 0] = True
    (feature,) = mask_features(mask, SlideGeometry(columns, rows, (1.0,), None), "Tissue")
    geometry = shapely.geometry.shape(feature["geometry"])
    assert geometry.is_valid, shapely.is_valid_reason(geometry)
    assert geometry.area == pytest.approx(mask.sum())


def test_islands_in_holes_come_back_unchanged(tmp_path: Path) -> None:
    mask = np.zeros((200, 300), dtype=np.uint8)
    for radius, value in ((90, 1), (70, 0), (50, 1), (20, 0)):
        cv2.circle(mask, (150, 100), radius, value, -1)
    geometry = SlideGeometry(30_011, 20_007, (1.0,), (0.25, 0.25))
    np.testing.assert_array_equal(there_and_back(mask > 0, geometry, tmp_path / "m.geojson"), mask > 0)
    (feature,) = mask_features(mask > 0, geometry, "Tissue")
    assert sorted(len(polygon) for polygon in feature["geometry"]["coordinates"]) == [2, 2], "each ring keeps its hole"


def test_coordinates_are_level_zero_pixels_along_the_edges_of_the_mask() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 4:10] = True
    (feature,) = mask_features(mask, SlideGeometry(2000, 1000, (1.0,), (0.5, 0.5)), "Tissue")
    ring = np.array(feature["geometry"]["coordinates"][0][0])
    assert (ring.min(axis=0).tolist(), ring.max(axis=0).tolist()) == ([400.0, 200.0], [1000.0, 500.0])
    assert ring[0].tolist() == ring[-1].tolist(), "closed"
    assert len(ring) == 5, "only corners"


def test_an_empty_mask_has_no_region() -> None:
    assert mask_features(np.zeros((5, 5), dtype=bool), SlideGeometry(50, 50, (1.0,), None), "Tissue") == []


def test_excluded_classes_are_taken_away_under_any_spelling() -> None:
    geometry, shape = SlideGeometry(100, 100, (1.0,), (0.5, 0.5)), (10, 10)
    whole = square(0, 0, 100, 100, "Tumor")
    for name in ("Exclude", "ignore*", "Pen", "FOLD"):
        mask = mask_of_features([whole, square(0, 0, 50, 100, name)], geometry, shape)
        assert not mask[:, :5].any()
        assert mask[:, 5:].all()
    only = mask_of_features([square(0, 0, 50, 100, "Exclude")], geometry, shape)
    assert only[:, 5:].all(), "where only excluded regions are drawn, the rest of the slide stays"
    assert not only[:, :5].any()


def test_a_slanted_polygon_fills_the_pixels_whose_centres_it_holds() -> None:
    rng = np.random.default_rng(2)
    geometry, shape = SlideGeometry(640, 480, (1.0,), (0.5, 0.5)), (48, 64)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = np.stack([320 + 280 * np.cos(angles), 240 + 200 * np.sin(angles)], axis=1)
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [points.tolist()]}, "properties": {}}
    mask = mask_of_features([feature], geometry, shape)
    for row, column in np.ndindex(*shape):
        centre = ((column + 0.5) * 10, (row + 0.5) * 10)
        assert mask[row, column] == (cv2.pointPolygonTest(points.astype(np.float32), centre, False) >= 0)


def test_kept_tiles_are_rectangles_at_their_place() -> None:
    geometry = SlideGeometry(3000, 2000, (1.0,), (0.2527, 0.2527))
    tissue = np.ones((20, 30), dtype=bool)
    grid = make_grid(geometry, TissueMask(tissue), TilingSettings(tile_px=256))
    features = tile_features(grid)
    assert len(features) == len(grid)
    for feature, (x, y) in zip(features, grid.coords.tolist(), strict=True):
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring.min(axis=0).tolist() == [x, y]
        np.testing.assert_allclose(ring.max(axis=0) - (x, y), 256 * 0.5 / 0.2527)
        assert feature["properties"]["classification"]["name"] == "Tile"


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_written_of_a_slide_gives_the_same_mask_and_tiles_when_it_is_read(
    tmp_path: Path, *, kept: bool
) -> None:
    """With artefacts that are only flagged, and with the same ones cut out."""
    rng = np.random.default_rng(3)
    where = {flag: cv2.resize(rng.random((6, 9)), (90, 60)) > 0.8 for flag in MAPPED_ARTEFACTS}
    whole = cv2.resize(rng.random((5, 7)), (90, 60)) > 0.3
    quality = QualitySettings(drop=() if kept else ("pen", "fold", "bubble", "blood_or_pigment"))
    cut = {flag: found & whole for flag, found in where.items() if quality.drops(flag)}
    tissue = whole & ~np.any(list(cut.values()), axis=0) if cut else whole
    geometry, tiling = SlideGeometry(1440, 960, (1.0,), (0.5, 0.5)), TilingSettings(tile_px=64)
    laid = LaidTiles(
        np.zeros((60, 90, 3), np.uint8), TissueMask(tissue, where, cut), make_grid(geometry, TissueMask(tissue), tiling)
    )
    path = tmp_path / "s.geojson"
    write_features(path, laid_features(laid, geometry, quality))
    back = mask_of_features(read_features(path), geometry, tissue.shape)
    np.testing.assert_array_equal(back, tissue)
    np.testing.assert_array_equal(make_grid(geometry, TissueMask(back), tiling).grid, laid.grid.grid)


def written(path: Path, *features: object) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def classed(feature: dict[str, object], name: str) -> dict[str, object]:
    return {**feature, "properties": {"classification": {"name": name}}}


@pytest.mark.parametrize("name", ["Tissue", "Exclude"])
def test_a_polygon_that_cannot_be_read_is_refused_with_its_number_and_class(tmp_path: Path, name: str) -> None:
    broken = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, None], [2, 2]]]}}
    path = written(tmp_path / "s.geojson", classed(square(0, 0, 9, 9), "Tissue"), classed(broken, name))
    with pytest.raises(InputError, match=rf"s\.geojson: region 2 \({name.lower()}\) is no polygon .*QuPath"):
        read_features(path)


def test_a_line_is_left_out_with_a_word_and_refused_where_it_should_take_something_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}}
    tissue = classed(square(0, 0, 9, 9), "Tissue")
    assert len(read_features(written(tmp_path / "a.geojson", tissue, classed(line, "Ruler")))) == 1
    assert "1 LineString" in caplog.text
    with pytest.raises(InputError, match=r"b\.geojson: region 2 \(exclude\) is a LineString"):
        read_features(written(tmp_path / "b.geojson", tissue, classed(line, "Exclude")))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"features": 3}', json.dumps({"features": [{"geometry": {"type": "Point"}}]}), "[" * 100_000,
                json.dumps(square(0, 0, float("nan"), 1))],
)  # fmt: skip
def test_what_holds_no_polygon_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.geojson: (not GeoJSON|holds no polygon|region 1 ).*QuPath"):
        read_features(path)


@pytest.mark.parametrize(
    "properties",
    [{"classification": ["Tissue"]}, {"classification": "tissue"}, {"classification": {"names": ["Tumour", "Tissue"]}},
     {"classification": {"name": "Tissue: Positive"}}, {"name": "TISSUE"}, {"classification": {"names": "Tissue"}}],
)  # fmt: skip
def test_a_class_is_found_however_it_is_written(properties: dict) -> None:
    feature = {**square(0, 0, 50, 100), "properties": properties}
    mask = mask_of_features([feature], SlideGeometry(100, 100, (1.0,), (0.5, 0.5)), (10, 10), include=["Tissue"])
    assert mask[:, :5].all()
    assert not mask[:, 5:].any()


@pytest.mark.parametrize("properties", [{"classification": 3}, {"classification": {"names": 3}}])
def test_a_class_that_names_none_is_refused_and_costs_its_slide(properties: object, tmp_path: Path) -> None:
    feature = {**square(0, 0, 50, 100), "properties": properties}
    geometry = SlideGeometry(100, 100, (1.0,), (0.5, 0.5))
    with pytest.raises(InputError, match=r"a region's class is .* which names none; export it again"):
        mask_of_features([feature], geometry, (10, 10))
    (tmp_path / "s.geojson").write_text(json.dumps({"features": [feature]}), encoding="utf-8")
    find = geojson_finder(GeojsonTissueSettings(folder=tmp_path), "s")
    slide: Any = SimpleNamespace(path=Path("s.svs"), geometry=geometry)
    with pytest.raises(NoRegionsError, match=r"s\.svs: a region's class is"):
        find(slide, np.zeros((10, 10, 3), np.uint8), 8.0, np.zeros((10, 10), bool))
