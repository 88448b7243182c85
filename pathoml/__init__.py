"""From whole-slide images and a survival table to a prognostic model. Research use only.

The names below are the public interface; each is loaded when it is first used, so that importing pathoml is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathoml.bags import Bag, read_bag, write_bag
    from pathoml.cohort import Cohort, read_cohort
    from pathoml.config import Config, load_config
    from pathoml.cross_validation import cross_validate
    from pathoml.errors import PathomlError
    from pathoml.extract import extract_archive, extract_slide
    from pathoml.heatmaps import draw_heatmap, tile_raster
    from pathoml.infer import predict_package
    from pathoml.packages import Package, load_package, save_package
    from pathoml.pipeline.checking import check
    from pathoml.pipeline.demo import demo
    from pathoml.pipeline.planning import plan
    from pathoml.pipeline.running import run
    from pathoml.predictions import Predictions, read_predictions
    from pathoml.slides import Slide, open_slide
    from pathoml.tile_scores import score_tiles

_HOMES = {
    "Bag": "bags",
    "Cohort": "cohort",
    "Config": "config",
    "Package": "packages",
    "PathomlError": "errors",
    "Predictions": "predictions",
    "Slide": "slides",
    "check": "pipeline.checking",
    "cross_validate": "cross_validation",
    "demo": "pipeline.demo",
    "draw_heatmap": "heatmaps",
    "extract_archive": "extract",
    "extract_slide": "extract",
    "load_config": "config",
    "load_package": "packages",
    "open_slide": "slides",
    "plan": "pipeline.planning",
    "predict_package": "infer",
    "read_bag": "bags",
    "read_cohort": "cohort",
    "read_predictions": "predictions",
    "run": "pipeline.running",
    "save_package": "packages",
    "score_tiles": "tile_scores",
    "tile_raster": "heatmaps",
    "write_bag": "bags",
}

__all__ = [
    "Bag",
    "Cohort",
    "Config",
    "Package",
    "PathomlError",
    "Predictions",
    "Slide",
    "check",
    "cross_validate",
    "demo",
    "draw_heatmap",
    "extract_archive",
    "extract_slide",
    "load_config",
    "load_package",
    "open_slide",
    "plan",
    "predict_package",
    "read_bag",
    "read_cohort",
    "read_predictions",
    "run",
    "save_package",
    "score_tiles",
    "tile_raster",
    "write_bag",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module; see PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pathoml' has no attribute '{name}'")
    return getattr(import_module(f"pathoml.{_HOMES[name]}"), name)
