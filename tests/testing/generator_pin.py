"""What generator version 1 draws, in numbers: digests where arithmetic is exact, grey levels where it is not.

`python -m tests.testing.generator_pin` writes the numbers of the version at hand to `generator_v<version>.json`. Those of a
version never change: slides that are easier, harder or other than they were are a new version, whose evidence is gathered anew.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openslide

from pathoml.provenance import array_digest, digest_of
from pathoml.testing.design import CohortDesign, draw_outcomes, plan_cohort
from pathoml.testing.drawing import SlideSpec, draw_slide
from pathoml.testing.histology import KINDS
from pathoml.testing.synthetic import DEMO_DESIGN, DEMO_SEED, EVALUATION_SEEDS, GENERATOR_VERSION, SMALL_DESIGN

SEED = 3
DESIGN = dataclasses.replace(DEMO_DESIGN, patients=4, tissue_area_mm2=0.12)
SIDE = 16
"""Blocks along each side of a slide."""


def pin_path(version: int) -> Path:
    return Path(__file__).parent / f"generator_v{version}.json"


def slides() -> list[SlideSpec]:
    """Two resolutions, two stains, with and without pen and blur."""
    first, second, third, *_ = (patient.slides[0] for patient in plan_cohort(SEED, DESIGN))
    return [first, second, dataclasses.replace(third, pen="green", is_blurred=True)]


def design_digest(design: CohortDesign) -> str:
    return digest_of(_rounded(dataclasses.asdict(design)))


def planned(seed: int, design: CohortDesign) -> dict[str, str]:
    """Digests of everything that is drawn before pixels are: no image library takes part, so they hold everywhere."""
    plans = plan_cohort(seed, design)
    shares = np.zeros((len(plans), len(KINDS)))
    for kind in ("necrosis", "lymphocytes"):
        of_slides = [[getattr(slide.tissue, kind) for slide in plan.slides] for plan in plans]
        shares[:, KINDS.index(kind)] = [np.mean(own) for own in of_slides]
    outcomes = draw_outcomes(seed, design, shares, np.array([plan.age for plan in plans]))
    return {
        "patients": digest_of(_rounded(dataclasses.asdict(plan) for plan in plans)),
        "oracle": array_digest(np.rint(outcomes.log_hazard * 1e6).astype(np.int64)),
        "outcomes": array_digest(np.stack([outcomes.time_days, outcomes.event]).astype(np.int64)),
    }


def drawn(spec: SlideSpec) -> dict[str, Any]:
    """Digest of a slide's composition, and the mean colour and the contrast of each of its blocks."""
    with tempfile.TemporaryDirectory() as folder:
        truth = draw_slide(Path(folder) / "slide.tif", spec)
        with openslide.OpenSlide(Path(folder) / "slide.tif") as opened:
            image = np.asarray(opened.read_region((0, 0), 0, opened.dimensions).convert("RGB"), dtype=np.float64)
    # Eighths of the range over 64 um: single pixels that another build of the image library rounds otherwise are lost in it.
    coarse = np.rint(_block_means(truth.composition.astype(np.float64), 8) / 32)
    blocks = [column for band in np.array_split(image, SIDE) for column in np.array_split(band, SIDE, axis=1)]
    return {
        "size_px": [image.shape[1], image.shape[0]],
        "composition": array_digest(coarse.astype(np.uint8)),
        "colour": [[round(float(value), 1) for value in block.mean(axis=(0, 1))] for block in blocks],
        "contrast": [round(float(block.mean(axis=-1).std()), 1) for block in blocks],
    }


def measured() -> dict[str, Any]:
    """Everything that is pinned."""
    cohorts = {str(seed): planned(seed, DEMO_DESIGN) for seed in (DEMO_SEED, *EVALUATION_SEEDS)}
    return {
        "generator_version": GENERATOR_VERSION,
        "designs": {name: design_digest(one) for name, one in _DESIGNS.items()},
        "cohorts": {"small": planned(SEED, DESIGN), **cohorts},
        "slides": [drawn(spec) for spec in slides()],
    }


_DESIGNS = {"demo": DEMO_DESIGN, "small": SMALL_DESIGN, "pinned": DESIGN}


def _block_means(values: np.ndarray, side: int) -> np.ndarray:
    rows, columns = (length // side for length in values.shape[:2])
    cut = values[: rows * side, : columns * side]
    return cut.reshape(rows, side, columns, side, -1).mean(axis=(1, 3))


def _rounded(value: Any) -> Any:
    """The same with floats of six decimals, as JSON holds it."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str | int | None):  # bool is an int
        return value
    return [_rounded(one) for one in value]


if __name__ == "__main__":
    target = pin_path(GENERATOR_VERSION)
    target.write_text(json.dumps(measured(), separators=(",", ":")) + "\n")
    print(target)
