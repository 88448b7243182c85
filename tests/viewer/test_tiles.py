"""The deep zoom shows every place of a slide where it is, at every step."""

import io
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from pathoml.errors import SlideError
from pathoml.heatmaps import SlideMaps, name_of_way
from pathoml.slides import open_slide
from pathoml.testing.pyramid import write_pyramid
from pathoml.viewer import pyramid, shelf
from pathoml.viewer.caches import ByteCache
from pathoml.viewer.library import Library, ViewedSlide
from pathoml.viewer.pyramid import NoOverviewError, ZoomSteps, needs_overview, render, tile_rectangle
from pathoml.viewer.shelf import SlideShelf
from tests.test_heatmaps import header
from tests.viewer.conftest import coloured
from tests.viewer.running import RunningViewer, running_viewer


def decoded(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).astype(int)


@pytest.mark.parametrize("which", [0, 1])
def test_every_tile_of_every_step_shows_its_own_place(viewer: RunningViewer, which: int) -> None:
    slide = viewer.slide_ids()[which]
    image = viewer.ask(f"/api/slides/{slide}").json["image"]
    steps = ZoomSteps(image["width_px"], image["height_px"])
    assert image["deepest"] == steps.deepest
    seen = 0
    for zoom in range(steps.deepest + 1):
        side = 256 * steps.downsample(zoom)
        for row in range(-(-steps.height_px // side)):
            for column in range(-(-steps.width_px // side)):
                tile = decoded(viewer.ask(f"/api/slides/{slide}/tiles/{zoom}/{column}/{row}.jpg").body)
                assert tile.shape == (256, 256, 3)
                for share in (0.1, 0.45, 0.8):
                    x, y = column * side + share * side, row * side + share * side
                    if x < steps.width_px - 4 * steps.downsample(zoom) and y < steps.height_px - 4 * steps.downsample(
                        zoom
                    ):
                        expected = [x * 255 / steps.width_px, y * 255 / steps.height_px, 128]
                        place = int(share * 256)
                        assert np.abs(tile[place, place] - expected).max() < 6
                        seen += 1
    assert seen > 20


def test_a_map_by_way_of_a_part_is_found_whatever_the_part_is_called(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "slide.tif", coloured(1200, 800), mpp=0.5)
    grid = np.array([[1, 2]], dtype=np.int32)
    name = name_of_way("copy/number & more")
    maps = SlideMaps(header(1200, 800, 200), grid[:, ::-1] * 200, grid, {name: np.array([3.0])}, {})
    library = Library("one", (ViewedSlide("slide", tmp_path / "slide.tif", None, "P"),), maps_of=lambda _: maps)
    with running_viewer(library, tmp_path) as viewer:
        address = f"/api/slides/{viewer.slide_ids()[0]}"
        (told,) = viewer.ask(f"{address}/scores").json["maps"].values()
        assert told["title"] == "What each tile adds by way of copy/number & more"
        answer = viewer.ask(f"{address}/map/{quote(name, safe='')}/raw/0/0/0")
        steps = np.frombuffer(answer.body, dtype=np.uint8).reshape(256, 256)
        assert (steps > 0).sum() == pytest.approx((200 / 8) ** 2, rel=0.05)
        assert viewer.ask(f"{address}/map/by%20nothing/raw/0/0/0").status == 404
        assert viewer.ask(f"{address}/map/{quote(name, safe='')}/cohort/0/0/0").status == 404


def test_beyond_the_slide_a_tile_is_white(viewer: RunningViewer) -> None:
    slide = viewer.slide_ids()[1]
    image = viewer.ask(f"/api/slides/{slide}").json["image"]
    last = (image["width_px"] - 1) // 256
    tile = decoded(viewer.ask(f"/api/slides/{slide}/tiles/{image['deepest']}/{last}/0.jpg").body)
    assert tile[:, image["width_px"] - last * 256 + 8 :].min() > 245


@pytest.mark.parametrize(("width", "height"), [(1, 1), (256, 256), (257, 10), (100_000, 90_000), (2220, 2967)])
def test_the_first_step_is_one_tile_and_the_last_has_the_stored_pixels(width: int, height: int) -> None:
    steps = ZoomSteps(width, height)
    assert steps.downsample(steps.deepest) == 1
    assert steps.holds(0, 0, 0)
    assert not steps.holds(0, 1, 0)
    assert not steps.holds(0, 0, 1)
    last = ((width - 1) // 256, (height - 1) // 256)
    assert steps.holds(steps.deepest, *last)
    assert not steps.holds(steps.deepest, last[0] + 1, last[1])
    assert not steps.holds(steps.deepest + 1, 0, 0)


def test_a_slide_without_a_pyramid_gets_an_overview_that_shows_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flat.tif"
    write_pyramid(path, coloured(2600, 1800), mpp=0.5, downsamples=())
    for name, value in (("DIRECT_PX", 1 << 16), ("MOST_PX", 1 << 18)):
        monkeypatch.setattr(pyramid, name, value)
    cache = tmp_path / "cache"
    cache.mkdir()
    shelved = SlideShelf([ViewedSlide("flat", path, None, "P")], cache)
    assert needs_overview(shelved.facts(0).geometry)
    steps = shelved.facts(0).steps
    whole = tile_rectangle(steps, 0, 0, 0)
    with open_slide(path) as slide, pytest.raises(NoOverviewError):
        render(slide, whole)
    deadline = time.monotonic() + 30
    while (levels := shelved.overview(0)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert levels
    with open_slide(path) as slide:
        picture = render(slide, whole, levels).astype(int)
    y, x = (np.arange(size) + 0.5 for size in picture.shape[:2])
    assert np.abs(picture[..., 0] - (x / picture.shape[1] * 255)[None, :]).max() < 8
    assert np.abs(picture[..., 1] - (y / picture.shape[0] * 255)[:, None]).max() < 8
    shelved.close()
    kept = sorted(cache.iterdir())
    again = SlideShelf([ViewedSlide("flat", path, None, "P")], cache)
    monkeypatch.setattr(shelf, "shrunken_image", lambda *_: pytest.fail("the overview is there already"))
    while again.overview(0) is None:
        time.sleep(0.02)
    again.close()
    assert sorted(cache.iterdir()) == kept


def test_an_overview_that_is_damaged_or_failed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flat.tif"
    write_pyramid(path, coloured(2600, 1800), mpp=0.5, downsamples=())
    for name, value in (("DIRECT_PX", 1 << 16), ("MOST_PX", 1 << 18)):
        monkeypatch.setattr(pyramid, name, value)
    cache = tmp_path / "cache"
    cache.mkdir()

    def overview(shelved: SlideShelf) -> object:
        deadline = time.monotonic() + 30
        while (levels := shelved.overview(0)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return levels

    shelved = SlideShelf([ViewedSlide("flat", path, None, "P")], cache)
    whole = [level.pixels.copy() for level in overview(shelved)]
    shelved.close()
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:300])
    shelved = SlideShelf([ViewedSlide("flat", path, None, "P")], cache)
    for level, expected in zip(overview(shelved), whole, strict=True):
        np.testing.assert_array_equal(level.pixels, expected)
    shelved.close()
    for file in cache.iterdir():
        file.unlink()
    shelved = SlideShelf([ViewedSlide("flat", path, None, "P")], cache)
    shelved.facts(0)
    with monkeypatch.context() as patch:

        def away(*_: object) -> None:
            raise SlideError("the share is away")

        patch.setattr(shelf, "shrunken_image", away)
        with pytest.raises(SlideError, match="away"):
            overview(shelved)
    assert overview(shelved), "tried again when it is asked for next"
    shelved.close()


def test_the_shelf_keeps_few_slides_open_and_closes_all_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class Handle:
        def __init__(self, path: Path) -> None:
            self.path, self.closed = path, False
            self.geometry = open_slide_geometry
            opened.append(self)

        def close(self) -> None:
            self.closed = True

    path = tmp_path / "a.tif"
    write_pyramid(path, coloured(300, 300), mpp=0.5, downsamples=())
    with open_slide(path) as slide:
        open_slide_geometry = slide.geometry
    monkeypatch.setattr(shelf, "open_slide", lambda path, mpp: Handle(path))
    shelved = SlideShelf([ViewedSlide(str(number), path, None, "P") for number in range(40)], tmp_path)
    for number in range(40):
        with shelved.lend(number):
            pass
    assert sum(not one.closed for one in opened) <= 8
    with shelved.lend(39), shelved.lend(39):
        assert sum(not one.closed for one in opened) <= 10, "two threads never share a handle"
    shelved.close()
    assert all(one.closed for one in opened)


def test_the_cache_forgets_what_was_used_longest_ago_and_never_holds_more_than_its_limit() -> None:
    made: list[int] = []

    def make(number: int) -> bytes:
        made.append(number)
        return bytes(10)

    cache = ByteCache(35)
    for number in (1, 2, 3, 1, 4, 1, 2):
        cache.get(number, lambda number=number: make(number))
    assert made == [1, 2, 3, 4, 2]
    assert len(cache.get("large", lambda: bytes(99))) == 99
    cache.get(2, lambda: make(2))
    assert made[-1] == 2
    assert made.count(2) == 2, "an answer larger than the cache pushes nothing out"
