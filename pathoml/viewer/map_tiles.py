"""Maps of slides, computed when first looked at, and their tiles as numbers of colours."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from pathoml.errors import InputError
from pathoml.heatmap_settings import MapName, MapScale
from pathoml.heatmaps import ScaledMap, SlideMaps, TileLattice, Window, extreme_tiles, paint, tile_lattice
from pathoml.viewer.library import Library
from pathoml.viewer.pyramid import TILE_PX, ZoomSteps

_KEPT = 8
_EXTREMES = 24

Which = tuple[MapName, MapScale]


class MapShelf:
    """Keeps the maps of the slides looked at last.

    Parameters
    ----------
    library : Library
        Whose `maps_of` draws them.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._maps: OrderedDict[int, SlideMaps] = OrderedDict()
        self._ready: OrderedDict[tuple[int, Which], tuple[ScaledMap, TileLattice]] = OrderedDict()

    def of(self, position: int) -> SlideMaps:
        """Return the maps of a slide, computed if need be; one slide at a time.

        Parameters
        ----------
        position : int
            Of the slide.

        Returns
        -------
        SlideMaps
            Its maps.

        Raises
        ------
        PathomlError
            If there is no model, or it cannot score the slide.
        """
        with self._lock:
            found = self._maps.get(position)
            if found is None:
                if self._library.maps_of is None:
                    raise InputError("there is no model: maps are drawn of the slides of a run")
                found = self._library.maps_of(position)
                self._maps[position] = found
            self._maps.move_to_end(position)
            while len(self._maps) > _KEPT:
                self._maps.popitem(last=False)
            return found

    def knows(self, position: int, kind: str, scale: str) -> bool:
        """Tell whether there is such a map of a slide whose scores have been asked for.

        Parameters
        ----------
        position : int
            Of the slide.
        kind, scale : str
            As a client gives them.

        Returns
        -------
        bool
            Without computing anything.
        """
        maps = self._maps.get(position)
        return maps is not None and kind in maps.values and scale in maps.scales_of(kind)

    def tile(self, position: int, which: Which, steps: ZoomSteps, place: tuple[int, int, int]) -> bytes:
        """Return one tile of a map.

        Parameters
        ----------
        position : int
            Of the slide.
        which : tuple of str
            Kind and scale, known.
        steps : ZoomSteps
            Of the slide.
        place : tuple of int
            Step, column and row of the tile.

        Returns
        -------
        bytes
            256 x 256 numbers, row by row: 0 where there is no tile, else 1 to 255 along the palette.
        """
        scaled, lattice = self._lattice(position, which)
        zoom, column, row = place
        side = TILE_PX * steps.downsample(zoom)
        window = Window(column * side, row * side, side, side, (TILE_PX, TILE_PX))
        return scaled.steps_of(paint(lattice, window)).tobytes()

    def described(self, position: int) -> dict[str, Any]:
        """Return the maps of a slide as numbers: values of tiles, palettes, ends of colours, and the extreme tiles.

        Parameters
        ----------
        position : int
            Of the slide.

        Returns
        -------
        dict
            Plain JSON values.
        """
        maps = self.of(position)
        header = maps.header
        return {
            "tiles": {
                "row": maps.grid[:, 0].tolist(), "column": maps.grid[:, 1].tolist(),
                "stride_px": header.stride_level0_px, "footprint_px": header.footprint_level0_px,
                "origin_px": header.origin_level0_px,
            },
            "maps": {kind: self._map(position, maps, kind) for kind in maps.values},
            "notes": list(maps.notes),
        }  # fmt: skip

    def _map(self, position: int, maps: SlideMaps, kind: MapName) -> dict[str, Any]:
        scales = {scale: self._lattice(position, (kind, scale))[0] for scale in maps.scales_of(kind)}
        values = maps.values[kind]
        return {
            "title": scales["raw"].title,
            "values": [float(f"{value:.4g}") for value in values.tolist()],
            "scales": {
                scale: {
                    "low": one.low, "high": one.high, "label": " ".join(one.label.split()), "signed": one.signed,
                    "palette": one.palette().astype(np.uint8).tobytes().hex(),
                }
                for scale, one in scales.items()
            },
            "highest": extreme_tiles(values, _EXTREMES, "highest").tolist(),
            "lowest": extreme_tiles(values, _EXTREMES, "lowest").tolist(),
        }  # fmt: skip

    def _lattice(self, position: int, which: Which) -> tuple[ScaledMap, TileLattice]:
        found = self._ready.get((position, which))
        if found is None:
            maps = self.of(position)
            scaled = maps.scaled(*which)
            found = scaled, tile_lattice(maps.header, maps.grid, scaled.values)
            self._ready[position, which] = found
            while len(self._ready) > 9 * _KEPT:
                self._ready.popitem(last=False)
        return found
