"""After extraction: a page of contact sheets and a table of quality measures, for a person to look through."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pathoml.artefacts import TileFlag, flag_name
from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.contact_sheets import SlideRow, sheet_path, write_archive_page
from pathoml.contact_sheets.marks import Fate
from pathoml.extract import SlideOutcome
from pathoml.files import write_text

_COUNTED = tuple(flag for flag in TileFlag if flag)
WARNED_FLAGS = (TileFlag.PEN, TileFlag.OUT_OF_FOCUS, TileFlag.FOLD, TileFlag.BUBBLE, TileFlag.ABSENT_PART)
"""Flags that a report has to mention where most tiles of a slide carry them."""


_BY_SITE = "quality_sites.csv"


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
    entries: Sequence[SlideEntry], outcomes: Sequence[SlideOutcome], site_of: Mapping[str, str], bags: Path, name: str
) -> None:
    """Write ``contact_sheets.html``, ``quality.csv`` and ``quality_sites.csv`` beside the bags.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    outcomes : sequence of SlideOutcome
        What became of each.
    site_of : mapping of str to str
        Site of each patient; empty where no clinical table names any.
    bags : Path
        Folder of the bags.
    name : str
        Of the study.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    rows, measures = [], []
    for entry, outcome in zip(entries, outcomes, strict=True):
        sheet = sheet_path(bags, entry.slide_id)
        site = site_of.get(entry.patient_id, "")
        seen = _Seen.of(bags / f"{entry.slide_id}.h5") if outcome.has_bag else _Seen({}, {}, {})
        shown = sheet if sheet.is_file() else None
        rows.append(SlideRow(entry.slide_id, site, outcome.code, outcome.message, shown, seen.fates, seen.flagged))
        measures.append({"slide_id": entry.slide_id, "site": site, "code": outcome.code, **seen.measures})
    table = pd.DataFrame(measures)
    counts = [str(column) for column in table if _is_count(str(column))]
    table[counts] = table[counts].astype(
        "Int64"
    )  # a slide without a bag has no count, which is not a reason for fractions
    write_text(quality_path(bags), table.to_csv(index=False))
    write_text(bags / _BY_SITE, _by_site(table).to_csv(index=False))
    write_archive_page(
        bags / "contact_sheets.html", name, rows, table=quality_path(bags).name,
        site_table=_BY_SITE if any(row.site for row in rows) else "",
    )  # fmt: skip


def _is_count(column: str) -> bool:
    return column in {"grid_tiles", "tiles", "lost_tiles"} or column.startswith(("rejected_", "flagged_"))


def _by_site(slides: pd.DataFrame) -> pd.DataFrame:
    """Return one row a site: slides, those that failed, sums of counts and means of the other measures."""
    numbers = [str(name) for name in slides.select_dtypes("number")]
    how = {name: "sum" if _is_count(name) else "mean" for name in numbers}
    groups = slides.assign(failed=slides["code"] != "").groupby("site", sort=True)
    heads = groups.agg(slides=("slide_id", "size"), failed=("failed", "sum"))
    measures = groups.agg(how).round(4) if how else pd.DataFrame(index=heads.index)
    return heads.join(measures).reset_index()


class _Seen(NamedTuple):
    """What a bag says of a slide's tiles: by fate, by flag, and as columns of the table."""

    fates: dict[Fate, int]
    flagged: dict[TileFlag, int]
    measures: dict[str, float | str | None]

    @classmethod
    def of(cls, path: Path) -> "_Seen":
        bag = read_bag(path, verify=False)  # extraction has just verified it
        header, tiles = bag.header, len(bag.features)
        fates = {Fate[reason.upper()]: count for reason, count in header.rejected.items()}
        fates |= {Fate.KEPT: tiles, Fate.LOST: header.lost_tiles}
        flagged = {flag: int(((bag.flags & flag) > 0).sum()) for flag in _COUNTED}
        measures: dict[str, float | str | None] = {
            # Bags of earlier versions do not say how many tiles hold no tissue.
            "grid_tiles": sum(fates.values()) if Fate.NO_TISSUE in fates else None,
            "tiles": tiles,
            "lost_tiles": header.lost_tiles,
            **{f"rejected_{reason}": count for reason, count in header.rejected.items()},
            "mean_tissue_share": round(float(bag.tissue_share.mean()), 4),
            **{f"flagged_{flag_name(flag)}": count for flag, count in flagged.items()},
            **{f"{flag_name(flag)}_share": round(count / tiles, 4) for flag, count in flagged.items()},
            "slide_mpp": round(header.slide_mpp[0], 5),
            "mpp_read": round(header.mpp_read[0], 5),
            **{f"density_{name}": value for name, value in header.optical_density.items()},
            "stain": header.stain,
            "reader": header.reader,
        }
        return cls(fates, flagged, measures)
