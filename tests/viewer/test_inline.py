"""The slide in a notebook: the widget gives the viewer's tiles, and a picture stands in for it."""

import base64
import builtins
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathoml.heatmaps import SlideMaps
from pathoml.testing.pyramid import write_pyramid
from pathoml.viewer.inline import StillSlide, show_slide
from tests.test_heatmaps import header
from tests.viewer.conftest import coloured

SIZE = (1200, 800)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tif"
    write_pyramid(path, coloured(*SIZE), mpp=0.5)
    return path


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def one_tile_map() -> SlideMaps:
    grid = np.array([[1, 2]], dtype=np.int32)
    return SlideMaps(header(*SIZE, 200), grid[:, ::-1] * 200, grid, {"contribution": np.array([3.0])}, {})


def test_without_anywidget_the_slide_is_a_picture(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "anywidget":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    still = show_slide(slide, one_tile_map(), opacity=1.0)
    assert isinstance(still, StillSlide)
    picture = decoded(still._repr_png_())
    assert picture.shape == (600, 900, 3)
    # The one tile, from (400, 200) to (600, 400) at level 0, is red and nothing else is changed.
    red = (picture[..., 0] > 90) & (picture[..., 2] < 60)
    assert red[155:295, 305:445].all()
    assert red.sum() == pytest.approx(150 * 150, rel=0.03)


def test_the_widget_answers_for_tiles_that_there_are_and_carries_a_picture(slide: Path) -> None:
    anywidget = pytest.importorskip("anywidget", reason="anywidget is not installed (pip install 'pathoml[notebooks]')")
    widget = show_slide(slide)
    assert isinstance(widget, anywidget.AnyWidget)
    assert (widget.size_px, widget.deepest) == (list(SIZE), 3)
    sent: list[tuple[object, bytes]] = []
    widget.send = lambda content, buffers: sent.append((content, buffers[0]))
    ask = widget._msg_callbacks
    for place in ([3, 1, 2], [0, 0, 0], [3, 99, 0], [-1, 0, 0]):
        ask(widget, dict(zip(("zoom", "column", "row"), place, strict=True)), [])
    ask(widget, {"zoom": "3", "column": 0, "row": 0}, [])
    ask(widget, {}, [])
    assert [content for content, _ in sent] == [
        {"place": place} for place in ([3, 1, 2], [0, 0, 0], [3, 99, 0], [-1, 0, 0])
    ]
    assert [bool(body) for _, body in sent] == [True, True, False, False]
    middle = decoded(sent[0][1])[128, 128]
    np.testing.assert_allclose(middle, [(256 + 128) * 255 / 1200, (512 + 128) * 255 / 800, 128], atol=5)
    bundle = widget._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert decoded(base64.b64decode(data["image/png"])).shape == (600, 900, 3)
    assert "application/vnd.jupyter.widget-view+json" in data
    widget.close()
