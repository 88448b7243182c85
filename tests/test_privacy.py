"""Canaries planted in every free-text property of a slide reach no file that pathoml writes and no line that it prints."""

import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from pathoml.cli.root import app
from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract import extract_archive
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.pipeline.quality import write_quality
from pathoml.pipeline.slide_facts import slide_facts, write_regions_of, write_sheet_of
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

FIELDS = (
    "Filename", "Title", "User", "Date", "Time", "ScanScope ID", "Barcode", "ImageID", "OriginalWidth", "Rack", "Slide",
    "DSR ID", "Focus Offset", "Left", "Top", "AppMag",
)  # fmt: skip
TAGS = {"Software": 305, "Artist": 315, "HostComputer": 316, "DocumentName": 269, "Copyright": 33432, "PageName": 285}


def canary(name: str) -> str:
    return f"CANARY-{name.replace(' ', '')}-7351"


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Write an Aperio slide whose every free-text field names a canary, with a label image full of one colour."""
    rows, columns = np.mgrid[:900, :1100]
    pixels = np.stack([200 + 0 * rows, 90 + rows % 40, 160 + columns % 50], axis=-1).astype(np.uint8)
    fields = "".join(f"|{name} = {canary(name)}" for name in FIELDS)
    description = f"Aperio Image Library v12.0.15\r\n1100x900 [0,0 1100x900] (256x256) JPEG/RGB Q=80|MPP = 0.5{fields}"
    extra = [(code, "s", 0, canary(name), True) for name, code in TAGS.items() if name != "Software"]
    path = tmp_path / "planted.svs"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            pixels, tile=(256, 256), compression="jpeg", photometric="rgb", description=description, metadata=None,
            software=canary("Software"), extratags=extra,
        )  # fmt: skip
        tiff.write(pixels[::4, ::4], photometric="rgb", description="Aperio\r\nthumbnail", metadata=None)
        tiff.write(
            pixels[:300, :300], photometric="rgb", description="Aperio\r\nlabel 300x300", subfiletype=1, metadata=None
        )
    return path


DICOM_TEXTS = {
    (0x0008, 0x0050): b"SH", (0x0008, 0x0080): b"LO", (0x0008, 0x0090): b"PN", (0x0010, 0x0010): b"PN", (0x0010, 0x0020): b"LO",
    (0x0018, 0x1000): b"LO",
}  # fmt: skip
"""Accession number, institution, physician, patient's name and number, serial number of the scanner."""


def planted_ome(folder: Path, data_dir: Path) -> Path:
    path = folder / "planted.ome.tif"
    pixels = np.random.default_rng(0).normal((200, 110, 165), 12, (700, 900, 3)).clip(0, 255).astype(np.uint8)
    about = {
        "axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Name": canary("Name"), "Description": canary("Description"),
        "AcquisitionDate": canary("AcquisitionDate"),
    }  # fmt: skip
    tifffile.imwrite(
        path, pixels, tile=(256, 256), compression="jpeg", photometric="rgb", metadata=about, ome=True,
        software=canary("Software"), extratags=[(315, "s", 0, canary("Artist"), True)],
    )  # fmt: skip
    return path


def planted_dicom(folder: Path, data_dir: Path) -> Path:
    """Put canaries among a real slide's own elements, in place of those that it has."""
    path = folder / "planted.dcm"
    data = (data_dir / "slides/dicom_camelyon_jpeg2000.dcm").read_bytes()
    for tag in sorted(DICOM_TEXTS):
        data = with_text(data, tag, canary(f"{tag[0]:04x}{tag[1]:04x}").encode("ascii"))
    path.write_bytes(data)
    return path


def with_text(data: bytes, tag: tuple[int, int], text: bytes) -> bytes:
    """Replace or insert a text of the main data set of an explicit little-endian DICOM file."""
    text += b" " * (len(text) % 2)
    at = 132 + 12 + struct.unpack_from("<I", data, 140)[0]  # behind the group of the file's own facts
    while True:
        here = struct.unpack_from("<HH", data, at)
        long = data[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"OF")
        size = struct.unpack_from("<I", data, at + 8)[0] if long else struct.unpack_from("<H", data, at + 6)[0]
        after = at + (12 if long else 8) + size
        if size == 0xFFFFFFFF:
            after = data.index(b"\xfe\xff\xdd\xe0\0\0\0\0", at) + 8
        if here >= tag:
            rest = data[after:] if here == tag else data[at:]
            return data[:at] + struct.pack("<HH", *tag) + DICOM_TEXTS[tag] + struct.pack("<H", len(text)) + text + rest
        at = after


@pytest.mark.parametrize("damage", ["whole", "cut", "flipped"])
@pytest.mark.parametrize("plant", [planted_ome, planted_dicom])
def test_no_canary_leaves_a_slide_of_another_kind_whole_or_damaged(
    plant: Callable[[Path, Path], Path], damage: str, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, out = plant(tmp_path, data_dir), tmp_path / "out"
    data = bytearray(path.read_bytes())
    assert data.count(b"CANARY") >= 4
    if damage == "cut":
        del data[int(0.6 * len(data)) :]
    elif damage == "flipped":
        for at in np.random.default_rng(1).integers(0, len(data), 400).tolist():
            data[at] ^= 1 << at % 8
    path.write_bytes(data)
    caplog.set_level(logging.DEBUG)
    out.mkdir()
    entries = [SlideEntry("S1", path, "P1", 0.5, 2)]
    recipe = Recipe(ClassicalTissueSettings(), TilingSettings(max_tiles=4), Lite0Settings(), ExtractSettings(workers=0))
    outcomes = extract_archive(entries, recipe, out)
    write_quality(entries, outcomes, {}, out, "study")
    assert (outcomes[0].status == "done") or damage != "whole", outcomes[0].message
    for command in (["info"], ["thumbnail", "-o", str(out / "drawn.png")]):
        said = CliRunner().invoke(
            app, ["slide", *command, "--mpp" if command == ["info"] else "--slide-mpp", "0.5", str(path)]
        )
        (out / f"{command[0]}.txt").write_text(said.output + repr(said.exception), encoding="utf-8")
    for file in out.rglob("*.*"):
        assert b"CANARY" not in file.read_bytes(), file.name
    assert "CANARY" not in caplog.text


def test_no_canary_leaves_the_slide(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with openslide.OpenSlide(slide) as reference:
        planted = {value for value in reference.properties.values() if "CANARY" in value}
        assert len(planted) > 10, "OpenSlide sees the canaries"
        assert "label" in reference.associated_images

    def refuse(self: openslide.OpenSlide) -> None:
        raise AssertionError("the label or macro image was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(refuse))
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "out"
    out.mkdir()
    entries = [SlideEntry("S1", slide, "P1", None, 2)]
    recipe = Recipe(ClassicalTissueSettings(), TilingSettings(max_tiles=4), Lite0Settings(), ExtractSettings(workers=0))
    outcomes = extract_archive(entries, recipe, out)
    assert [one.status for one in outcomes] == ["done"]
    write_quality(entries, outcomes, {"P1": "05"}, out, "study")
    write_regions_of(slide, out / "regions.geojson")
    write_sheet_of(slide, out / "sheet.png")
    for name, command in {
        "info": ["info"], "sheet": ["thumbnail", "-o", str(out / "drawn.png")],
        "plain": ["thumbnail", "--plain", "-o", str(out / "plain.png")],
    }.items():  # fmt: skip
        said = CliRunner().invoke(app, ["slide", *command, str(slide)])
        assert said.exit_code == 0, said.output
        (out / f"{name}.txt").write_text(said.output, encoding="utf-8")
    facts = slide_facts(slide)
    assert dict(facts)["tier"] == "native tiles"
    files = {path.name: path.read_bytes() for path in out.rglob("*.*")}
    assert {
        "S1.h5",
        "S1.png",
        "contact_sheets.html",
        "quality.csv",
        "regions.geojson",
        "ledger.jsonl",
        "info.txt",
    } <= set(files)
    for name, content in list(files.items()):
        if name.endswith(".png"):  # pixels are compressed; texts beside them need not be
            with Image.open(io.BytesIO(content)) as picture:
                files[f"{name}, its texts"] = repr(picture.info).encode()
    for name, content in files.items():
        assert b"CANARY" not in content, name
    assert "CANARY" not in str(facts)
    assert "CANARY" not in caplog.text
