"""The addresses of the viewer and what is answered to each."""

import json
import zlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
import simplejpeg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pathoml.errors import PathomlError
from pathoml.heatmap_settings import MapScale
from pathoml.units import RgbImage
from pathoml.viewer.caches import ByteCache
from pathoml.viewer.guard import Guard
from pathoml.viewer.library import Catalogue, Library
from pathoml.viewer.map_tiles import MapShelf
from pathoml.viewer.pages import page_files
from pathoml.viewer.pyramid import NoOverviewError, Rectangle, padded, render, tile_rectangle
from pathoml.viewer.shelf import SlideShelf

_WORKERS = 3
_TILE_CACHE_BYTES = 48 << 20
_JPEG_QUALITY = 85
_CROP_PX = 112
_MOST_DIGITS = 7

Answer = TypeVar("Answer")


class NoSuchThingError(Exception):
    """The address names nothing that there is."""


@dataclass(frozen=True)
class _Services:
    """What the addresses draw on."""

    catalogue: Catalogue
    slides: SlideShelf
    maps: MapShelf
    tiles: ByteCache
    workers: anyio.CapacityLimiter
    scorer: anyio.CapacityLimiter

    def position(self, request: Request) -> int:
        """Return the slide that a request names."""
        found = self.catalogue.position(request.path_params["slide"])
        if found is None:
            raise NoSuchThingError
        return found

    def facts(self, position: int) -> dict[str, Any]:
        """Return size, steps and resolution of a slide, and whether all of its steps can be shown already."""
        facts = self.slides.facts(position)
        geometry = facts.geometry
        return {
            "width_px": geometry.width_px, "height_px": geometry.height_px, "deepest": facts.steps.deepest,
            "mpp": geometry.mpp, "ready": self.slides.overview(position) is not None,
        }  # fmt: skip

    def picture(self, position: int, rectangle: Rectangle) -> RgbImage:
        """Return a part of a slide."""
        with self.slides.lend(position) as slide:
            return render(slide, rectangle, self.slides.overview(position) or ())

    def tile(self, position: int, zoom: int, column: int, row: int) -> bytes:
        """Return a tile of the deep zoom as JPEG."""
        steps = self.slides.facts(position).steps
        if not steps.holds(zoom, column, row):
            raise NoSuchThingError
        rectangle = tile_rectangle(steps, zoom, column, row)
        return self.tiles.get((position, zoom, column, row), lambda: _jpeg(padded(self.picture(position, rectangle))))

    def thumbnail(self, position: int) -> bytes:
        """Return the whole slide in at most 256 pixels a side."""
        steps = self.slides.facts(position).steps
        rectangle = tile_rectangle(steps, 0, 0, 0)
        return self.tiles.get((position, "thumbnail"), lambda: _jpeg(self.picture(position, rectangle)))

    def crop(self, position: int, tile: int) -> bytes:
        """Return one of the model's tiles as a small picture."""
        maps = self.maps.of(position)
        if tile >= len(maps.coords):
            raise NoSuchThingError
        x, y = (max(0, int(value)) for value in maps.coords[tile])
        width, height = (max(1, round(value)) for value in maps.header.footprint_level0_px)
        rectangle = Rectangle(x, y, width, height, _CROP_PX, _CROP_PX)
        return self.tiles.get((position, "crop", tile), lambda: _jpeg(self.picture(position, rectangle)))


def build_app(library: Library, cache: Path, token: str) -> Guard:
    """Return the viewer as an ASGI application.

    Parameters
    ----------
    library : Library
        What is shown.
    cache : Path
        Folder for overviews of slides that store none.
    token : str
        Who knows it is answered.

    Returns
    -------
    Guard
        The application behind its guard.
    """
    services = _Services(
        Catalogue(library), SlideShelf(library.slides, cache), MapShelf(library), ByteCache(_TILE_CACHE_BYTES),
        anyio.CapacityLimiter(_WORKERS), anyio.CapacityLimiter(1),
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        yield
        services.slides.close()

    return Guard(Starlette(routes=[*_page_routes(), *_data_routes(services)], lifespan=lifespan), token)


def _page_routes() -> list[Route]:
    """Serve a fixed set of files: there is no address from which a path is made."""

    def answer(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

        return serve

    return [Route(address, answer(content, media)) for address, (content, media) in page_files().items()]


def _data_routes(services: _Services) -> list[Route]:
    async def listing(request: Request) -> Response:
        return JSONResponse(services.catalogue.listing())

    async def described(request: Request) -> Response:
        position = services.position(request)
        facts = await _in_thread(services.workers, lambda: services.facts(position))
        return JSONResponse(services.catalogue.described(position) | {"image": facts})

    async def tile(request: Request) -> Response:
        position, (zoom, column, row) = services.position(request), _numbers(request, "zoom", "column", "row")
        content = await _in_thread(services.workers, lambda: services.tile(position, zoom, column, row))
        return Response(content, media_type="image/jpeg")

    async def thumbnail(request: Request) -> Response:
        position = services.position(request)
        content = await _in_thread(services.workers, lambda: services.thumbnail(position))
        return Response(content, media_type="image/jpeg")

    async def crop(request: Request) -> Response:
        position, (number,) = services.position(request), _numbers(request, "tile")
        content = await _in_thread(services.workers, lambda: services.crop(position, number))
        return Response(content, media_type="image/jpeg")

    async def scores(request: Request) -> Response:
        position = services.position(request)
        content = await _in_thread(services.scorer, lambda: services.maps.described(position))
        return _deflated(json.dumps(content).encode(), "application/json")

    async def map_tile(request: Request) -> Response:
        position, (zoom, column, row) = services.position(request), _numbers(request, "zoom", "column", "row")
        kind, scale = request.path_params["kind"], request.path_params["scale"]
        steps = (await _in_thread(services.workers, lambda: services.slides.facts(position))).steps
        if not steps.holds(zoom, column, row) or not services.maps.knows(position, kind, scale):
            raise NoSuchThingError
        which = (str(kind), cast(MapScale, scale))
        painted = await _in_thread(
            services.workers, lambda: services.maps.tile(position, which, steps, (zoom, column, row))
        )
        return _deflated(painted, "application/octet-stream")

    slide = "/api/slides/{slide}"
    return [
        Route("/api/slides", _answered(listing)),
        Route(slide, _answered(described)),
        Route(f"{slide}/thumbnail.jpg", _answered(thumbnail)),
        Route(f"{slide}/tiles/{{zoom}}/{{column}}/{{row}}.jpg", _answered(tile)),
        Route(f"{slide}/crops/{{tile}}.jpg", _answered(crop)),
        Route(f"{slide}/scores", _answered(scores)),
        Route(f"{slide}/map/{{kind:path}}/{{scale}}/{{zoom}}/{{column}}/{{row}}", _answered(map_tile)),
    ]


def _answered(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn what goes wrong into a status; messages of slides name files and are not passed on."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except NoSuchThingError:
            return JSONResponse({"error": "NOT_HERE"}, 404)
        except NoOverviewError:
            return JSONResponse({"error": "OVERVIEW_IN_WORK"}, 503, headers={"Retry-After": "2"})
        except PathomlError as error:
            return JSONResponse({"error": getattr(error, "code", type(error).__name__)}, 422)

    return answer


async def _in_thread(limiter: anyio.CapacityLimiter, work: Callable[[], Answer]) -> Answer:
    return await anyio.to_thread.run_sync(work, limiter=limiter)


def _numbers(request: Request, *names: str) -> list[int]:
    """Read whole numbers from an address; anything else names nothing."""
    texts = [request.path_params[name] for name in names]
    if not all(text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS for text in texts):
        raise NoSuchThingError
    return [int(text) for text in texts]


def _jpeg(pixels: RgbImage) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=_JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")
    return encoded


def _deflated(content: bytes, media_type: str) -> Response:
    """Answer with less to carry through a tunnel; every browser undoes it."""
    return Response(zlib.compress(content, 1), media_type=media_type, headers={"Content-Encoding": "deflate"})
