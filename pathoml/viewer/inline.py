"""A slide with its map inside a notebook; where widgets do not run, the same as a picture."""

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from PIL import Image

from pathoml.errors import PathomlError
from pathoml.heatmap_settings import MapName, MapScale
from pathoml.heatmaps import ScaledMap, SlideMaps, TileLattice, Window, overlay_image, paint, tile_lattice
from pathoml.slides import Slide, open_slide, shrunken_image
from pathoml.units import RgbImage
from pathoml.viewer.pyramid import TILE_PX, NoOverviewError, ZoomSteps, padded, render, tile_rectangle

if TYPE_CHECKING:
    from anywidget import AnyWidget

_PICTURE_PX = 900


class InlineSlide:
    """A slide that stays open for a notebook, with one map over it or none.

    Parameters
    ----------
    slide : Slide
        Open; closed with `close`.
    layer : tuple of ScaledMap and TileLattice, or None
        The map.
    opacity : float
        Of the map.
    """

    def __init__(self, slide: Slide, layer: tuple[ScaledMap, TileLattice] | None, opacity: float) -> None:
        self._slide, self._layer, self._opacity = slide, layer, opacity
        geometry = slide.geometry
        self.steps = ZoomSteps(geometry.width_px, geometry.height_px)

    def picture(self, longest_px: int = _PICTURE_PX) -> bytes:
        """Return the whole slide as PNG.

        Parameters
        ----------
        longest_px : int, optional
            Of its sides.

        Returns
        -------
        bytes
            The picture.
        """
        scale = longest_px / max(self.steps.width_px, self.steps.height_px)
        size = (max(1, round(self.steps.width_px * scale)), max(1, round(self.steps.height_px * scale)))
        window = Window(0, 0, self.steps.width_px, self.steps.height_px, (size[1], size[0]))
        pixels = self._with_map(shrunken_image(self._slide, size), window)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG")
        return content.getvalue()

    def tile(self, zoom: int, column: int, row: int) -> bytes:
        """Return a tile of the deep zoom, map included.

        Parameters
        ----------
        zoom, column, row : int
            As of `ZoomSteps`.

        Returns
        -------
        bytes
            JPEG; empty where there is no such tile or it cannot be read.
        """
        if not self.steps.holds(zoom, column, row):
            return b""
        side = TILE_PX * self.steps.downsample(zoom)
        window = Window(column * side, row * side, side, side, (TILE_PX, TILE_PX))
        try:
            pixels = padded(render(self._slide, tile_rectangle(self.steps, zoom, column, row)))
        except (NoOverviewError, PathomlError):
            return b""
        encoded: bytes = simplejpeg.encode_jpeg(self._with_map(pixels, window), quality=85, colorspace="RGB")
        return encoded

    def close(self) -> None:
        """Release the slide."""
        self._slide.close()

    def _with_map(self, pixels: RgbImage, window: Window) -> RgbImage:
        if self._layer is None:
            return np.ascontiguousarray(pixels)
        scaled, lattice = self._layer
        return overlay_image(np.ascontiguousarray(pixels), paint(lattice, window), scaled, self._opacity)


class StillSlide:
    """The whole slide as a picture, for notebooks without widgets.

    Parameters
    ----------
    content : bytes
        PNG.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def _repr_png_(self) -> bytes:
        return self._content


def show_slide(
    path: Path, maps: SlideMaps | None = None, *, kind: MapName = "contribution", scale: MapScale = "raw",
    opacity: float = 0.5, mpp: float | None = None,
) -> "AnyWidget | StillSlide":  # fmt: skip
    """Show a slide in a notebook.

    Parameters
    ----------
    path : Path
        The slide's file.
    maps : SlideMaps, optional
        Its maps, as `pathoml.pipeline.maps.maps_of_slide` gives them.
    kind, scale : str, optional
        Which of them.
    opacity : float, optional
        Of the map.
    mpp : float, optional
        Microns per level-0 pixel that override the metadata.

    Returns
    -------
    AnyWidget or StillSlide
        A slide to be zoomed and dragged, with a picture for places where widgets do not run; the picture alone where
        anywidget is not installed.
    """
    layer = None
    if maps is not None:
        scaled = maps.scaled(kind, scale)
        layer = scaled, tile_lattice(maps.header, maps.grid, scaled.values)
    inline = InlineSlide(open_slide(path, mpp=mpp), layer, opacity)
    try:
        import anywidget  # noqa: F401
    except ImportError:
        still = StillSlide(inline.picture())
        inline.close()
        return still
    return _widget(inline)


def _widget(inline: InlineSlide) -> "AnyWidget":
    """Make the widget; its class is made here, since anywidget need not be installed."""
    import anywidget
    import traitlets

    class SlideWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """Asks Python for tiles by messages: no port is opened."""

        _esm = (files("pathoml.viewer") / "static" / "inline.js").read_text(encoding="utf-8")
        size_px: Any = traitlets.List().tag(sync=True)
        deepest = traitlets.Int().tag(sync=True)

        def _repr_mimebundle_(self, **options: Any) -> Any:
            bundle = super()._repr_mimebundle_(**options)
            data, *rest = bundle if isinstance(bundle, tuple) else (bundle,)
            data = {**(data or {}), "image/png": base64.b64encode(inline.picture()).decode("ascii")}
            return (data, *rest) if rest else data

    widget = SlideWidget(size_px=[inline.steps.width_px, inline.steps.height_px], deepest=inline.steps.deepest)

    def answer(_: Any, content: dict[str, Any], buffers: Sequence[bytes]) -> None:
        place = [content.get(name) for name in ("zoom", "column", "row")]
        if all(isinstance(number, int) for number in place):
            widget.send({"place": place}, buffers=[inline.tile(*place)])  # type: ignore[arg-type]

    widget.on_msg(answer)
    return widget
