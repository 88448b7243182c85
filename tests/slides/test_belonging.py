"""Which files a slide consists of: all that the scanner wrote for it, none of its neighbours, nothing private read."""

import io
from pathlib import Path

import openslide
import pytest

from pathoml.slides import slide_digest, slide_fingerprint
from pathoml.slides.belonging import slide_files
from pathoml.slides.dicom_series import read_series_uid
from tests.slides.several_files import BIG_ENDIAN, EXPLICIT, IMPLICIT, PRIVATE, dicom, slide_of_several_files


@pytest.mark.parametrize("name", ["a.mrxs", "a.dcm", "a.vms"])
def test_a_slide_is_all_its_files_and_no_others(tmp_path: Path, name: str) -> None:
    path, beside = slide_of_several_files(tmp_path, name)
    before = slide_fingerprint(path), slide_digest(path)
    assert slide_files(path) == [path, beside]
    (tmp_path / "neighbour.dcm").write_bytes(dicom("7.7.7"))
    (tmp_path / "neighbour.jpg").write_bytes(b"x")
    assert (slide_fingerprint(path), slide_digest(path)) == before
    beside.write_bytes(beside.read_bytes().replace(b"belongs", b"belongz"))
    assert slide_fingerprint(path) != before[0]
    assert slide_digest(path) != before[1]


def test_a_file_that_joins_a_series_belongs_to_it_from_then_on(tmp_path: Path) -> None:
    path, beside = slide_of_several_files(tmp_path, "a.dcm")
    late = tmp_path / "1.2.840.99.3"  # exports often name files by their number alone
    late.write_bytes(dicom("8.8"))
    assert slide_files(path) == [path, beside]
    late.write_bytes(dicom("1.2.3.4", pixels=b"more pixels than before"))
    assert slide_files(path) == [path, late, beside]


def test_a_single_file_is_alone_whatever_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"x")
    slide_of_several_files(tmp_path, "b.mrxs")
    assert slide_files(tmp_path / "a.svs") == [tmp_path / "a.svs"]


@pytest.mark.parametrize("named", ["../secret.jpg", "..\\secret.jpg", "/etc/passwd", "C:\\secret.jpg"])
def test_an_index_names_nothing_outside_its_folder(tmp_path: Path, named: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "share").mkdir()
    path = tmp_path / "share" / "a.vms"
    path.write_text(f"[Virtual Microscope Specimen]\nImageFile={named}\n", encoding="ascii")
    assert slide_files(path) == [path]


@pytest.mark.parametrize("content", [b"\xff\xd8 no index", b"ImageFile=picture.jpg", b"[Other]\nImageFile=picture.jpg"])
def test_what_is_no_index_names_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "picture.jpg").write_bytes(b"x")
    (tmp_path / "a.vms").write_bytes(content)
    assert slide_files(tmp_path / "a.vms") == [tmp_path / "a.vms"]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_the_series_is_read_in_every_encoding_past_sequences(syntax: str) -> None:
    assert read_series_uid(io.BytesIO(dicom("1.2.3.4", syntax=syntax))) == "1.2.3.4"


def test_the_series_is_the_one_that_openslide_says(data_dir: Path) -> None:
    path = data_dir / "slides" / "dicom_camelyon_jpeg2000.dcm"
    with openslide.OpenSlide(path) as slide, path.open("rb") as stream:
        assert read_series_uid(stream) == slide.properties["dicom.SeriesInstanceUID"]


class Recorded(io.BytesIO):
    """Remembers what was read of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.seen = b""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.seen += data
        return data


def test_nothing_private_is_read_on_the_way() -> None:
    stream = Recorded(dicom("1.2.3.4"))
    assert read_series_uid(stream) == "1.2.3.4"
    assert PRIVATE[:4] not in stream.seen
    assert b"pixels" not in stream.seen


def test_every_header_that_is_cut_or_altered_ends_without_an_error() -> None:
    whole = dicom("1.2.3.4")
    for end in range(len(whole)):
        assert read_series_uid(io.BytesIO(whole[:end])) in {None, "1.2.3.4", ""} | {"1.2.3.4"[:n] for n in range(7)}
    for position in range(128, len(whole)):
        for value in (0, 255):
            altered = bytearray(whole)
            altered[position] = value
            read_series_uid(io.BytesIO(bytes(altered)))
