"""Bags that were imported: nothing is extracted, and each is looked at before it is used."""

from collections.abc import Sequence
from pathlib import Path

from pathoml.bags import Bag, read_bag
from pathoml.cohort import SlideEntry
from pathoml.errors import BagError
from pathoml.extract import SlideOutcome
from pathoml.progress import Progress, silent


def take_bags(
    entries: Sequence[SlideEntry], folder: Path, encoder: str, *, progress: Progress = silent
) -> list[SlideOutcome]:
    """Look for the bag of every slide; one that is missing, damaged or of another encoder is left out, with the reason.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides; their files need not exist.
    folder : Path
        Where ``<slide_id>.h5`` are kept.
    encoder : str
        What every bag has to name as its encoder.
    progress : Progress, optional
        Told after every bag.

    Returns
    -------
    list of SlideOutcome
        In the order of the entries; codes NO_BAG and BAD_BAG.
    """
    outcomes = []
    for done, entry in enumerate(entries, start=1):
        path = folder / f"{entry.slide_id}.h5"
        try:
            bag = read_bag(path) if path.is_file() else None
        except BagError as error:
            outcomes.append(SlideOutcome(entry.slide_id, "failed", "BAD_BAG", str(error)))
        else:
            outcomes.append(_judged(entry.slide_id, bag, encoder))
        progress("bags", done, len(entries))
    return outcomes


def _judged(slide_id: str, bag: Bag | None, encoder: str) -> SlideOutcome:
    if bag is None:
        return SlideOutcome(slide_id, "failed", "NO_BAG", "there is no bag of it; make it with 'pathoml bags import'")
    if bag.header.encoder != encoder:
        message = f"its bag is of the encoder {bag.header.encoder}, the configuration names {encoder}"
        return SlideOutcome(slide_id, "failed", "BAD_BAG", message)
    return SlideOutcome(slide_id, "kept", tiles=len(bag.features))
