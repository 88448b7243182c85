"""What is read of a DICOM header: its series, and how it is coded; all other values are stepped over unread."""

import struct
from pathlib import PurePosixPath
from typing import BinaryIO

_MAGIC_AT, _MAGIC = 128, b"DICM"
_TRANSFER_SYNTAX, _SERIES_UID, _PIXELS = (0x0002, 0x0010), (0x0020, 0x000E), (0x7FE0, 0x0000)
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_UNDEFINED = 0xFFFFFFFF
_LONG_FORMS = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])
_MOST_ELEMENTS, _MOST_NESTED, _MAX_UID_BYTES = 5000, 16, 64


class _NotDicomError(Exception):
    """The bytes are no DICOM header that can be followed."""


def is_dicom_name(name: str) -> bool:
    """Say whether a file may be a DICOM file by its name: exports often leave the ending away.

    Parameters
    ----------
    name : str
        Of the file.

    Returns
    -------
    bool
        True for ``.dcm``, ``.dicom``, no ending, and a number as in ``1.2.840.113619``.
    """
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in {".dcm", ".dicom", ""} or suffix[1:].isdecimal()


def read_series_uid(stream: BinaryIO) -> str | None:
    """Read the Series Instance UID out of a DICOM file.

    Parameters
    ----------
    stream : file
        Open for reading, seekable.

    Returns
    -------
    str or None
        None if it is no DICOM file, a deflated one, or names no series.
    """
    syntax = read_transfer_syntax(stream)
    if syntax is None or syntax == _DEFLATED:
        return None
    try:
        stream.seek(_MAGIC_AT + len(_MAGIC))
        _Header(stream, "<", explicit=True).skip_group(0x0002)
        order = ">" if syntax == _BIG_ENDIAN else "<"
        return _Header(stream, order, explicit=syntax != _IMPLICIT).find(_SERIES_UID, last_group=0x0020)
    except _NotDicomError:
        return None


def read_transfer_syntax(stream: BinaryIO) -> str | None:
    """Read how the pixels of a DICOM file, and its header, are coded.

    Parameters
    ----------
    stream : file
        Open for reading at its start, seekable.

    Returns
    -------
    str or None
        The Transfer Syntax UID; None if it is no DICOM file, or does not say it.
    """
    if stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] != _MAGIC:
        return None
    try:
        return _Header(stream, "<", explicit=True).find(_TRANSFER_SYNTAX, last_group=0x0002)
    except _NotDicomError:
        return None


class _Header:
    """Steps through the elements of a header."""

    def __init__(self, stream: BinaryIO, order: str, *, explicit: bool) -> None:
        self._stream, self._order, self._explicit = stream, order, explicit
        self._steps = 0

    def find(self, wanted: tuple[int, int], *, last_group: int) -> str | None:
        """Return the text of an element; elements ascend, so that the search ends behind its group."""
        while True:
            tag, length = self._element()
            if tag == wanted:
                if length > _MAX_UID_BYTES:
                    raise _NotDicomError
                return self._bytes(length).decode("ascii", errors="replace").strip("\0 ")
            if tag[0] > last_group or tag >= _PIXELS:
                return None
            self._skip(length, 0)

    def skip_group(self, group: int) -> None:
        """Step over all elements of a group."""
        while True:
            at = self._stream.tell()
            tag, length = self._element()
            if tag[0] != group:
                self._stream.seek(at)
                return
            self._skip(length, 0)

    def _element(self) -> tuple[tuple[int, int], int]:
        """Return tag and length of the next element, whose value comes next."""
        self._steps += 1
        if self._steps > _MOST_ELEMENTS:
            raise _NotDicomError
        group, element = struct.unpack(f"{self._order}HH", self._bytes(4))
        tag = (group, element)
        if not self._explicit or tag in {_ITEM, _ITEM_END, _SEQUENCE_END}:
            return tag, self._number(4)
        kind = self._bytes(2)
        if kind in _LONG_FORMS:
            self._bytes(2)
            return tag, self._number(4)
        return tag, self._number(2)

    def _skip(self, length: int, depth: int) -> None:
        """Step over a value, which may be a sequence whose end is only marked."""
        if length != _UNDEFINED:
            self._stream.seek(length, 1)
            return
        if depth > _MOST_NESTED:
            raise _NotDicomError
        while True:
            tag, inner = self._element()
            if tag in {_SEQUENCE_END, _ITEM_END}:
                return
            self._skip(inner, depth + 1)

    def _number(self, size: int) -> int:
        value: int = struct.unpack(f"{self._order}{'H' if size == 2 else 'I'}", self._bytes(size))[0]
        return value

    def _bytes(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise _NotDicomError
        return data
