"""How a slide is looked at, from the settings: what finds its tissue, at which resolution."""

from collections.abc import Callable

from pathoml.artefacts import QualitySettings
from pathoml.geojson import geojson_finder
from pathoml.tiles import Look, TissueFinder, classical_finder
from pathoml.tissue import GeojsonTissueSettings, ModelTissueSettings, TissueSettings

Network = Callable[[ModelTissueSettings], TissueFinder]
"""Builds the finder of a segmentation network, or what stands in for it where torch is not to be loaded."""


def look_at(tissue: TissueSettings, quality: QualitySettings, slide_id: str, network: Network) -> Look:
    """Return how a slide is looked at.

    Parameters
    ----------
    tissue : TissueSettings
        What tissue is.
    quality : QualitySettings
        Which artefacts are found and dropped.
    slide_id : str
        Names its file of outlines, where tissue is what was outlined.
    network : callable
        Called where tissue is what a network says.

    Returns
    -------
    Look
        For `pathoml.tiles.lay_tiles`.
    """
    return Look(tissue.mask_mpp, _finder(tissue, slide_id, network), quality)


def _finder(tissue: TissueSettings, slide_id: str, network: Network) -> TissueFinder:
    if isinstance(tissue, GeojsonTissueSettings):
        return geojson_finder(tissue, slide_id)
    if isinstance(tissue, ModelTissueSettings):
        return network(tissue)
    return classical_finder(tissue)
