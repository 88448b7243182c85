"""Whether bags on disk are what was written, and still belong to their slides."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathoml.bags import BagHeader, read_bag
from pathoml.cohort import SlideEntry
from pathoml.errors import BagError, InputError
from pathoml.slides import slide_digest, slide_fingerprint


@dataclass(frozen=True)
class BagVerdict:
    """What was found of one bag.

    Parameters
    ----------
    name : str
        The bag's file name.
    whole : bool
        Whether nothing is wrong with it.
    said : str
        A sentence.
    """

    name: str
    whole: bool
    said: str


def verify_bags(paths: Sequence[Path], entries: Sequence[SlideEntry] | None = None) -> Iterator[BagVerdict]:
    """Recompute the checksums of bags and, where the slides are given, of every byte that they were made from.

    Parameters
    ----------
    paths : sequence of Path
        Bags.
    entries : sequence of SlideEntry, optional
        Slides by whose files the bags are held; each bag's slide has to be among them.

    Yields
    ------
    BagVerdict
        One a bag, in order.

    Raises
    ------
    InputError
        If a bag's slide is not among the entries.
    """
    slides = None if entries is None else {entry.slide_id: entry for entry in entries}
    for path in paths:
        try:
            bag = read_bag(path)
        except BagError as error:
            yield BagVerdict(path.name, whole=False, said=str(error))
            continue
        wrong = "" if slides is None else _wrong_source(bag.header, slides, path.name)
        whole = f"{path.name}: whole, {len(bag.features)} tiles" + ("" if slides is None else ", of this very slide")
        yield BagVerdict(path.name, whole=not wrong, said=wrong or whole)


def _wrong_source(header: BagHeader, slides: Mapping[str, SlideEntry], name: str) -> str:
    """Return what is wrong with the slide of a bag, in a sentence, or nothing."""
    entry = slides.get(header.slide_id)
    if entry is None:
        raise InputError(f"{name}: its slide {header.slide_id} is not in the manifest; give the study it belongs to")
    if not header.slide_fingerprint:
        return f"{name}: imported without its slide, so nothing tells whose it is; import it again with --manifest"
    if not entry.path.is_file():
        return f"{name}: its slide {entry.path.name} is not where the manifest says; mount or copy it"
    if slide_fingerprint(entry.path) != header.slide_fingerprint:
        return f"{name}: {entry.path.name} was replaced or saved again after extraction; extract it again"
    if slide_digest(entry.path) != header.slide_digest:
        return (
            f"{name}: bytes of {entry.path.name} changed after extraction without a trace in its size or header; "
            "copy the slide again from its source, then extract it again if this message stays"
        )
    return ""
