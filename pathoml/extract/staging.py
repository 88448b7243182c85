"""Slides of slow shares and object stores, copied to a local disk ahead of use."""

import hashlib
import logging
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from pathoml.cohort import SlideEntry
from pathoml.errors import OutputError, PathomlError, SlideNotFoundError, UnreadableSlideError
from pathoml.extract_settings import StagingSettings
from pathoml.files import make_folder
from pathoml.manifest import without_query
from pathoml.processes import ProcessIdentity, this_process
from pathoml.slides.belonging import StoredFile, names_of_slide
from pathoml.slides.identity import sampled_digest, slide_fingerprint

logger = logging.getLogger(__name__)

_GB = 1_000_000_000
_BLOCK_BYTES = 1 << 24


class Source(Protocol):
    """Where slides are read from."""

    @property
    def ahead(self) -> int:
        """How many slides are to be fetched before they can be decoded."""

    def fetch(self, entry: SlideEntry) -> "Future[SlideEntry]":
        """Bring a slide near.

        Parameters
        ----------
        entry : SlideEntry
            The slide.

        Returns
        -------
        Future of SlideEntry
            The same slide with the path from which it is to be read; or the `SlideError` that forbids it.
        """

    def release(self, entry: SlideEntry) -> None:
        """Say that a slide has been read.

        Parameters
        ----------
        entry : SlideEntry
            The slide, as it was fetched.
        """


class InPlace:
    """Slides are read where they lie."""

    ahead = 0

    def fetch(self, entry: SlideEntry) -> "Future[SlideEntry]":
        """Return the slide as it is; see `Source.fetch`.

        Parameters
        ----------
        entry : SlideEntry
            The slide.

        Returns
        -------
        Future of SlideEntry
            Done.
        """
        future: Future[SlideEntry] = Future()
        future.set_result(entry)
        return future

    def release(self, entry: SlideEntry) -> None:
        """Do nothing; see `Source.release`.

        Parameters
        ----------
        entry : SlideEntry
            The slide, as it was fetched.
        """


class Staging:
    """Copies slides to a local folder, a few ahead, within a quota; a copy is deleted once it has been read.

    Copies of a process of this machine that was killed are swept away. A slide larger than the whole quota is read where
    it lies, if that can be done.

    Parameters
    ----------
    settings : StagingSettings
        Folder, quota and copies at once.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """

    def __init__(self, settings: StagingSettings) -> None:
        self._settings, self._quota = settings, int(settings.quota_gb * _GB)
        self.ahead = settings.slides_ahead
        self._folder = settings.folder / _folder_name(this_process())
        make_folder(self._folder)
        self._sweep()
        self._copies = ThreadPoolExecutor(settings.copies_at_once, thread_name_prefix="stage")
        self._room, self._used = threading.Condition(), dict[str, int]()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._copies.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def fetch(self, entry: SlideEntry) -> "Future[SlideEntry]":
        """Have a slide copied; see `Source.fetch`.

        Parameters
        ----------
        entry : SlideEntry
            The slide.

        Returns
        -------
        Future of SlideEntry
            With the path of the copy.
        """
        return self._copies.submit(self._copy, entry)

    def release(self, entry: SlideEntry) -> None:
        """Delete a copy; see `Source.release`.

        Parameters
        ----------
        entry : SlideEntry
            The slide, as it was fetched.
        """
        shutil.rmtree(self._folder / entry.slide_id, ignore_errors=True)
        with self._room:
            self._used.pop(entry.slide_id, None)
            self._room.notify_all()

    def _copy(self, entry: SlideEntry) -> SlideEntry:
        remote = _Remote(entry)
        files = remote.files()
        size = sum(one.size for one in files)
        if size > self._quota:
            return self._too_large(entry, size)
        self._reserve(entry, size)
        try:
            folder = self._folder / entry.slide_id
            for one in files:
                make_folder((folder / one.name).parent)
                self._fill(folder / one.name, remote, one)
            near = replace(entry, path=folder / files[0].name, url=None)
            if slide_fingerprint(near.path) != remote.fingerprint(files):
                raise UnreadableSlideError(
                    f"{entry.path.name}: its copy differs from {remote.shown}; is it being written, or the share failing?"
                )
        except PathomlError:
            self.release(entry)
            raise
        return near

    def _fill(self, target: Path, remote: "_Remote", one: "_RemoteFile") -> None:
        """Copy a file block by block, until the end or until everything is given up."""
        try:
            with target.open("wb") as file:
                for block in remote.blocks(one):
                    if self._closed:
                        raise UnreadableSlideError(f"{remote.name}: copying was given up")
                    file.write(block)
        except OSError as error:
            if isinstance(error, PathomlError):
                raise
            raise OutputError(
                f"{target.parent}: a slide of {one.size / _GB:.2f} GB cannot be copied there ({error}); free space, or set "
                "extract.staging.quota_gb lower"
            ) from error

    def _too_large(self, entry: SlideEntry, size: int) -> SlideEntry:
        said = f"{size / _GB:.1f} GB are more than extract.staging.quota_gb: {self._settings.quota_gb:g}"
        if entry.url is not None:
            raise UnreadableSlideError(f"{entry.path.name}: cannot be staged ({said}); raise the quota")
        logger.warning("%s: read where it lies, since %s", entry.path.name, said)
        return entry

    def _reserve(self, entry: SlideEntry, size: int) -> None:
        """Wait until a slide fits into the quota beside those that are there."""
        with self._room:
            self._room.wait_for(lambda: self._closed or sum(self._used.values()) + size <= self._quota)
            if self._closed:
                raise UnreadableSlideError(f"{entry.path.name}: copying was given up")
            self._used[entry.slide_id] = size

    def _sweep(self) -> None:
        """Delete what processes of this machine left that have ended."""
        for folder in self._settings.folder.iterdir():
            owner = _owner_of(folder.name)
            if owner is not None and owner.has_ended():
                shutil.rmtree(folder, ignore_errors=True)


def _folder_name(owner: ProcessIdentity) -> str:
    return f"{owner.host}-{owner.machine or 'unknown'}-{owner.number}-{owner.started}-{secrets.token_hex(4)}"


def _owner_of(name: str) -> ProcessIdentity | None:
    """Return whose a folder of copies is; None of any other folder."""
    found = re.fullmatch(r"(.+)-([0-9a-f]{16}|unknown)-(\d{1,9})-(\d{1,20})-[0-9a-f]{8}", name)
    return found and ProcessIdentity(found[1], found[2], int(found[3]), int(found[4]))


@dataclass(frozen=True)
class _RemoteFile:
    path: str  # as its file system spells it
    name: str  # relative to the slide's folder
    size: int


@dataclass(frozen=True)
class _RemoteSurroundings:
    """A folder as its store's package knows it: a `Surroundings`."""

    system: Any
    folder: str

    def files(self, folder: str = "") -> list[StoredFile]:
        place = f"{self.folder}/{folder}" if folder else self.folder
        if not self.system.isdir(place):
            return []
        found: dict[str, Any] = self.system.find(place, maxdepth=1, detail=True)
        prefix = f"{folder}/" if folder else ""
        return [
            StoredFile(f"{prefix}{PurePosixPath(path).name}", str(about.get("size")) + _changed(about))
            for path, about in sorted(found.items())
        ]

    def open(self, name: str) -> BinaryIO:
        stream: BinaryIO = self.system.open(f"{self.folder}/{name}", "rb")
        return stream


def _changed(about: Mapping[str, Any]) -> str:
    """Return when a file was changed, in whatever way its store says it."""
    return "-".join(str(about[key]) for key in ("mtime", "LastModified", "updated", "ETag", "etag") if key in about)


class _Remote:
    """The files of a slide, wherever they lie; whatever a store's package raises becomes an error of the slide."""

    def __init__(self, entry: SlideEntry) -> None:
        import fsspec  # loads its file systems only when one is asked for

        self.name = entry.path.name
        self.shown = str(entry.path) if entry.url is None else without_query(entry.url)
        with self._border():
            self._system: Any
            self._system, self._path = fsspec.core.url_to_fs(entry.url or str(entry.path))

    def files(self) -> Sequence[_RemoteFile]:
        """Return the slide's own file, then what belongs to it."""
        folder, _, own = without_query(self._path).rpartition("/")
        with self._border():
            # A signed URL is good for one file only, and its folder cannot be listed.
            signed = self._path != f"{folder}/{own}"
            names = [own] if signed else names_of_slide(own, _RemoteSurroundings(self._system, folder))
            paths = [self._path, *(f"{folder}/{name}" for name in names[1:])]
            sizes = [int(self._system.size(path)) for path in paths]
        return [_RemoteFile(*one) for one in zip(paths, names, sizes, strict=True)]

    def blocks(self, one: _RemoteFile) -> Iterator[bytes]:
        """Read one file, block by block."""
        with self._border():
            stream = self._system.open(one.path, "rb")
        with stream:
            while True:
                with self._border():
                    block: bytes = stream.read(_BLOCK_BYTES)
                if not block:
                    return
                yield block

    def fingerprint(self, files: Sequence[_RemoteFile]) -> str:
        """Return what `slide_fingerprint` says of the slide, without copying it."""
        digest = hashlib.sha256()
        with self._border():
            for one in files:
                with self._system.open(one.path, "rb") as stream:
                    digest.update(sampled_digest(stream, one.size))
        return digest.hexdigest()

    @contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SlideNotFoundError(f"{self.name}: no such file: {self.shown}") from error
        except (ImportError, ValueError) as error:
            raise UnreadableSlideError(
                f"{self.name}: {self.shown} cannot be reached ({error}); install what it asks for with pip"
            ) from error
        except Exception as error:  # each kind of store raises errors of its own making; one costs its slide
            said = without_query(str(error)) or type(error).__name__
            raise UnreadableSlideError(
                f"{self.name}: {self.shown} cannot be read ({said}); is the store there, are you allowed to?"
            ) from error


def source_fingerprint(entry: SlideEntry) -> str:
    """Return the fingerprint of a slide where it lies.

    Parameters
    ----------
    entry : SlideEntry
        With a path or a URL.

    Returns
    -------
    str
        As `pathoml.slides.slide_fingerprint` gives it.

    Raises
    ------
    OSError, SlideError
        If it cannot be read.
    """
    if entry.url is None:
        return slide_fingerprint(entry.path)
    remote = _Remote(entry)
    return remote.fingerprint(remote.files())
