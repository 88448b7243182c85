"""Opening a slide: the fastest reader that gives the right pixels, or a reason why there is none."""

import logging
from pathlib import Path

from pathoml.errors import SlideError, TooLargeSlideError, UnreadableSlideError, UnsupportedSlideError
from pathoml.slides.base import Slide
from pathoml.slides.image_slide import PictureSlide, open_tiled_image
from pathoml.slides.openslide_backend import OpenSlideSlide
from pathoml.slides.tiff_layout import check_extent, count_pages, is_ome, is_tiff, tiled_images
from pathoml.slides.tiled_slide import open_tiled
from pathoml.slides.triage import PICTURE_SUFFIXES, check_file, diagnose, is_picture

logger = logging.getLogger(__name__)

_MAX_SIDE_PX = 2_000_000
"""Half a metre at 0.25 mpp: no scanner makes that."""

_TILED_VENDORS = ("aperio", "generic-tiff")
"""Vendors whose levels are plain tiled TIFF directories, without overlaps or stage positions."""


def open_slide(path: str | Path, *, mpp: float | None = None) -> Slide:
    """Open a slide.

    Tiled JPEG and JPEG 2000 TIFFs (Aperio SVS and generic ones) are read tile by tile, after a comparison with
    OpenSlide's pixels; other formats through OpenSlide; OME-TIFF and ordinary pictures by themselves.

    Parameters
    ----------
    path : str or Path
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
    file = Path(path) if isinstance(path, str) else path
    check_file(file)
    try:
        return _open(file, mpp)
    except OSError as error:
        if isinstance(error, SlideError):
            raise
        raise UnreadableSlideError(
            f"{file.name}: cannot be read ({error.strerror or error}); is the share mounted and the disk sound?"
        ) from error


def _open(path: Path, mpp: float | None) -> Slide:
    if is_picture(path) and path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureSlide(path, mpp=mpp)
    tiff = is_tiff(path)
    if tiff:
        check_extent(path)
        if is_ome(path):
            # OpenSlide may open it as a plain TIFF, without its resolution and its levels.
            return _open_other_tiff(path, mpp, "OME-TIFF")
    try:
        slide = OpenSlideSlide(path, mpp=mpp)
    except UnreadableSlideError as error:
        refusal = str(error.__cause__)
        if not tiff:
            raise diagnose(path, refusal) from error
        return _open_other_tiff(path, mpp, refusal)
    _check_size(slide)
    return _faster(slide) if tiff else slide


def _faster(slide: OpenSlideSlide) -> Slide:
    """Return the slide in the fast tier where that is right, else as it is, with a line in the log that says why."""
    vendor = slide.metadata["vendor"]
    if vendor not in _TILED_VENDORS:
        return slide
    try:
        fast, reason = open_tiled(slide, tiled_images(slide.path))
    except SlideError as error:
        fast, reason = None, str(error)
    except BaseException:
        slide.close()
        raise
    if fast is None:
        logger.info("%s: read through OpenSlide: %s", slide.path.name, reason)
        return slide
    return fast


def _open_other_tiff(path: Path, mpp: float | None, refusal: str) -> Slide:
    """Open a TIFF without OpenSlide: tiled ones by their tiles, those of one plain page as pictures."""
    try:
        slide = open_tiled_image(path, mpp=mpp)
    except UnsupportedSlideError as error:
        plain = path.suffix.lower() in PICTURE_SUFFIXES and not is_ome(path) and count_pages(path) == 1
        if not plain:
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
