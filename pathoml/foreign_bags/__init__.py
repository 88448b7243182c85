"""Bags in the layouts of TRIDENT, CLAM and STAMP: read with every doubt, written as their own readers expect."""

from pathoml.foreign_bags.importing import ImportedBag, SlideFacts, import_bag
from pathoml.foreign_bags.record import ForeignBag, Known

__all__ = ["ForeignBag", "ImportedBag", "Known", "SlideFacts", "import_bag"]
