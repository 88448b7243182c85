"""Why a file cannot be opened as a slide: from what the operating system and the first bytes say."""

import errno
from pathlib import Path, PurePath

from pathoml.errors import (
    DamagedSlideError,
    EmptySlideError,
    MissingFilesError,
    NotAnImageError,
    RenamedImageError,
    SlideError,
    SlideNotFoundError,
    SlidePermissionError,
    TextFileError,
    UnreadableSlideError,
    UnsupportedSlideError,
)
from pathoml.slides.tiff_layout import is_tiff

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Names under which an ordinary picture is taken for one."""

_PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP"}
_OTHER_KINDS = {
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file",
    b"GIF8": "a GIF picture; export it as PNG or TIFF",
    b"RIFF": "a RIFF file (WebP, sound or film)",
}
_HEAD_BYTES = 4096
_DICOM_MAGIC_AT = 128
_MIRAX = ".mrxs"


def check_file(path: Path) -> None:
    """Say so if there is no readable, non-empty file.

    Parameters
    ----------
    path : Path
        Where the slide should be.

    Raises
    ------
    SlideNotFoundError
        If nothing is there.
    SlidePermissionError
        If this user may not read it.
    NotAnImageError
        If it is a folder, a pipe or a device.
    EmptySlideError
        If it has no bytes.
    UnreadableSlideError
        If the system cannot read it: a share that is gone, a disk that fails.
    """
    try:
        if not path.exists():
            raise SlideNotFoundError(f"{path.name}: no such file; correct the path")
        if not path.is_file():
            raise NotAnImageError(
                f"{path.name}: a folder or something else that is no file; name the slide's file itself"
            )
        if path.stat().st_size == 0:
            raise EmptySlideError(f"{path.name}: the file is empty (0 bytes); copy it again from its source")
        _head(path)
    except OSError as error:
        if isinstance(error, SlideError):
            raise
        if error.errno in (errno.EACCES, errno.EPERM):
            raise SlidePermissionError(
                f"{path.name}: this user may not read it; ask for read permission on the file and its folder"
            ) from error
        raise UnreadableSlideError(
            f"{path.name}: cannot be read ({error.strerror or error}); is the share mounted and the disk sound?"
        ) from error


def is_picture(path: Path) -> bool:
    """Return whether a file is a PNG, JPEG or BMP by its first bytes.

    Parameters
    ----------
    path : Path
        A readable file.

    Returns
    -------
    bool
        Whatever its name says.
    """
    return _picture_kind(_head(path)) is not None


def diagnose(path: Path, refusal: str) -> SlideError:
    """Find out why a readable file was refused.

    Parameters
    ----------
    path : Path
        The file.
    refusal : str
        What OpenSlide said.

    Returns
    -------
    SlideError
        The leaf that fits, with a sentence on what to do; to be raised.
    """
    head = _head(path)
    for look in (
        _of_missing_files,
        _of_a_mirax,
        _of_a_picture,
        _of_zeros,
        _of_text,
        _of_another_kind,
        _of_dicom,
        _of_a_tiff,
    ):
        error = look(path, head, refusal)
        if error is not None:
            return error
    return NotAnImageError(
        f"{path.name}: no image of a known kind ({refusal}); is it a whole slide, copied completely?"
    )


def _of_missing_files(path: Path, head: bytes, refusal: str) -> SlideError | None:
    missing = _missing_companions(path)
    return MissingFilesError(f"{path.name}: {missing}") if missing else None


def _of_a_mirax(path: Path, head: bytes, refusal: str) -> SlideError | None:
    """Say so of a slide of several files that has them all; its first file is an ordinary JPEG picture by design."""
    if path.suffix.lower() != _MIRAX or _picture_kind(head) is None:
        return None
    return DamagedSlideError(
        f"{path.name}: all files of its folder are there, but OpenSlide refuses them ({refusal}); copy the folder again, and "
        "if that does not help export the slide from the scanner's own program as a tiled pyramidal TIFF"
    )


def _of_a_picture(path: Path, head: bytes, refusal: str) -> SlideError | None:
    picture = _picture_kind(head)
    if picture is None:
        return None
    return RenamedImageError(
        f"{path.name}: an ordinary {picture} picture under the name of a slide; get the scanner's own file, or name "
        f"it .{picture.lower()} and give its microns per pixel in the manifest's column mpp"
    )


def _of_zeros(path: Path, head: bytes, refusal: str) -> SlideError | None:
    if head.strip(b"\0"):
        return None
    return DamagedSlideError(f"{path.name}: begins with zeros only; the copy is broken, make it again")


def _of_text(path: Path, head: bytes, refusal: str) -> SlideError | None:
    if not _is_text(head):
        return None
    kind = "a web page, perhaps a failed download's error page" if _is_html(head) else "a text file"
    return TextFileError(f"{path.name}: {kind}; get the slide again from its source")


def _of_another_kind(path: Path, head: bytes, refusal: str) -> SlideError | None:
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if head.startswith(magic)), None)
    return None if kind is None else NotAnImageError(f"{path.name}: {kind}; a whole-slide image is needed")


def _of_dicom(path: Path, head: bytes, refusal: str) -> SlideError | None:
    if head[_DICOM_MAGIC_AT : _DICOM_MAGIC_AT + 4] != b"DICM":
        return None
    if "pyramid" in refusal.lower() or "level" in refusal.lower():
        return MissingFilesError(
            f"{path.name}: a DICOM file without the slide's own image ({refusal}); copy all files of its series into one "
            "folder"
        )
    return DamagedSlideError(
        f"{path.name}: a DICOM file that cannot be read ({refusal}); copy it again, with all files of its series"
    )


def _of_a_tiff(path: Path, head: bytes, refusal: str) -> SlideError | None:
    if not is_tiff(path):
        return None
    return UnsupportedSlideError(
        f"{path.name}: a TIFF of a kind that neither OpenSlide ({refusal}) nor the plain reader knows; convert it to a "
        "tiled pyramidal RGB TIFF or OME-TIFF"
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


def _picture_kind(head: bytes) -> str | None:
    return next((kind for magic, kind in _PICTURES.items() if head.startswith(magic)), None)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut in two by the end of what was read
    return True


def _is_html(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<?xml")) or b"<html" in start


def _missing_companions(path: Path) -> str:
    """Return what a slide of several files lacks, or nothing."""
    if path.suffix.lower() != _MIRAX:
        return ""
    folder = path.with_suffix("")
    if not folder.is_dir():
        return f"its folder {folder.name}/ is missing; copy the folder beside the .mrxs file"
    index = folder / "Slidedat.ini"
    if not index.is_file():
        return f"{folder.name}/Slidedat.ini is missing; copy the whole folder again"
    named = [_file_name(line) for line in index.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    data = [name for name in named if name.lower().endswith(".dat")]
    absent = sum(not (folder / name).is_file() for name in data)
    return (
        f"{absent} of its {len(data)} data files are missing in {folder.name}/; copy the folder again" if absent else ""
    )


def _file_name(line: str) -> str:
    """Return the file named in a line ``FILE_3=Data0003.dat``, without any folder; else nothing."""
    key, _, value = line.partition("=")
    return PurePath(value.strip()).name if key.strip().upper().startswith("FILE_") else ""
