"""The tissue mask against what was drawn, on slides of seeds that nothing was tuned on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pathoml.slides import open_slide, whole_slide_image
from pathoml.testing import SlideSpec, TissuePlan, draw_slide
from pathoml.testing.design import HOSPITALS
from pathoml.tissue import ClassicalTissueSettings, find_tissue
from tests.counts import DRAWN_SLIDES_FOR_DICE

SEED = 9001


@pytest.mark.parametrize("index", range(DRAWN_SLIDES_FOR_DICE))
def test_the_mask_is_the_tissue_that_was_drawn(tmp_path: Path, index: int) -> None:
    rng = np.random.default_rng((SEED, index))
    plan = TissuePlan(
        seed=(SEED, index), width_um=float(rng.uniform(700, 1400)), height_um=float(rng.uniform(700, 1400)),
        tissue_area_mm2=0.35, necrosis=float(rng.uniform(0, 0.4)), lymphocytes=float(rng.uniform(0, 0.4)),
        tumour=float(rng.uniform(0.2, 0.8)), glands=float(rng.uniform(0, 1)), pieces=1 + index % 2,
    )  # fmt: skip
    path = tmp_path / "drawn.tif"
    truth = draw_slide(path, SlideSpec("drawn", plan, 0.5, HOSPITALS[index % len(HOSPITALS)].stain))
    settings = ClassicalTissueSettings()
    with open_slide(path) as slide:
        mask = find_tissue(whole_slide_image(slide, settings.mask_mpp), settings.mask_mpp, settings)
    share = truth.composition.sum(axis=-1, dtype=np.float32) / 255
    drawn = cv2.resize(share, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_AREA) > 0.5
    assert 2 * (mask & drawn).sum() / (mask.sum() + drawn.sum()) >= 0.95
