"""Which files a slide consists of, wherever they lie: a scanner may spread one over a folder or a series of files."""

from collections.abc import Callable
from configparser import ConfigParser
from configparser import Error as ParseError
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Protocol

from pathoml.slides.dicom_series import is_dicom_name, read_series_uid

_MAX_INDEX_BYTES = 1 << 20
_INDEX_SUFFIXES = (".vms", ".vmu")
_INDEX_SECTIONS = ("Virtual Microscope Specimen", "Uncompressed Virtual Microscope Specimen")
_INDEX_KEYS = ("imagefile", "mapfile", "optimisationfile", "macroimage")


@dataclass(frozen=True)
class StoredFile:
    """A file of a folder.

    Parameters
    ----------
    name : str
        Relative to that folder, with ``/``.
    version : str
        Changes when the file does: its size and time of change, as far as the place knows them.
    """

    name: str
    version: str = ""


class Surroundings(Protocol):
    """The folder in which a slide's own file lies: on a disk, a share, or in an object store. Equal for equal folders."""

    def __hash__(self) -> int:
        """Of the folder."""

    def files(self, folder: str = "") -> list[StoredFile]:
        """Return the files of a folder below, not those of folders in it.

        Parameters
        ----------
        folder : str, optional
            Relative to this one; by default this one.

        Returns
        -------
        list of StoredFile
            By name; none where there is no such folder.
        """

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Parameters
        ----------
        name : str
            Relative to this folder.

        Returns
        -------
        file
            Seekable.
        """


@dataclass(frozen=True)
class LocalSurroundings:
    """A folder that the operating system knows.

    Parameters
    ----------
    folder : Path
        Which.
    """

    folder: Path

    def files(self, folder: str = "") -> list[StoredFile]:
        """Return its files; see `Surroundings.files`.

        Parameters
        ----------
        folder : str, optional
            Relative to this one.

        Returns
        -------
        list of StoredFile
            By name.
        """
        place = self.folder / folder
        if not place.is_dir():
            return []
        prefix = f"{folder}/" if folder else ""
        found = []
        for path in sorted(place.iterdir()):
            if path.is_file():
                about = path.stat()
                found.append(StoredFile(f"{prefix}{path.name}", f"{about.st_size}-{about.st_mtime_ns}"))
        return found

    def open(self, name: str) -> BinaryIO:
        """Open one; see `Surroundings.open`.

        Parameters
        ----------
        name : str
            Relative to this folder.

        Returns
        -------
        file
            Seekable.
        """
        return (self.folder / name).open("rb")


def names_of_slide(own: str, around: Surroundings) -> list[str]:
    """Return the names of the files that a slide consists of.

    An MRXS slide has a folder of its own name; a Hamamatsu VMS or VMU slide the pictures that its index names; a DICOM slide
    every file beside it of the same series. All others are one file.

    Parameters
    ----------
    own : str
        Name of the file that the slide is opened by.
    around : Surroundings
        Its folder.

    Returns
    -------
    list of str
        Relative to that folder: its own file first, then the others by name; only such as are there.
    """
    suffix = PurePosixPath(own).suffix.lower()
    others: Callable[[str, Surroundings], list[str]] | None = None
    if suffix == ".mrxs":
        others = _of_mrxs
    elif suffix in _INDEX_SUFFIXES:
        others = _of_index
    elif is_dicom_name(own):
        others = _of_series
    found = [] if others is None else others(own, around)
    return [own, *sorted(name for name in set(found) if name != own)]


def slide_files(path: Path) -> list[Path]:
    """Return the files that a slide of this machine consists of; see `names_of_slide`.

    Parameters
    ----------
    path : Path
        The slide.

    Returns
    -------
    list of Path
        Its own file first, then the others by name.
    """
    return [path.parent / name for name in names_of_slide(path.name, LocalSurroundings(path.parent))]


def _of_mrxs(own: str, around: Surroundings) -> list[str]:
    return [one.name for one in around.files(PurePosixPath(own).stem)]


def _of_index(own: str, around: Surroundings) -> list[str]:
    """Read which pictures a Hamamatsu index names; whatever it says of folders, they lie beside it or do not count."""
    with around.open(own) as stream:
        text = stream.read(_MAX_INDEX_BYTES).decode("utf-8", errors="replace")
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except ParseError:
        return []  # no index; opening it says what it is
    named = {
        PureWindowsPath(value.strip()).name.lower()
        for section in _INDEX_SECTIONS
        if parser.has_section(section)
        for key, value in parser.items(section)
        if key.startswith(_INDEX_KEYS)
    }
    return [one.name for one in around.files() if one.name.lower() in named]


def _of_series(own: str, around: Surroundings) -> list[str]:
    files = {one.name: one.version for one in around.files() if is_dicom_name(one.name)}
    mine = _series_of(around, own, files[own]) if own in files else None
    if mine is None:
        return []
    return [name for name, version in files.items() if _series_of(around, name, version) == mine]


@lru_cache(maxsize=1 << 16)
def _series_of(around: Surroundings, name: str, version: str) -> str | None:
    """Return the series of a file, remembered as long as the file stays the same: a folder may hold thousands of slides."""
    with around.open(name) as stream:
        return read_series_uid(stream)
