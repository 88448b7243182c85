"""Leaks: of a split (people, hospitals, slides on both sides) and of fitted models (what they have seen)."""

from pathoml.leakage.copies import SlideMark, hash_rows
from pathoml.leakage.findings import Finding
from pathoml.leakage.report import CHECKS, LeakageReport, check_predictions, examine_leakage, refuse_leaks
from pathoml.leakage.seen import SeenPatients, check_fit, note_seen, read_seen, require_unseen, write_seen

__all__ = [
    "CHECKS",
    "Finding",
    "LeakageReport",
    "SeenPatients",
    "SlideMark",
    "check_fit",
    "check_predictions",
    "examine_leakage",
    "hash_rows",
    "note_seen",
    "read_seen",
    "refuse_leaks",
    "require_unseen",
    "write_seen",
]
