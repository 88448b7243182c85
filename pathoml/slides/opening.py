"""Opening a slide: the fastest reader that gives the right pixels, or a reason why there is none."""

import logging
from pathlib import Path

from pathoml.errors import DamagedSlideError, TooLargeSlideError, UnreadableSlideError, UnsupportedSlideError
from pathoml.slides.base import Slide
from pathoml.slides.image_slide import PictureSlide, open_tiled_image
from pathoml.slides.openslide_backend import OpenSlideSlide
from pathoml.slides.tiff_layout import check_extent, is_tiff, tiled_images
from pathoml.slides.tiled_slide import open_tiled
from pathoml.slides.triage import PICTURE_SUFFIXES, check_file, diagnose, is_picture

logger = logging.getLogger(__name__)

_MAX_SIDE_PX = 2_000_000
"""Half a metre at 0.25 mpp: no scanner makes that."""

_TILED_VENDORS = ("aperio", "generic-tiff")
"""Vendors whose levels are plain tiled TIFF directories, without overlaps or stage positions."""


def open_slide(path: Path, *, mpp: float | None = None) -> Slide:
    """Open a slide.

    Tiled JPEG and JPEG 2000 TIFFs (Aperio SVS and generic ones) are read tile by tile, after a comparison with
    OpenSlide's pixels; other formats through OpenSlide; OME-TIFF and ordinary pictures by themselves.

    Parameters
    ----------
    path : Path
        The slide's file.
    mpp : float, optional
        Microns per level-0 pixel from the manifest; overrides the metadata.

    Returns
    -------
    Slide
        Open; close it, or use it in a ``with`` block.

    Raises
    ------
    SlideNotFoundError
        If there is no such file.
    SlidePermissionError
        If this user may not read it.
    UnreadableSlideError
        If it cannot be opened as a slide; the leaf and its code say why.
    DamagedSlideError
        If its directory cannot be parsed.
    """
    check_file(path)
    if is_picture(path):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            raise diagnose(path, "not a slide")
        return PictureSlide(path, mpp=mpp)
    tiff = is_tiff(path)
    if tiff:
        check_extent(path)
    try:
        slide = OpenSlideSlide(path, mpp=mpp)
    except UnreadableSlideError as error:
        if tiff:
            return _open_other_tiff(path, mpp, str(error.__cause__))
        raise diagnose(path, str(error.__cause__)) from error
    _check_size(slide)
    return _faster(slide) if tiff else slide


def _faster(slide: OpenSlideSlide) -> Slide:
    """Return the slide in the fast tier where that is right, else as it is, with a line in the log that says why."""
    vendor = slide.metadata["vendor"]
    if vendor not in _TILED_VENDORS:
        return slide
    try:
        fast, reason = open_tiled(slide, tiled_images(slide.path))
    except DamagedSlideError as error:
        fast, reason = None, str(error)
    if fast is None:
        logger.info("%s: read through OpenSlide: %s", slide.path.name, reason)
        return slide
    return fast


def _open_other_tiff(path: Path, mpp: float | None, refusal: str) -> Slide:
    """Open a TIFF that OpenSlide refuses: tiled ones by their tiles, others as pictures."""
    try:
        slide = open_tiled_image(path, mpp=mpp)
    except UnsupportedSlideError as error:
        if path.suffix.lower() not in PICTURE_SUFFIXES or path.name.lower().endswith((".ome.tif", ".ome.tiff")):
            raise diagnose(path, refusal) from error
        return PictureSlide(path, mpp=mpp)
    _check_size(slide)
    return slide


def _check_size(slide: Slide) -> None:
    width, height = slide.geometry.width_px, slide.geometry.height_px
    if not (0 < width <= _MAX_SIDE_PX and 0 < height <= _MAX_SIDE_PX):
        slide.close()
        raise TooLargeSlideError(
            f"{slide.path.name}: claims {width:,} x {height:,} px where at most {_MAX_SIDE_PX:,} a side are believed; "
            "its directory is damaged, copy it again from its source"
        )
