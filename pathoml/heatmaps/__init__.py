"""Tile values -> raster -> overlay on the slide. Runs no model."""

from pathoml.heatmaps.exports import (
    band_features,
    tile_table,
    tile_value_features,
    write_band_file,
    write_ome_tiff,
    write_tile_file,
    write_tile_table,
)
from pathoml.heatmaps.overlays import overlay_image, write_overlay
from pathoml.heatmaps.painting import TileLattice, Window, paint, tile_lattice, tile_raster
from pathoml.heatmaps.pictures import draw_heatmap
from pathoml.heatmaps.scales import (
    STYLES,
    MapStyle,
    ScaledMap,
    colour_end,
    extreme_tiles,
    kind_of,
    name_of_way,
    relative_to_average,
    scaled_map,
    style_of,
)
from pathoml.heatmaps.slide_maps import SlideMaps

__all__ = [
    "STYLES", "MapStyle", "ScaledMap", "SlideMaps", "TileLattice", "Window", "band_features", "colour_end", "draw_heatmap",
    "extreme_tiles", "kind_of", "name_of_way", "overlay_image", "paint", "relative_to_average", "scaled_map", "style_of",
    "tile_lattice", "tile_raster", "tile_table", "tile_value_features", "write_band_file", "write_ome_tiff", "write_overlay",
    "write_tile_file", "write_tile_table",
]  # fmt: skip
