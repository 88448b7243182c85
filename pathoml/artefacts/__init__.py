"""What is wrong with a slide: ink, folds, bubbles, blood and pigment seen from afar; focus seen in each tile."""

from pathoml.artefacts.bubbles import find_bubbles
from pathoml.artefacts.colours import find_blood_or_pigment, find_ink
from pathoml.artefacts.density import Absorption, optical_density_statistics
from pathoml.artefacts.folds import find_folds
from pathoml.artefacts.settings import MAPPED_ARTEFACTS, QualitySettings, TileFlag, flag_name
from pathoml.artefacts.sharpness import fine_over_coarse, sharp_share

__all__ = [
    "MAPPED_ARTEFACTS", "Absorption", "QualitySettings", "TileFlag", "find_blood_or_pigment", "find_bubbles", "find_folds",
    "find_ink", "fine_over_coarse", "flag_name", "optical_density_statistics", "sharp_share",
]  # fmt: skip
