"""What is published about the encoders of the field: facts and their sources; torch-free."""

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pathoml.errors import EncoderError

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """One published encoder; what no source says is empty.

    Parameters
    ----------
    name : str
        What configurations call it.
    kind : {"tile", "slide"}, optional
        Whether it encodes tiles, or the features of a slide's tiles.
    tile_encoder : str, optional
        The tile encoder whose features a slide encoder takes.
    hub_id : str, optional
        Owner and name on the hub; empty where its authors publish the weights elsewhere.
    revision : str, optional
        Commit of that page that the weights are taken from.
    revision_source : str, optional
        Who names that commit.
    weights_file : str, optional
        File on that page.
    sha256 : str, optional
        SHA-256 of that file as others have published it.
    inside : str, optional
        Key under which the file keeps the state dict, if it does.
    key_layout : str, optional
        Whose names the tensors of the file have.
    keys_source : str, optional
        Who documents these names.
    dim : int
        Columns of its features.
    mpp : float, optional
        Microns per pixel of the tiles.
    tile_px : int, optional
        Side of the tiles that tiling makes.
    resize_px : int, optional
        Side that tiles are resized to.
    input_px : int, optional
        Side of the network's input: the centre of the resized tile.
    interpolation : {"bilinear", "bicubic"}, optional
        How they are resized, with antialiasing.
    mean, std : tuple of float, optional
        Mean and standard deviation of each colour (0-1).
    precision : {"float32", "float16", "bfloat16"}
        Number format that its authors or their tools run it in, as `extract.precision` calls it.
    pooling : str, optional
        How the network's last tokens become one row.
    licence : str
        Of the weights.
    gated : bool, optional
        Whether terms have to be accepted on its page first.
    pretraining : str
        What it was pretrained on.
    pretrained_on_tcga : bool or None, optional
        Whether slides of TCGA were among it; None where no source says.
    parameters : str, optional
        Their number as published.
    parameters_source : str, optional
        Who published it.
    source : str
        Where these facts are from.
    """

    name: str
    kind: Literal["tile", "slide"] = "tile"
    tile_encoder: str = ""
    hub_id: str = ""
    revision: str = ""
    revision_source: str = ""
    weights_file: str = ""
    sha256: str = ""
    inside: str = ""
    key_layout: str = "timm"
    keys_source: str = ""
    dim: int
    mpp: float = 0.5
    tile_px: int = 224
    resize_px: int = 224
    input_px: int = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD
    precision: Literal["float32", "float16", "bfloat16"]
    pooling: str = ""
    licence: str
    gated: bool = False
    pretraining: str
    pretrained_on_tcga: bool | None = None
    parameters: str = ""
    parameters_source: str = ""
    source: str

    @property
    def verified(self) -> Literal["weights", "architecture", "none"]:
        """What pathoml's tests hold against the published encoder; no published weights are among them."""
        return "architecture" if self.keys_source else "none"

    @property
    def input_text(self) -> str:
        """How a tile becomes the network's input."""
        if self.input_px != self.resize_px:
            resized = "" if self.resize_px == self.tile_px else f"resized to {self.resize_px} px, "
            return f"{resized}centre {self.input_px} px"
        return f"resized to {self.input_px} px" if self.input_px != self.tile_px else "as they are"

    @property
    def tcga_text(self) -> str:
        """Whether TCGA was in its pretraining, in a word."""
        if self.pretrained_on_tcga is None:
            return "unknown"
        return "yes" if self.pretrained_on_tcga else "no"


@cache
def encoder_records() -> tuple[EncoderRecord, ...]:
    """Return every record, tile encoders first.

    Returns
    -------
    tuple of EncoderRecord
        In the order of the file.
    """
    text = files("pathoml.encoders").joinpath("registry.toml").read_text(encoding="utf-8")
    return tuple(_record(name, values) for name, values in tomllib.loads(text).items())


def _record(name: str, values: dict[str, Any]) -> EncoderRecord:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return EncoderRecord(name=name, **plain)


def find_record(name: str) -> EncoderRecord:
    """Return the record of an encoder.

    Parameters
    ----------
    name : str
        As in ``pathoml encoders list``.

    Returns
    -------
    EncoderRecord
        Its facts.

    Raises
    ------
    EncoderError
        If there is none; the nearest names are given.
    """
    by_name = {record.name: record for record in encoder_records()}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), by_name, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise EncoderError(f"encoder '{name}' is not registered; {meant}'pathoml encoders list' shows all")


TABLE_HEADER = ("name", "dim", "mpp", "tile px", "licence", "gated", "TCGA", "verified")
"""Columns of `table_rows`."""


def table_rows() -> list[tuple[str, ...]]:
    """Return what a table of all encoders says of each.

    Returns
    -------
    list of tuple of str
        One row a record, with the columns of `TABLE_HEADER`.
    """
    return [
        (
            record.name, str(record.dim), f"{record.mpp:g}", str(record.tile_px), record.licence,
            "yes" if record.gated else "no", record.tcga_text, record.verified,
        )
        for record in encoder_records()
    ]  # fmt: skip


def markdown_table() -> str:
    """Return the table of all encoders as it stands in the documentation.

    Returns
    -------
    str
        Lines of Markdown.
    """
    lines: list[Sequence[str]] = [TABLE_HEADER, ["---"] * len(TABLE_HEADER), *table_rows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
