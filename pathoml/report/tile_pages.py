"""Pages of tiles: the kinds behind the risk, and the highest and lowest of each slide."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import simplejpeg
from jinja2 import Environment, PackageLoader, StrictUndefined

from pathoml.files import write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.units import RgbImage

_VIEWER = "http://127.0.0.1:8765/slide"
_SHOWN_ASSOCIATIONS = 8


@dataclass(frozen=True)
class ShownTile:
    """A tile as a picture.

    Parameters
    ----------
    slide_id : str
        Of its slide, as the viewer shows it.
    tile : int
        Its number in the slide's bag.
    xy_px : tuple of int
        Its corner in level-0 pixels.
    value : float
        Its contribution, relative to the average tile.
    picture : ndarray of uint8, shape (rows, columns, 3)
        RGB.
    """

    slide_id: str
    tile: int
    xy_px: tuple[int, int]
    value: float
    picture: RgbImage

    @property
    def source(self) -> str:
        """The picture as text."""
        encoded = simplejpeg.encode_jpeg(self.picture, quality=88, colorspace="RGB")
        return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode('ascii')}"

    @property
    def address(self) -> str:
        """Where the viewer shows it, while it runs on its usual port."""
        return f"{_VIEWER}?{urlencode({'name': self.slide_id, 'tile': self.tile})}"


@dataclass(frozen=True)
class PrototypePart:
    """One kind of tiles.

    Parameters
    ----------
    number : int
        From 1, the one that raises the risk most.
    contribution : float
        Mean of its tiles'.
    examples : sequence of ShownTile
        The most typical ones.
    mean_share : float
        Of the patients' tiles.
    patients : float
        Share of the patients that have any.
    associations : sequence of mapping
        Rows of the table of associations, surest first.
    """

    number: int
    contribution: float
    examples: Sequence[ShownTile]
    mean_share: float
    patients: float
    associations: Sequence[Mapping[Any, Any]]

    @property
    def surest(self) -> Sequence[Mapping[Any, Any]]:
        """The associations that the page shows."""
        return self.associations[:_SHOWN_ASSOCIATIONS]


@dataclass(frozen=True)
class SlidePart:
    """The extreme tiles of one slide.

    Parameters
    ----------
    slide_id, patient_id : str
        Which.
    highest, lowest : sequence of ShownTile
        The most extreme first.
    """

    slide_id: str
    patient_id: str
    highest: Sequence[ShownTile]
    lowest: Sequence[ShownTile]


def write_morphology(path: Path, title: str, prototypes: Sequence[PrototypePart], *, questions: int) -> None:
    """Write the page of the kinds of tiles.

    Parameters
    ----------
    path : Path
        The HTML file.
    title : str
        Name of the study.
    prototypes : sequence of PrototypePart
        Highest contribution first.
    questions : int
        How many associations were asked about.
    """
    write_text(path, _rendered("morphology.html.j2", title=title, prototypes=prototypes, questions=questions))


def write_gallery(
    path: Path, title: str, cohort: Mapping[str, Sequence[ShownTile]], slides: Sequence[SlidePart]
) -> None:
    """Write the page of extreme tiles.

    Parameters
    ----------
    path : Path
        The HTML file.
    title : str
        Name of the study.
    cohort : mapping of str to sequence of ShownTile
        ``highest`` and ``lowest`` of all slides.
    slides : sequence of SlidePart
        Those of each slide.
    """
    write_text(path, _rendered("gallery.html.j2", title=title, cohort=cohort, slides=slides))


def _rendered(template: str, **values: object) -> str:
    environment = Environment(
        loader=PackageLoader("pathoml.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(notice=RESEARCH_USE_ONLY, **values)
