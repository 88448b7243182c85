"""All maps of one slide: what pictures, files and the viewer are made from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathoml.bags import BagHeader
from pathoml.heatmap_settings import MapName, MapScale
from pathoml.heatmaps.painting import TileLattice, tile_lattice
from pathoml.heatmaps.scales import ScaledMap, scaled_map
from pathoml.units import FloatArray


@dataclass(frozen=True)
class SlideMaps:
    """The values of a slide's tiles, one array a kind of map.

    Parameters
    ----------
    header : BagHeader
        Of the slide's bag, with the slide's own width and height.
    coords : ndarray of int32, shape (tiles, 2)
        Top-left corner (x, y) of each tile in level-0 pixels.
    grid : ndarray of int32, shape (tiles, 2)
        Row and column of each tile.
    values : mapping of str to ndarray of float64, shape (tiles,)
        By kind of map, relative to the average tile.
    cohort_ends : mapping of str to float
        By kind of map, where the training cohort's colours end; empty where it is not known.
    notes : tuple of str
        Which models looked, and how contributions were found.
    """

    header: BagHeader
    coords: NDArray[np.int32]
    grid: NDArray[np.int32]
    values: Mapping[MapName, FloatArray]
    cohort_ends: Mapping[MapName, float]
    notes: tuple[str, ...] = ()

    def scales_of(self, kind: MapName) -> tuple[MapScale, ...]:
        """Return the scales on which a map can be shown.

        Parameters
        ----------
        kind : str
            One of `values`.

        Returns
        -------
        tuple of str
            With ``cohort`` where the training cohort's colours are known.
        """
        return ("raw", "percentile", "cohort") if kind in self.cohort_ends else ("raw", "percentile")

    def scaled(self, kind: MapName, scale: MapScale) -> ScaledMap:
        """Return one map with the meaning of its colours.

        Parameters
        ----------
        kind : str
            One of `values`.
        scale : str
            One of its `scales_of`.

        Returns
        -------
        ScaledMap
            Ready to be coloured.
        """
        return scaled_map(self.values[kind], kind, scale, cohort_end=self.cohort_ends.get(kind))

    def lattice(self, kind: MapName, scale: MapScale) -> TileLattice:
        """Return one map ready to be painted.

        Parameters
        ----------
        kind : str
            One of `values`.
        scale : str
            One of its `scales_of`.

        Returns
        -------
        TileLattice
            For `pathoml.heatmaps.paint`.
        """
        return tile_lattice(self.header, self.grid, self.scaled(kind, scale).values)
