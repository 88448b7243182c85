"""What a page is made of: tables, figures, sections."""

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of the page.

    Parameters
    ----------
    caption : str
        What it holds.
    header : tuple of str
        Names of the columns.
    rows : sequence of tuple of str
        The first cell names the row.
    folded : bool, optional
        Whether the page shows it only when it is asked for, as the numbers behind a figure.
    """

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    folded: bool = False


class Picture(NamedTuple):
    """A figure of the page.

    Parameters
    ----------
    svg : str
        With its own text for screen readers.
    caption : str
        What it shows, of how many patients and events, and what its intervals mean.
    """

    svg: str
    caption: str


class Section(NamedTuple):
    """What the page shows under one heading.

    Parameters
    ----------
    title : str
        Heading.
    text : list of str
        Sentences, before anything else.
    figures : list of Picture
        Side by side where there is room.
    tables : list of Table
        Below the figures.
    """

    title: str
    text: list[str]
    figures: list[Picture]
    tables: list[Table]


class SchemePart(NamedTuple):
    """A scheme of the page.

    Parameters
    ----------
    title : str
        Heading.
    verdicts : list of str
        What the numbers allow to be said.
    sections : list of Section
        In order.
    note : str, optional
        Of what the numbers are.
    """

    title: str
    verdicts: list[str]
    sections: list[Section]
    note: str = ""
