"""Settings of heatmaps; quick to load."""

from typing import Literal

from pydantic import Field

from pathoml.settings import Settings

MapKind = Literal["contribution", "attention", "disagreement", "modality"]
MapName = str
"""``contribution``, ``attention``, ``disagreement``, or ``by PART``: what tiles add by way of another part of a fused model."""
MapScale = Literal["raw", "percentile", "cohort"]
MapFile = Literal["picture", "overlay", "csv", "bands", "tiles", "ome_tiff"]


class HeatmapSettings(Settings):
    """Which maps are drawn, and how."""

    slides: int = Field(
        8, ge=0, description="Slides drawn by 'run': half of the highest, half of the lowest risk among test patients."
    )
    kinds: tuple[MapKind, ...] = Field(
        ("contribution", "attention", "modality"),
        min_length=1,
        description="Maps drawn of each slide, where there are such. Disagreement is that of several models about the "
        "contribution; modality: what tiles add by way of each block or family of gene groups of a fused model.",
    )
    scale: MapScale = Field(
        "raw",
        description="Where colours end: with the slide's own values, at its percentiles, or where the training cohort's do.",
    )
    files: tuple[MapFile, ...] = Field(
        ("picture",),
        min_length=1,
        description="What is written of each map: picture (PNG with scale bar and legend), overlay (PNG of the slide under "
        "the map, nothing else), csv (values of tiles), bands or tiles (GeoJSON for QuPath), ome_tiff (values, pyramidal).",
    )
    picture_mpp: float = Field(4.0, ge=0.5, le=64, description="Microns per pixel of the slide under the map.")
    opacity: float = Field(0.55, gt=0, le=1, description="Opacity of the map.")
