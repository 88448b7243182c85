"""After extraction: a page of contact sheets and a table of quality measures, for a person to look through."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pathoml.artefacts import TileFlag, flag_name
from pathoml.bags import read_bag
from pathoml.cohort import Cohort, SlideEntry
from pathoml.contact_sheets import SheetEntry, sheet_path, write_archive_page
from pathoml.extract import SlideOutcome
from pathoml.files import write_text

_COUNTED = tuple(flag for flag in TileFlag if flag)
WARNED_FLAGS = (TileFlag.PEN, TileFlag.OUT_OF_FOCUS, TileFlag.FOLD, TileFlag.BUBBLE, TileFlag.ABSENT_PART)
"""Flags that a report has to mention where most tiles of a slide carry them."""


def quality_path(bags: Path) -> Path:
    """Return where the table of quality measures lies.

    Parameters
    ----------
    bags : Path
        Folder of the bags.

    Returns
    -------
    Path
        ``quality.csv`` beside them.
    """
    return bags / "quality.csv"


def write_quality(
    entries: Sequence[SlideEntry], outcomes: Sequence[SlideOutcome], cohort: Cohort, bags: Path, name: str
) -> None:
    """Write ``contact_sheets.html``, ``quality.csv`` and ``quality_sites.csv`` beside the bags.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    outcomes : sequence of SlideOutcome
        What became of each.
    cohort : Cohort
        Names the site of each patient.
    bags : Path
        Folder of the bags.
    name : str
        Of the study.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    site_of = dict(zip(cohort.patient_id.tolist(), cohort.site.tolist(), strict=True))
    sheets, rows = [], []
    for entry, outcome in zip(entries, outcomes, strict=True):
        sheet = sheet_path(bags, entry.slide_id)
        said = f"{outcome.code}: {outcome.message}" if not outcome.has_bag else outcome.status
        site = site_of.get(entry.patient_id, "")
        sheets.append(SheetEntry(entry.slide_id, site, said, sheet if sheet.is_file() else None))
        measures = {} if not outcome.has_bag else _measures(bags / f"{entry.slide_id}.h5")
        rows.append({"slide_id": entry.slide_id, "site": site, "code": outcome.code, **measures})
    write_archive_page(bags / "contact_sheets.html", name, sheets)
    table = pd.DataFrame(rows)
    write_text(quality_path(bags), table.to_csv(index=False))
    write_text(bags / "quality_sites.csv", _by_site(table).to_csv(index=False))


def _by_site(slides: pd.DataFrame) -> pd.DataFrame:
    """Return one row a site: slides, those that failed, sums of counts and means of the other measures."""
    numbers = [str(name) for name in slides.select_dtypes("number")]
    counted = {name for name in numbers if name in {"tiles", "lost_tiles"} or name.startswith("rejected_")}
    how = {name: "sum" if name in counted else "mean" for name in numbers}
    groups = slides.assign(failed=slides["code"] != "").groupby("site", sort=True)
    heads = groups.agg(slides=("slide_id", "size"), failed=("failed", "sum"))
    measures = groups.agg(how).round(4) if how else pd.DataFrame(index=heads.index)
    return heads.join(measures).reset_index()


def _measures(path: Path) -> dict[str, float | str]:
    bag = read_bag(path, verify=False)  # extraction has just verified it
    flagged = {f"{flag_name(flag)}_share": float(((bag.flags & flag) > 0).mean()) for flag in _COUNTED}
    return {
        "tiles": len(bag.features),
        "lost_tiles": bag.header.lost_tiles,
        **{f"rejected_{reason}": count for reason, count in bag.header.rejected.items()},
        "mean_tissue_share": round(float(bag.tissue_share.mean()), 4),
        **{column: round(share, 4) for column, share in flagged.items()},
        "mpp_read": round(bag.header.mpp_read[0], 5),
        **{f"density_{name}": value for name, value in bag.header.optical_density.items()},
        "stain": bag.header.stain,
        "reader": bag.header.reader,
    }
