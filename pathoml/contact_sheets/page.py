"""One page for a whole archive: a table of what became of each slide's tiles, one legend, and every contact sheet."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import cv2

from pathoml.artefacts import TileFlag
from pathoml.contact_sheets.marks import FLAG_MARKS, MARKS, Fate, Mark, swatch
from pathoml.files import write_text
from pathoml.provenance import RESEARCH_USE_ONLY

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 1.2rem; color: #1a1a1a; background: #fff }
h2 { margin: 1.6rem 0 .4rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 14px }
th, td { border: 1px solid #c8c8c8; padding: .25rem .5rem; text-align: right; vertical-align: bottom }
th { background: #f0f0f0; font-weight: 600; max-width: 6.5rem }
td.word, th.word { text-align: left; max-width: 24rem }
th.group { text-align: center; max-width: none }
td.name { min-width: 9rem; overflow-wrap: anywhere }
tr.site td { background: #f6f6f6; white-space: nowrap } tr.site td.word { white-space: normal }
tr.total td { font-weight: 600; background: #f0f0f0 }
tr.failed td { background: #fbeaea }
ul.legend { list-style: none; padding: 0; columns: 19rem; margin: .4rem 0 }
ul.legend li { break-inside: avoid; padding: .1rem 0; display: flex; gap: .5rem; align-items: start }
ul.legend img { width: 36px; height: 18px; flex: none; margin-top: 2px }
ul.legend b { flex: none; width: .8rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 1rem; align-items: start }
figure { margin: 0; border: 1px solid #c8c8c8; padding: .4rem }
figure img { width: 100%; height: auto } figure.failed { background: #fbeaea }
figcaption { overflow-wrap: anywhere }
@media (max-width: 900px) { table { font-size: 12.5px } th, td { padding: .2rem .3rem } td.name { min-width: 7rem } }
"""
_FAILED = ' class="failed"'
_DROPPED, _FLAGGED = "dropped", "of the kept, flagged"


@dataclass(frozen=True)
class SlideRow:
    """One slide on the page of an archive.

    Parameters
    ----------
    slide_id : str
        The slide.
    site : str
        Its hospital; empty where unknown.
    code, message : str
        Why it has no bag, as the ledger says it; empty where it has one.
    sheet : Path or None
        Its picture, or None where it could not be looked at.
    fates : mapping of Fate to int, optional
        Tiles by what became of them; empty for a slide without a bag.
    flagged : mapping of TileFlag to int, optional
        Kept tiles that carry each flag.
    """

    slide_id: str
    site: str
    code: str
    message: str
    sheet: Path | None
    fates: Mapping[Fate, int] = field(default_factory=dict)
    flagged: Mapping[TileFlag, int] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the slide has no bag."""
        return self.code != ""


@dataclass(frozen=True)
class _Column:
    """A column of counts: heading, those of each slide (None where its bag does not say), sample, and what it is part of."""

    heading: str
    counts: tuple[int | None, ...]
    mark: Mark | None = None
    dropped: bool = False
    group: str = ""

    @property
    def total(self) -> int:
        return sum(count or 0 for count in self.counts)


def write_archive_page(path: Path, name: str, rows: Sequence[SlideRow], *, table: str, site_table: str = "") -> None:
    """Write one page with the counts and the sheets of all slides; those without a bag come first.

    Parameters
    ----------
    path : Path
        HTML file; it names the sheets by paths relative to itself.
    name : str
        Of the study.
    rows : sequence of SlideRow
        The slides.
    table : str
        Name of the CSV of all measures, beside the page.
    site_table : str, optional
        Name of that by hospital, where there is one.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    ordered = sorted(rows, key=lambda row: (not row.failed, row.site, row.slide_id))
    failed = sum(row.failed for row in rows)
    first = f"{failed} of {len(rows)} slides have no bag; they come first." if failed else "All slides have a bag."
    columns = _columns(ordered)
    figures = "\n".join(_figure(row, path.parent) for row in ordered)
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(name)}: quality of slides</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(name)}: what was kept of {len(rows)} slides</h1>
<p>{first} All measures of each slide are in {_link(table)}{_and_sites(site_table)}. {RESEARCH_USE_ONLY.capitalize()}.</p>
<h2>Tiles of each slide</h2>
{_explained(ordered)}
<div class="scroll"><table>
{_head(ordered, columns)}
{_body(ordered, columns)}
</table></div>
<h2>Legend of the pictures</h2>
{_legend(columns, whole=any(row.failed and row.sheet for row in ordered))}
<h2>Pictures</h2>
<p>Click on a picture to see it in full size, with its counts and its scale.</p>
<main>
{figures}
</main></body></html>
""",
    )


def _columns(rows: Sequence[SlideRow]) -> list[_Column]:
    """Return the columns of counts; reasons and flags that no slide has are left out."""
    whole = tuple(sum(row.fates.values()) if Fate.NO_TISSUE in row.fates else None for row in rows)
    columns = [_Column("tiles of the grid", whole)]
    for fate, mark in MARKS.items():
        counts = tuple(row.fates.get(fate) for row in rows)
        column = _Column(mark.text, counts, mark, dropped=fate != Fate.KEPT, group=_group_of(fate))
        if column.total or fate == Fate.KEPT:
            columns.append(column)
    for flag, mark in FLAG_MARKS.items():
        column = _Column(mark.text, tuple(row.flagged.get(flag) for row in rows), mark, group=_FLAGGED)
        if column.total:
            columns.append(column)
    return columns


def _group_of(fate: Fate) -> str:
    return "" if fate in (Fate.KEPT, Fate.NO_TISSUE) else _DROPPED


def _explained(rows: Sequence[SlideRow]) -> str:
    """Say how the columns hang together."""
    said = (
        "<p>Every tile of a slide's grid is kept, dropped for one reason, or holds no tissue, so that these columns add up to "
        "the grid. A kept tile may carry several flags. Reasons and flags that no slide has are left out."
    )
    if any(row.site for row in rows):
        said += (
            " <b>Site</b> is the hospital that the cohort's table names for the slide's patient; where numbers differ between "
            "sites more than between slides of one, staining or scanning does."
        )
    return said + "</p>"


def _head(rows: Sequence[SlideRow], columns: Sequence[_Column]) -> str:
    words = ["slide", *(["site"] if any(row.site for row in rows) else []), "outcome"]
    cells = "".join(f'<th class="word" scope="col" rowspan="2">{word}</th>' for word in words)
    for group, members in groupby(columns, key=lambda column: column.group):
        one = list(members)
        if group:
            cells += f'<th class="group" scope="colgroup" colspan="{len(one)}">{group}</th>'
        else:
            cells += "".join(f'<th scope="col" rowspan="2">{escape(column.heading)}</th>' for column in one)
    second = "".join(f'<th scope="col">{escape(column.heading)}</th>' for column in columns if column.group)
    return f"<thead><tr>{cells}</tr><tr>{second}</tr></thead>"


def _body(rows: Sequence[SlideRow], columns: Sequence[_Column]) -> str:
    with_site = any(row.site for row in rows)
    lines = []
    for number, row in enumerate(rows):
        cells = _words(row.slide_id, row.site if with_site else None, row.code or "bag")
        if row.failed:
            cells += f'<td class="word" colspan="{len(columns)}">{escape(row.message)}</td>'
        else:
            cells += "".join(f"<td>{_shown(column.counts[number])}</td>" for column in columns)
        lines.append(f"<tr{_FAILED if row.failed else ''}>{cells}</tr>")
    sites = f"{len({row.site for row in rows} - {''})} sites" if with_site else None
    total = _words(f"{len(rows)} slides", sites, f"{sum(not row.failed for row in rows)} with a bag")
    total += "".join(f"<td>{column.total:,}</td>" for column in columns)
    by_site = _site_lines(rows, columns) if with_site else []
    return "<tbody>\n" + "\n".join([*lines, *by_site]) + f'\n<tr class="total">{total}</tr>\n</tbody>'


def _site_lines(rows: Sequence[SlideRow], columns: Sequence[_Column]) -> list[str]:
    """Return a row of sums for each hospital, with the share of the grid that each is."""
    lines = []
    for site in sorted({row.site for row in rows if row.site}):
        own = [number for number, row in enumerate(rows) if row.site == site]
        known = [[count for number in own if (count := column.counts[number]) is not None] for column in columns]
        whole, *sums = (sum(counts) if counts else None for counts in known)
        failed = sum(rows[number].failed for number in own)
        cells = _words(f"{len(own)} slide{'s' if len(own) > 1 else ''}", site, f"{len(own) - failed} with a bag")
        cells += f"<td>{_shown(whole)}</td>" + "".join(f"<td>{_with_share(one, whole)}</td>" for one in sums)
        lines.append(f'<tr class="site">{cells}</tr>')
    return lines


def _with_share(count: int | None, whole: int | None) -> str:
    return f"{count:,} ({count / whole:.0%})" if whole and count is not None else _shown(count)


def _link(table: str) -> str:
    return f'<a href="{quote(table)}">{escape(table)}</a>'


def _and_sites(table: str) -> str:
    return f", and by hospital in {_link(table)}" if table else ""


def _words(name: str, site: str | None, outcome: str) -> str:
    """Return the cells before the counts; no cell for the site where no slide has one."""
    beside = "".join(f'<td class="word">{escape(word)}</td>' for word in (site, outcome) if word is not None)
    return f'<td class="word name">{escape(name)}</td>{beside}'


def _shown(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _legend(columns: Sequence[_Column], *, whole: bool) -> str:
    """Explain every mark that occurs, each beside a sample of itself; all marks where pictures show slides without counts."""
    every = [(mark, fate != Fate.KEPT, _group_of(fate)) for fate, mark in MARKS.items()]
    every += [(mark, False, _FLAGGED) for mark in FLAG_MARKS.values()]
    counted = [(column.mark, column.dropped, column.group) for column in columns if column.mark is not None]
    items = [
        f'<li><img alt="" src="{_inline(mark, dropped=is_dropped)}"><b>{mark.letter}</b> '
        f"<span>{escape(': '.join(word for word in (group, mark.text) if word))}</span></li>"
        for mark, is_dropped, group in (every if whole else counted)
    ]
    lines = (
        "<li><span>Black line: around tissue. Coloured line within white: around an artefact, in the colour of its mark."
        "</span></li>"
    )
    letters = "Letters are written into tiles that are large enough on the picture."
    return f'<ul class="legend">{"".join(items)}{lines}</ul><p>{letters}</p>'


def _inline(mark: Mark, *, dropped: bool) -> str:
    _, coded = cv2.imencode(".png", cv2.cvtColor(swatch(mark, dropped=dropped), cv2.COLOR_RGB2BGR))
    return f"data:image/png;base64,{base64.b64encode(coded.tobytes()).decode()}"


def _figure(row: SlideRow, folder: Path) -> str:
    """Return a slide's picture; nothing where there is none, since the table says why."""
    if row.sheet is None:
        return ""
    source = quote(row.sheet.relative_to(folder).as_posix())
    image = f'<a href="{source}"><img loading="lazy" src="{source}" alt="{escape(row.slide_id, quote=True)}"></a>'
    text = ", ".join(escape(word) for word in (row.slide_id, row.site, row.code) if word)
    return f"<figure{_FAILED if row.failed else ''}>{image}<figcaption>{text}</figcaption></figure>"
