"""Synthetic slides and cohorts, for the demo and for tests; nothing else in pathoml imports this package."""

from pathoml.testing.design import CohortDesign as CohortDesign
from pathoml.testing.design import Hospital as Hospital
from pathoml.testing.drawing import SlideSpec as SlideSpec
from pathoml.testing.drawing import SlideTruth as SlideTruth
from pathoml.testing.drawing import draw_slide as draw_slide
from pathoml.testing.histology import KINDS as KINDS
from pathoml.testing.histology import TissuePlan as TissuePlan
from pathoml.testing.histology import lay_out as lay_out
from pathoml.testing.synthetic import DEMO_DESIGN as DEMO_DESIGN
from pathoml.testing.synthetic import DEMO_SEED as DEMO_SEED
from pathoml.testing.synthetic import EVALUATION_SEEDS as EVALUATION_SEEDS
from pathoml.testing.synthetic import GENERATOR_VERSION as GENERATOR_VERSION
from pathoml.testing.synthetic import SMALL_DESIGN as SMALL_DESIGN
from pathoml.testing.synthetic import CohortPaths as CohortPaths
from pathoml.testing.synthetic import make_cohort as make_cohort
from pathoml.testing.truth import tile_composition as tile_composition
