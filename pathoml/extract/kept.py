"""Which bags are to be made, and which of them are there already."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pathoml.bags import BagHeader, read_bag, read_bag_header
from pathoml.cohort import SlideEntry
from pathoml.decoding.slide_tiles import regions_digest
from pathoml.encoders.settings import EncoderSettings
from pathoml.encoders.weights_identity import known_weights_digest
from pathoml.errors import BagError, SlideError
from pathoml.extract.outcomes import SlideOutcome
from pathoml.extract.staging import source_fingerprint
from pathoml.extract_settings import Recipe, folder_suffix

logger = logging.getLogger(__name__)


def folder_beside(folder: Path, encoder: EncoderSettings) -> Path:
    """Return where the bags of a further encoder lie.

    Parameters
    ----------
    folder : Path
        Of the first encoder's bags.
    encoder : EncoderSettings
        One of ``extract.also``.

    Returns
    -------
    Path
        ``<folder>-<encoder>``, beside it.
    """
    return folder.with_name(f"{folder.name}-{folder_suffix(encoder)}")


@dataclass(frozen=True)
class Wanted:
    """What bags of one folder should be.

    Parameters
    ----------
    recipe : Recipe
        What they hold.
    weights_digest : str or None
        Of their encoder; None where it is not known yet, and then it is not compared.
    """

    recipe: Recipe
    weights_digest: str | None


def wanted_by_folder(recipe: Recipe, folder: Path) -> dict[Path, Wanted]:
    """Return what is to be made, by folder: the recipe's own bags, and those of further encoders.

    Parameters
    ----------
    recipe : Recipe
        With ``extract.also``.
    folder : Path
        Of the first encoder's bags.

    Returns
    -------
    dict of Path to Wanted
        The folder itself first.
    """
    further = {folder_beside(folder, one): replace(recipe, encoder=one) for one in recipe.extract.also}
    recipes = {folder: recipe, **further}
    return {place: Wanted(own, known_weights_digest(own.encoder)) for place, own in recipes.items()}


def all_kept(entry: SlideEntry, wanted: Mapping[Path, Wanted]) -> SlideOutcome | None:
    """Look whether every bag of a slide is whole and up to date.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    wanted : mapping of Path to Wanted
        From `wanted_by_folder`.

    Returns
    -------
    SlideOutcome or None
        That of the first bag; None if any has to be made.
    """
    kept = [kept_bag(entry, folder, one) for folder, one in wanted.items()]
    return kept[0] if all(kept) else None


def kept_bag(entry: SlideEntry, folder: Path, wanted: Wanted) -> SlideOutcome | None:
    """Look whether a slide's bag is whole and up to date.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    folder : Path
        Of the bags.
    wanted : Wanted
        What the bag should be.

    Returns
    -------
    SlideOutcome or None
        None if the bag has to be made.
    """
    path = folder / f"{entry.slide_id}.h5"
    if not path.is_file() or not (entry.url or entry.path.is_file()):
        return None
    try:
        # The header decides most, and costs little: only bags that are as they should be are read whole.
        changed = _what_changed(read_bag_header(path), entry, source_fingerprint(entry), wanted)
        tiles = 0 if changed else len(read_bag(path).features)
    except (BagError, OSError, SlideError) as error:
        logger.warning("extracting slide %s again: %s", entry.slide_id, error)
        return None
    if changed:
        logger.info("extracting slide %s again: %s changed", entry.slide_id, " and ".join(changed))
        return None
    return SlideOutcome(entry.slide_id, "kept", tiles=tiles)


def has_weights(slide_id: str, wanted: Mapping[Path, Wanted]) -> bool:
    """Say whether every bag of a slide, which was found whole before, was made with the weights that are now known.

    Parameters
    ----------
    slide_id : str
        The slide.
    wanted : mapping of Path to Wanted
        With digests of weights.

    Returns
    -------
    bool
        False if one was made with others, or is gone meanwhile.
    """
    try:
        headers = {folder: read_bag_header(folder / f"{slide_id}.h5") for folder in wanted}
    except (BagError, OSError):
        return False
    return all(headers[folder].weights_digest == one.weights_digest for folder, one in wanted.items())


def _what_changed(header: BagHeader, entry: SlideEntry, fingerprint: str, wanted: Wanted) -> list[str]:
    """Name what a bag was made from or with that is not so any more."""
    same_mpp = header.mpp_from == "metadata" if entry.mpp is None else header.slide_mpp == (entry.mpp, entry.mpp)
    same = {
        "the slide": header.slide_fingerprint == fingerprint,
        "its resolution": same_mpp,
        "its regions": header.regions_digest == regions_digest(wanted.recipe.tissue, entry.slide_id),
        "the settings": header.settings_digest == wanted.recipe.digest,
        "the encoder's weights": wanted.weights_digest in {None, header.weights_digest},
    }
    return [name for name, is_same in same.items() if not is_same]
