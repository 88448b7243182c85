"""Archive of slides -> feature bags: the only place where slides, tiling and encoders meet."""

from pathoml.extract.archive import extract_archive
from pathoml.extract.built import release_encoders
from pathoml.extract.outcomes import SlideOutcome
from pathoml.extract.ray_engine import extract_with_ray
from pathoml.extract.shards import Shard, parse_shard
from pathoml.extract.slide import extract_slide
from pathoml.extract.status import ExtractStatus, Watch

__all__ = [
    "ExtractStatus", "Shard", "SlideOutcome", "Watch", "extract_archive", "extract_slide", "extract_with_ray",
    "parse_shard", "release_encoders",
]  # fmt: skip
