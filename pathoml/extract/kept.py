"""Which bags are to be made, and which of them are there already."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.decoding.slide_tiles import regions_digest
from pathoml.encoders.settings import EncoderSettings
from pathoml.errors import BagError, SlideError
from pathoml.extract.outcomes import SlideOutcome
from pathoml.extract.staging import source_fingerprint
from pathoml.extract_settings import Recipe

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
    name = getattr(encoder, "name", None) or getattr(encoder, "architecture", None) or getattr(encoder, "features", "")
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{encoder.kind}-{name}")
    return folder.with_name(f"{folder.name}-{plain}")


def recipes_by_folder(recipe: Recipe, folder: Path) -> dict[Path, Recipe]:
    """Return what is to be made, by folder: the recipe's own bags, and those of further encoders.

    Parameters
    ----------
    recipe : Recipe
        With ``extract.also``.
    folder : Path
        Of the first encoder's bags.

    Returns
    -------
    dict of Path to Recipe
        The folder itself first.
    """
    further = {folder_beside(folder, one): replace(recipe, encoder=one) for one in recipe.extract.also}
    return {folder: recipe, **further}


def all_kept(entry: SlideEntry, recipes: Mapping[Path, Recipe]) -> SlideOutcome | None:
    """Look whether every bag of a slide is whole and up to date.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    recipes : mapping of Path to Recipe
        From `recipes_by_folder`.

    Returns
    -------
    SlideOutcome or None
        That of the first bag; None if any has to be made.
    """
    kept = [kept_bag(entry, folder, recipe) for folder, recipe in recipes.items()]
    return kept[0] if all(kept) else None


def kept_bag(entry: SlideEntry, folder: Path, recipe: Recipe) -> SlideOutcome | None:
    """Look whether a slide's bag is whole and up to date.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    folder : Path
        Of the bags.
    recipe : Recipe
        What the bag should hold.

    Returns
    -------
    SlideOutcome or None
        None if the bag has to be made.
    """
    path = folder / f"{entry.slide_id}.h5"
    if not path.is_file() or not (entry.url or entry.path.is_file()):
        return None
    try:
        bag = read_bag(path)
        fingerprint = source_fingerprint(entry)
    except (BagError, OSError, SlideError) as error:
        logger.warning("extracting slide %s again: %s", entry.slide_id, error)
        return None
    header = bag.header
    same_mpp = header.mpp_from == "metadata" if entry.mpp is None else header.slide_mpp == (entry.mpp, entry.mpp)
    same = header.settings_digest == recipe.digest and header.slide_fingerprint == fingerprint
    same &= header.regions_digest == regions_digest(recipe.tissue, entry.slide_id)
    if not same or not same_mpp:
        logger.info("extracting slide %s again: the slide or the settings changed", entry.slide_id)
        return None
    return SlideOutcome(entry.slide_id, "kept", tiles=len(bag.features))
