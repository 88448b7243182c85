"""What slides and patients are called where people look: the manifest's pseudonyms, where it has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathoml.cohort import SlideEntry
from pathoml.tables import read_text_table


@dataclass(frozen=True)
class ShownNames:
    """Names to be shown.

    Parameters
    ----------
    slides : mapping of str to str
        By slide_id: its pseudonym, or the id itself; of a patient who has a pseudonym for another slide, one made of that.
    patients : mapping of str to str
        By patient_id; a patient one of whose slides has a pseudonym is called after it.
    """

    slides: Mapping[str, str]
    patients: Mapping[str, str]


def shown_names(manifest: Path, entries: Sequence[SlideEntry]) -> ShownNames:
    """Read what slides and patients may be called.

    Parameters
    ----------
    manifest : Path
        Its column ``pseudonym`` is used, where there is one.
    entries : sequence of SlideEntry
        Its slides.

    Returns
    -------
    ShownNames
        Of all of them.
    """
    table = read_text_table(manifest)
    given: dict[str, str] = {}
    if "pseudonym" in table.columns:
        named = table[table["pseudonym"] != ""]
        given = dict(zip(named["slide_id"], named["pseudonym"], strict=True))
    patients: dict[str, str] = {}
    for entry in entries:
        own = given.get(entry.slide_id)
        if own is not None and patients.get(entry.patient_id, entry.patient_id) == entry.patient_id:
            patients[entry.patient_id] = f"patient of {own}"
        patients.setdefault(entry.patient_id, entry.patient_id)
    slides: dict[str, str] = {}
    seen: dict[str, int] = {}
    for entry in entries:
        seen[entry.patient_id] = seen.get(entry.patient_id, 0) + 1
        patient = patients[entry.patient_id]
        hidden = entry.slide_id if patient == entry.patient_id else f"{patient}, slide {seen[entry.patient_id]}"
        slides[entry.slide_id] = given.get(entry.slide_id, hidden)
    return ShownNames(slides, patients)
