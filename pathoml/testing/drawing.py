"""Draw one synthetic slide from its specification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathoml.files import atomic_path
from pathoml.testing.artefacts import defocus, draw_pen
from pathoml.testing.cells import populate
from pathoml.testing.histology import KINDS, TRUTH_UM, TissuePlan, lay_out
from pathoml.testing.noise import ByteMap
from pathoml.testing.pyramid import write_pyramid
from pathoml.testing.rendering import render
from pathoml.testing.staining import StainProfile


@dataclass(frozen=True)
class SlideSpec:
    """Everything that determines a slide's pixels.

    Parameters
    ----------
    slide_id
        Name of the slide; its file is ``<slide_id>.tif``.
    tissue
        What the tissue contains, in micrometres.
    mpp
        Micrometres per pixel at level 0.
    stain
        The hospital's stain.
    pen
        Colour of a marker stroke, a key of `pathoml.testing.artefacts.PEN_COLOURS`, or None.
    is_blurred
        Whether a region is out of focus.
    """

    slide_id: str
    tissue: TissuePlan
    mpp: float
    stain: StainProfile
    pen: str | None = None
    is_blurred: bool = False


@dataclass(frozen=True)
class SlideTruth:
    """What a slide shows where.

    Parameters
    ----------
    composition
        uint8 (row, col, kind) over the whole slide: 255 times the share of each of `KINDS`, 0 on glass.
    mpp
        Micrometres per pixel at level 0 of the slide.
    um_per_px
        Micrometres per pixel of the composition.
    """

    composition: ByteMap
    mpp: float
    um_per_px: float = TRUTH_UM


def draw_slide(path: Path, spec: SlideSpec) -> SlideTruth:
    """Draw a slide and write it as a pyramidal TIFF.

    Parameters
    ----------
    path
        File to write; it appears whole or not at all.
    spec
        What to draw. The same specification gives the same bytes on one machine.

    Returns
    -------
    SlideTruth
        The composition that was drawn.
    """
    layout = lay_out(spec.tissue)
    anatomy = populate(spec.tissue, layout)
    rng = spec.tissue.generator(4)
    image = render(spec.tissue, layout, anatomy, spec.stain.varied(rng), spec.mpp)
    if spec.is_blurred:
        defocus(image, layout, spec.mpp, spec.tissue.generator(5))
    if spec.pen is not None:
        draw_pen(image, layout, spec.pen, spec.mpp, spec.tissue.generator(6))
    write_pyramid(path, image, mpp=spec.mpp)
    return SlideTruth(layout.composition(), spec.mpp)


def write_truth(path: Path, truth: SlideTruth) -> None:
    """Write a slide's truth as a compressed archive of plain arrays.

    Parameters
    ----------
    path
        File to write, ending in ``.npz``; it appears whole or not at all.
    truth
        What to write.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            composition=truth.composition,
            kinds=np.array(KINDS),
            um_per_px=np.float64(truth.um_per_px),
            mpp=np.float64(truth.mpp),
        )


def read_truth(path: Path) -> SlideTruth:
    """Read what `write_truth` wrote.

    Parameters
    ----------
    path
        The ``.npz`` file.

    Returns
    -------
    SlideTruth
        The slide's truth.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return SlideTruth(arrays["composition"], float(arrays["mpp"]), float(arrays["um_per_px"]))
