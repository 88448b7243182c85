"""The map in colours over the slide's picture, pixel by pixel."""

from pathlib import Path

import cv2
import numpy as np

from pathoml.files import write_bytes
from pathoml.heatmaps.scales import ScaledMap
from pathoml.units import FloatArray, RgbImage

_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def overlay_image(picture: RgbImage, raster: FloatArray, scaled: ScaledMap, opacity: float) -> RgbImage:
    """Lay a map over a picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The slide.
    raster : ndarray of float64, shape (rows, columns)
        Of `pathoml.heatmaps.tile_raster`.
    scaled : ScaledMap
        Its colours.
    opacity : float
        Of the map, 0 to 1.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        The picture, changed where there are tiles.
    """
    steps = scaled.steps_of(raster)
    palette = np.vstack([np.zeros((1, 3), np.uint8), scaled.palette()])
    coloured = palette[steps]
    blended = cv2.addWeighted(picture, 1 - opacity, coloured, opacity, 0)
    covered = np.repeat((steps > 0).astype(np.uint8)[..., None], 3, axis=2)
    result = picture.copy()
    cv2.copyTo(blended, covered, result)
    return result


def write_overlay(path: Path, image: RgbImage) -> None:
    """Write an overlay as PNG.

    Parameters
    ----------
    path : Path
        Where to.
    image : ndarray of uint8, shape (rows, columns, 3)
        RGB.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    done, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _FAST)
    assert done  # an image of bytes can always be encoded
    write_bytes(path, encoded.tobytes())
