"""The whole slide at low resolution: an area average, whatever the strips."""

from pathlib import Path

import numpy as np
import pytest

from pathoml.errors import DamagedSlideError, MissingMppError
from pathoml.slides import ReadPlan, Region, Slide, SlideGeometry, TileReader, open_slide, overview, whole_slide_image
from pathoml.slides.overview import coarsest_level, overview_of
from pathoml.testing.pyramid import write_pyramid


class ArraySlide(Slide):
    """A slide in memory, exact to the byte."""

    def __init__(self, levels: list[np.ndarray], *, mpp: tuple[float, float] | None = (0.5, 0.5)) -> None:
        super().__init__(Path("array.tif"))
        self.levels = levels
        self.read: list[tuple[int, tuple[int, int]]] = []
        height, width = levels[0].shape[:2]
        self._geometry = SlideGeometry(width, height, tuple(width / one.shape[1] for one in levels), mpp)

    @property
    def geometry(self) -> SlideGeometry:
        return self._geometry

    @property
    def metadata(self) -> dict[str, str]:
        return {}

    def tile_reader(self, coords: object, plan: ReadPlan, *, threads: int = 1) -> TileReader:
        raise NotImplementedError

    def read_region(
        self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
    ) -> Region:
        assert reduction == 1
        self.read.append((level, size_px))
        downsample = self._geometry.level_downsamples[level]
        x, y = (round(value / downsample) for value in xy_level0_px)
        pixels = np.full((size_px[1], size_px[0], 3), 255, dtype=np.uint8)
        part = self.levels[level][y : y + size_px[1], x : x + size_px[0]]
        pixels[: part.shape[0], : part.shape[1]] = part
        return Region(pixels, None)

    def close(self) -> None:
        pass


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = image.shape[0] // factor, image.shape[1] // factor
    return image.astype(float).reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def limit_strips(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr("pathoml.slides.overview._STRIP_PIXELS", pixels)


@pytest.mark.parametrize("factor", [2, 5, 16])
def test_an_integer_factor_gives_the_mean_of_blocks(factor: int) -> None:
    image = noise(320, 480)
    seen = whole_slide_image(ArraySlide([image]), mpp=0.5 * factor)
    np.testing.assert_allclose(seen, block_mean(image, factor), atol=0.51)


@pytest.mark.parametrize("strip_pixels", [480 * 16, 480 * 48, 480 * 100])
def test_strips_do_not_change_the_picture(monkeypatch: pytest.MonkeyPatch, strip_pixels: int) -> None:
    slide = ArraySlide([noise(320, 480)])
    whole = whole_slide_image(slide, mpp=8.0)
    assert len(slide.read) == 1
    limit_strips(monkeypatch, strip_pixels)
    np.testing.assert_array_equal(whole_slide_image(slide, mpp=8.0), whole)
    assert len(slide.read) > 2


def test_a_strip_never_holds_more_pixels_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_strips(monkeypatch, 480 * 40)
    slide = ArraySlide([noise(331, 480)])
    whole_slide_image(slide, mpp=8.0)
    assert max(width * height for _, (width, height) in slide.read) <= 480 * 41


def test_strips_change_little_where_the_factor_is_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.linspace(0, 255, 331)[:, None, None]
    slide = ArraySlide([np.broadcast_to(rows, (331, 477, 3)).astype(np.uint8)])
    whole = whole_slide_image(slide, mpp=7.3)
    limit_strips(monkeypatch, 477 * 50)
    np.testing.assert_allclose(whole_slide_image(slide, mpp=7.3).astype(int), whole, atol=2)


def test_the_coarsest_level_that_is_fine_enough_is_read() -> None:
    image = noise(320, 480)
    levels = [image, *(np.rint(block_mean(image, factor)).astype(np.uint8) for factor in (4, 16))]
    slide = ArraySlide(levels)
    seen = whole_slide_image(slide, mpp=4.0)
    assert {level for level, _ in slide.read} == {1}
    np.testing.assert_allclose(seen, block_mean(image, 8), atol=1.01)


def test_anisotropic_pixels_are_made_square() -> None:
    seen = whole_slide_image(ArraySlide([noise(320, 480)], mpp=(0.25, 0.5)), mpp=4.0)
    assert seen.shape == (40, 30, 3)


def test_a_slide_without_resolution_is_refused() -> None:
    with pytest.raises(MissingMppError, match=r"array\.tif: no microns-per-pixel"):
        whole_slide_image(ArraySlide([noise(32, 32)], mpp=None), mpp=8.0)


@pytest.mark.parametrize("size", [(301, 407), (1, 1), (3, 900)])
def test_odd_sizes_cover_the_slide(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "odd.tif"
    write_pyramid(path, np.full((*size, 3), 90, dtype=np.uint8), mpp=0.5, downsamples=())
    with open_slide(path) as slide:
        seen = whole_slide_image(slide, mpp=4.0)
    assert seen.shape[:2] == (max(1, round(size[0] / 8)), max(1, round(size[1] / 8)))
    np.testing.assert_allclose(seen.astype(int), 90, atol=3)


def test_a_damaged_tile_leaves_a_hole_and_not_a_lost_slide() -> None:
    class Damaged(ArraySlide):
        def stored_tile_px(self, level: int) -> tuple[int, int]:
            return 100, 60

        def read_region(
            self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
        ) -> Region:
            (x, y), (width, height) = xy_level0_px, size_px
            if x <= 250 < x + width and y <= 250 < y + height:
                raise DamagedSlideError("tile at (250, 250)")
            return super().read_region(xy_level0_px, level, size_px)

    image = np.full((1600, 1600, 3), 90, dtype=np.uint8)
    seen, unread = overview_of(Damaged([image]), mpp=8.0)
    rows, columns = np.nonzero(unread)
    assert (rows.min(), rows.max() + 1) == (240 // 16, -(-300 // 16)), "the stored tile from 240 to 300"
    assert (columns.min(), columns.max() + 1) == (200 // 16, -(-300 // 16)), "and from 200 to 300"
    assert (seen[unread] == 255).all(), "a hole is background"
    assert (seen[~unread] == 90).all()


def test_a_slide_that_is_damaged_all_over_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(ArraySlide):
        tried = 0

        def read_region(
            self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
        ) -> Region:
            self.tried += 1
            raise DamagedSlideError(f"tile at {xy_level0_px}")

    monkeypatch.setattr(overview, "_MOST_FAILURES", 20)
    image = noise(1600, 2400)
    slide = Damaged([image, block_mean(image, 4).astype(np.uint8)])
    with pytest.raises(
        DamagedSlideError, match=r"array\.tif: 20 stored tiles .* cannot be read, the last since: tile at"
    ):
        overview_of(slide, mpp=8.0)
    assert slide.tried == 22, "the whole, and one more than may fail"


def test_where_a_level_is_damaged_the_next_finer_one_is_read() -> None:
    class Damaged(ArraySlide):
        def read_region(
            self, xy_level0_px: tuple[int, int], level: int, size_px: tuple[int, int], *, reduction: int = 1
        ) -> Region:
            if level > 0:
                raise DamagedSlideError("all of this level")
            return super().read_region(xy_level0_px, level, size_px)

    image = noise(1600, 2400)
    levels = [image, block_mean(image, 4).astype(np.uint8), block_mean(image, 16).astype(np.uint8)]
    slide = Damaged(levels)
    seen, unread = overview_of(slide, mpp=8.0)
    assert not unread.any()
    np.testing.assert_allclose(seen, block_mean(image, 16), atol=1)
    assert {level for level, _ in slide.read} == {0}
    assert max(max(size) for _, size in slide.read) <= 512, "memory does not grow with the slide"


def test_a_level_whose_width_does_not_divide_fills_the_picture_to_its_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    dark = [np.full((1600, 1609, 3), 60, dtype=np.uint8), np.full((100, 100, 3), 60, dtype=np.uint8)]
    slide = ArraySlide(dark)
    slide._geometry = SlideGeometry(1609, 1600, (1.0, 16.02), (0.25, 0.25))
    assert whole_slide_image(slide, mpp=4.0).max() == 60


@pytest.mark.parametrize(
    ("downsamples", "expected"),
    [((1.0, 3.9999, 15.998), (1, 2)), ((1.0, 4.0001, 16.002), (1, 2)), ((1.0, 5.0), (1, 1)),
     ((1.0,), (0, 8)), ((1.0, 32.0), (0, 8))],
)  # fmt: skip
def test_the_coarsest_level_comes_before_shrinking_while_decoding(
    downsamples: tuple[float, ...], expected: tuple[int, int]
) -> None:
    geometry = SlideGeometry(60_000, 60_000, downsamples, (1.0, 1.0), reductions=(1, 2, 4, 8))
    assert coarsest_level(geometry, 8.0) == expected
