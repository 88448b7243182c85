"""One resampling for every reader: the rectangle read -> the finished tile."""

import cv2

from pathoml.slides.base import ReadPlan
from pathoml.units import RgbImage


def resample(pixels: RgbImage, plan: ReadPlan, out: RgbImage) -> None:
    """Bring a rectangle to the tile's resolution, by area averaging (or cubic where it has to be enlarged).

    The scale is the plan's exact one, not the ratio of two rounded sizes: a tile of 256 px at 0.5 mpp covers 506.5 px
    of a slide of 0.2527 mpp, of which 507 are read and 506.5 averaged.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (plan.read_px[1], plan.read_px[0], 3)
        What was read.
    plan : ReadPlan
        Scale and tile size.
    out : ndarray of uint8, shape (tile_px, tile_px, 3)
        Receives the tile.
    """
    if not plan.resized:
        out[...] = pixels
        return
    fx, fy = plan.scale
    method = cv2.INTER_AREA if max(fx, fy) <= 1 else cv2.INTER_CUBIC
    # Without a size OpenCV takes the factors as they are; with one it would recompute them from rounded sizes.
    size = (round(pixels.shape[1] * fx), round(pixels.shape[0] * fy))
    if size == (plan.tile_px, plan.tile_px):
        cv2.resize(pixels, None, dst=out, fx=fx, fy=fy, interpolation=method)
    else:
        out[...] = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=method)[: plan.tile_px, : plan.tile_px]
