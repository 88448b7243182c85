"""Whole-slide images: opened here and nowhere else."""

from pathoml.slides.base import Region, Slide, SlideGeometry
from pathoml.slides.identity import slide_digest, slide_fingerprint
from pathoml.slides.openslide_backend import open_slide
from pathoml.slides.overview import whole_slide_image

__all__ = ["Region", "Slide", "SlideGeometry", "open_slide", "slide_digest", "slide_fingerprint", "whole_slide_image"]
