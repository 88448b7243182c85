"""Tile values -> raster -> overlay on the slide. Runs no model."""

from pathoml.heatmaps.painting import TileLattice, Window, paint, tile_lattice, tile_raster
from pathoml.heatmaps.pictures import draw_heatmap
from pathoml.heatmaps.scales import (
    STYLES,
    MapStyle,
    ScaledMap,
    colour_end,
    extreme_tiles,
    relative_to_average,
    scaled_map,
)
from pathoml.heatmaps.slide_maps import SlideMaps

__all__ = [
    "STYLES", "MapStyle", "ScaledMap", "SlideMaps", "TileLattice", "Window", "colour_end", "draw_heatmap", "extreme_tiles", "paint",
    "relative_to_average", "scaled_map", "tile_lattice", "tile_raster",
]  # fmt: skip
