"""Whole-slide images: opened here and nowhere else."""

from pathoml.slides.base import ReadPlan, Region, Slide, SlideGeometry, TileReader, TileState
from pathoml.slides.identity import slide_digest, slide_fingerprint
from pathoml.slides.opening import open_slide
from pathoml.slides.overview import (
    Overview,
    coarsest_level,
    overview_of,
    read_around_damage,
    shrunken_image,
    whole_slide_image,
)
from pathoml.slides.stored_codec import stored_codec

__all__ = [
    "Overview", "ReadPlan", "Region", "Slide", "SlideGeometry", "TileReader", "TileState",
    "coarsest_level", "open_slide", "overview_of", "read_around_damage", "shrunken_image", "slide_digest",
    "slide_fingerprint", "stored_codec", "whole_slide_image",
]  # fmt: skip
