"""Slides of several files, as small as can be, and DICOM headers of every kind."""

import struct
from collections.abc import Sequence
from pathlib import Path

PRIVATE = b"DOE^JANE^PRIVATE"
EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_UNDEFINED = 0xFFFFFFFF


def element(tag: tuple[int, int], kind: bytes, value: bytes, syntax: str = EXPLICIT) -> bytes:
    """One element of a DICOM file."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    value += b"\0" * (len(value) % 2)
    head = struct.pack(f"{order}HH", *tag)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", len(value)) + value
    if kind in {b"OB", b"UN", b"SQ", b"UT"}:
        return head + kind + b"\0\0" + struct.pack(f"{order}I", len(value)) + value
    return head + kind + struct.pack(f"{order}H", len(value)) + value


def open_sequence(tag: tuple[int, int], content: bytes, syntax: str = EXPLICIT) -> bytes:
    """A sequence with one item, whose ends are marked and not counted."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    head = struct.pack(f"{order}HH", *tag) + (b"" if syntax == IMPLICIT else b"SQ\0\0")
    item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, _UNDEFINED)
    ends = struct.pack(f"{order}HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return head + struct.pack(f"{order}I", _UNDEFINED) + item + content + ends


def dicom(series: str, *, syntax: str = EXPLICIT, pixels: bytes = b"pixels") -> bytes:
    """A DICOM file with a patient, nested sequences and a private element before its series."""
    inner = open_sequence((0x0008, 0x1150), element((0x0008, 0x1155), b"UI", b"9.9", syntax), syntax)
    parts: Sequence[bytes] = [
        element((0x0008, 0x0005), b"CS", b"ISO_IR 100", syntax),
        open_sequence((0x0008, 0x1140), inner + element((0x0020, 0x000E), b"UI", b"6.6.6", syntax), syntax),
        element((0x0009, 0x1001), b"UN", PRIVATE * 9, syntax),
        element((0x0010, 0x0010), b"PN", PRIVATE, syntax),
        element((0x0020, 0x000D), b"UI", b"1.2.3", syntax),
        element((0x0020, 0x000E), b"UI", series.encode("ascii"), syntax),
        element((0x7FE0, 0x0010), b"OB", pixels, syntax),
    ]
    meta = element((0x0002, 0x0010), b"UI", syntax.encode("ascii"))
    return bytes(128) + b"DICM" + meta + b"".join(parts)


def slide_of_several_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a slide of two files, by the ending of its name; return its own and the other."""
    path = folder / name
    if path.suffix == ".mrxs":
        beside = folder / path.stem / "Data0001.dat"
        path.write_bytes(b"index")
        content = b"belongs to it"
    elif path.suffix == ".vms":
        beside = folder / "picture.jpg"
        lines = ["[Virtual Microscope Specimen]", "ImageFile=picture.jpg", "ImageFile(1,0)=absent.jpg"]
        path.write_text("\n".join(lines), encoding="ascii")
        content = b"belongs to it"
    else:
        beside = folder / "level1.dcm"
        path.write_bytes(dicom("1.2.3.4"))
        content = dicom("1.2.3.4", pixels=b"belongs to it")
        (folder / "other.dcm").write_bytes(dicom("1.2.3.5"))
        (folder / "notes.dcm").write_bytes(b"no dicom at all")
    beside.parent.mkdir(exist_ok=True)
    beside.write_bytes(content)
    return path, beside
