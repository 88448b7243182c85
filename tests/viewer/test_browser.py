"""The viewer in a real browser, as its user sees it: Debian's Chromium, driven by Playwright."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathoml.geojson import read_features
from pathoml.pipeline.viewing import open_library
from tests.small_cohort import FinishedRun
from tests.viewer.running import RunningViewer, running_viewer, tunnel_to

pytestmark = [pytest.mark.xdist_group("small_cohort"), pytest.mark.filterwarnings("ignore::ResourceWarning")]

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install 'pathoml[dev]')")
SIZES = {"wide": (1440, 900), "narrow": (720, 1000)}


@pytest.fixture(scope="module")
def viewer(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningViewer]:
    library = open_library(finished.result.folder.root)
    with running_viewer(library, tmp_path_factory.mktemp("cache")) as running:
        yield running


@pytest.fixture(params=["wide", pytest.param("narrow", marks=pytest.mark.slow)])
def page(
    browser: "sync_api.Browser", viewer: RunningViewer, request: pytest.FixtureRequest
) -> Iterator["sync_api.Page"]:
    """A page on the list; what its console says, and what it asks elsewhere, fails the test."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: _is_complaint(message) and complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: _is_own(asked.url, viewer) or complaints.append(f"asked {asked.url}"))
    opened.goto(viewer.address)
    opened.wait_for_selector("tbody tr")
    yield opened
    context.close()
    assert complaints == []


def _is_own(url: str, viewer: RunningViewer) -> bool:
    return url.startswith((f"http://127.0.0.1:{viewer.port}/", "data:", "blob:"))


def _is_complaint(message: "sync_api.ConsoleMessage") -> bool:
    """The tests themselves read canvases back, of which the browser warns."""
    return message.type in {"error", "warning"} and "willReadFrequently" not in message.text


def open_first(page: "sync_api.Page") -> None:
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tiles img")
    page.locator(".leaflet-tile-loaded").nth(4).wait_for(state="attached")
    page.wait_for_load_state("networkidle")


def open_varied(page: "sync_api.Page") -> None:
    """Open the first slide of the list whose tiles differ for its model; one that stopped at once says the same of all."""
    count = page.locator("tbody tr").count()
    address = page.url
    for number in range(count):
        page.goto(address)
        page.wait_for_selector("tbody tr")
        for _ in range(number):
            page.keyboard.press("ArrowDown")
        open_first(page)
        shown = page.eval_on_selector_all("#tiles span", "spans => new Set(spans.map(span => span.textContent)).size")
        if shown > 1:
            return
    pytest.fail("the maps of all slides are of one colour")


def painted_share(page: "sync_api.Page") -> float:
    """Return which share of the map's pixels has a colour."""
    return float(
        page.evaluate(
            """() => { let [on, all] = [0, 0];
            for (const canvas of document.querySelectorAll('canvas.map-tile')) {
              const data = canvas.getContext('2d').getImageData(0, 0, 256, 256).data;
              for (let i = 3; i < data.length; i += 4) { on += data[i] > 0; all += 1; } }
            return all ? on / all : 0; }"""
        )
    )


def wait_for_the_map(page: "sync_api.Page") -> None:
    """Wait until some of the map is painted: while a view moves, its canvases come and go."""
    for _ in range(50):
        if painted_share(page) > 0.05:
            return
        page.wait_for_timeout(100)
    pytest.fail("no map is painted")


def test_through_a_tunnel_at_another_port_all_is_shown(browser: "sync_api.Browser", viewer: RunningViewer) -> None:
    """Only the tunnel's own port is asked: no address of a page names the viewer's."""
    with tunnel_to(viewer) as near:
        context = browser.new_context()
        page = context.new_page()
        strangers: list[str] = []
        page.on("request", lambda asked: _is_own(asked.url, near) or strangers.append(asked.url))
        page.goto(near.address)
        page.wait_for_selector("tbody tr")
        open_first(page)
        page.keyboard.press("n")
        page.wait_for_load_state("networkidle")
        wait_for_the_map(page)
        assert page.locator("#tiles button.chosen").count() == 1
        context.close()
    assert strangers == []


def test_search_and_sort_find_the_slide(page: "sync_api.Page") -> None:
    names = page.eval_on_selector_all("tbody tr", "rows => rows.map(row => row.dataset.name)")
    risks = page.eval_on_selector_all(
        "tbody tr td:last-child", "cells => cells.map(cell => Number(cell.textContent.replace('\\u2212', '-')))"
    )
    assert len(names) > 10
    assert risks == sorted(risks, reverse=True), "the highest risk stands first"
    page.keyboard.press("/")
    page.keyboard.type(names[3])
    assert page.eval_on_selector_all("tbody tr", "rows => rows.map(row => row.dataset.name)") == [names[3]]
    page.fill("#search", "")
    page.get_by_role("button", name="Slide").click()
    assert page.eval_on_selector_all("tbody tr", "rows => rows.map(row => row.dataset.name)") == sorted(names)
    page.get_by_role("button", name="Time").click()
    assert page.get_attribute("th[data-key=time_days]", "aria-sort") == "ascending"


def test_a_slide_opens_zooms_and_shows_map_patient_and_curve(page: "sync_api.Page") -> None:
    open_first(page)
    assert page.inner_text("#notice") == "research use only"
    assert page.locator("#curve path").count() == 3, "the cohort, and both predicted groups"
    assert page.locator("#curve polyline").count() == 1, "the patient"
    bar, length = page.inner_text("#scale b"), page.eval_on_selector("#scale i", "bar => bar.style.width")
    wait_for_the_map(page)
    for _ in range(4):
        page.keyboard.press("Shift+Equal")
        page.wait_for_timeout(350)
    assert (page.inner_text("#scale b"), page.eval_on_selector("#scale i", "bar => bar.style.width")) != (bar, length)
    page.keyboard.press("0")
    page.wait_for_timeout(600)
    assert (page.inner_text("#scale b"), page.eval_on_selector("#scale i", "bar => bar.style.width")) == (bar, length)


def test_threshold_opacity_kind_and_switch_act_on_the_map(page: "sync_api.Page") -> None:
    open_varied(page)
    with page.expect_response(lambda answer: "/map/contribution/percentile/" in answer.url):
        page.keyboard.press("s")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(600)  # tiles that came are painted, those of the scale before are gone
    everything = painted_share(page)
    page.evaluate("document.getElementById('map-threshold').value = 60")
    page.dispatch_event("#map-threshold", "input")
    page.wait_for_timeout(300)
    assert 0.1 * everything < painted_share(page) < 0.9 * everything, (
        "some tiles, not all, lie above the 60th percentile"
    )
    page.keyboard.press("[")
    assert float(page.eval_on_selector(".map-tiles", "layer => layer.style.opacity")) == pytest.approx(0.45)
    page.evaluate("document.getElementById('map-threshold').value = 0")
    page.dispatch_event("#map-threshold", "input")
    before = page.inner_text("#map-label")
    with page.expect_response(lambda answer: "/map/attention/" in answer.url):
        page.keyboard.press("k")
    assert page.inner_text("#map-label") != before
    page.keyboard.press("m")
    assert page.locator("canvas.map-tile").count() == 0


def test_the_cursor_names_the_tile_and_its_score_and_top_tiles_are_jumped_to(
    page: "sync_api.Page", viewer: RunningViewer
) -> None:
    open_first(page)
    page.keyboard.press("n")
    page.wait_for_timeout(800)
    box = page.locator("#map").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    slide = page.url.partition("id=")[2]
    scores = viewer.ask(f"/api/slides/{slide}/scores").json["maps"]["contribution"]
    top = scores["highest"][0]
    assert scores["values"][top] == max(scores["values"])
    said = re.fullmatch(r"tile (\d+): contribution (\S+), attention (\S+)", page.inner_text("#cursor"))
    assert said
    assert (int(said[1]), float(said[2])) == (top, scores["values"][top])
    assert page.locator("#tiles button.chosen").count() == 1


def test_a_region_is_drawn_exported_imported_and_kept(page: "sync_api.Page", tmp_path: Path) -> None:
    open_first(page)
    box = page.locator("#map").bounding_box()
    assert box is not None
    page.fill("#class-name", "Necrosis")
    page.locator("#draw").click()
    corners = [(0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.3, 0.6)]
    for x, y in corners:
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(320)
    page.focus("#map")
    page.keyboard.press("Enter")
    page.locator("#draw-box").click()
    for x, y in ((0.4, 0.7), (0.5, 0.8)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert page.locator("#regions button").all_inner_texts() == ["Necrosis", "Necrosis"]
    with page.expect_download() as download:
        page.locator("#export").click()
    path = tmp_path / "regions.geojson"
    download.value.save_as(path)
    first, second = read_features(path)
    ring = np.array(first["geometry"]["coordinates"][0])
    assert len(ring) == 5
    assert first["properties"]["classification"]["name"] == "Necrosis"
    assert ring.max() > 300, "in pixels of level 0"
    assert np.ptp(ring[:, 0]) > 2 * np.ptp(np.array(second["geometry"]["coordinates"][0])[:, 0])
    page.reload()
    page.wait_for_selector("#regions button")
    assert page.locator("#regions button").count() == 2, "they survive a reload"
    page.locator("#regions button").first.click()
    page.locator("#remove").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#import").click()
    chooser.value.set_files(path)
    page.locator("#regions button").nth(2).wait_for()
    with page.expect_download() as again:
        page.locator("#export").click()
    again.value.save_as(path)
    assert [json.dumps(one) for one in read_features(path)[1:]] == [json.dumps(one) for one in (first, second)]


def test_a_file_that_is_no_geojson_is_named_and_changes_nothing(page: "sync_api.Page", tmp_path: Path) -> None:
    open_first(page)
    path = tmp_path / "notes.geojson"
    path.write_text("not json")
    page.set_input_files("#file", path)
    page.wait_for_selector("#message:not([hidden])")
    assert "not GeoJSON" in page.inner_text("#message")
    assert page.locator("#regions button").count() == 0


def test_the_screen_shows_tissue_map_and_panels(page: "sync_api.Page", tmp_path: Path) -> None:
    import io

    from PIL import Image

    open_first(page)
    page.wait_for_timeout(500)
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    view = pixels[
        int(stage["y"]) : int(stage["y"] + stage["height"]), int(stage["x"]) : int(stage["x"] + stage["width"])
    ]
    assert (np.ptp(view, axis=-1) > 40).mean() > 0.03, "tissue in colour"
    panel = page.locator("aside").bounding_box()
    assert panel is not None
    assert panel["height"] > 300


def test_no_lines_of_the_page_shine_through_between_tiles(page: "sync_api.Page") -> None:
    open_first(page)
    page.evaluate(
        """() => { const own = new CSSStyleSheet(); own.replaceSync('.map-tile { display: none !important; }');
        document.adoptedStyleSheets = [own]; }"""
    )
    box = page.locator("#map").bounding_box()
    for _ in range(3):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.wheel(0, -60)  # a quarter of a level, where edges of tiles fall within pixels
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(600)
        shown = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("L")
        grey = np.asarray(shown, dtype=float)
        for lines in (grey, grey.T):
            beside = np.median(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2, axis=0)
            alone = beside[1:-1] - np.maximum(np.abs(beside[:-2]), np.abs(beside[2:]))
            assert alone.max() < 4  # one row or column of pixels, lighter than both that lie beside
