"""Names of patients and hospitals that people take for one though they are spelt otherwise."""

import re
import unicodedata

TCGA_PATIENT = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?:-|$)", re.IGNORECASE)
"""TCGA's barcode of a patient, at the beginning of those of samples and slides."""


def plain_name(name: str) -> str:
    """Return a name without capitals, accents' spellings, zeros in front of numbers, and separators but those between two numbers.

    Parameters
    ----------
    name : str
        Of a patient or a hospital.

    Returns
    -------
    str
        The same for names that people take for one.
    """
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFKC", name).casefold()).strip("-")
    numbers = re.sub(r"(?<!\d)0+(?=\d)", "", words)
    return re.sub(r"(?<!\d)-|-(?!\d)", "", numbers)
