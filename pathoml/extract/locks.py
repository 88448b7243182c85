"""One owner a slide: several processes and machines can fill the same folder of bags."""

import errno
import json
import logging
import os
import secrets
import threading
from dataclasses import asdict
from pathlib import Path

from pathoml.errors import OutputError
from pathoml.files import make_folder
from pathoml.processes import ProcessIdentity, this_process

logger = logging.getLogger(__name__)

HEARTBEAT_S, STALE_S = 20.0, 180.0
"""An owner touches its locks this often; one that has not done so for the longer time is taken for dead."""
_FOLDER = "locks"
_WITHOUT_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
"""What file systems without hard links answer (FAT, many SMB shares)."""


class Locks:
    """The locks that this process holds on slides of one folder.

    A lock is a file, made only if it is not there, that names its owner and is touched while the owner lives. An owner is a
    process of one start of one machine, and a number drawn for each of these objects: so a later process of the same
    number is not taken for it, and an owner that was held up for so long that another took over neither touches nor
    removes the other's lock. A lock appears with its owner's name in it, by a hard link, so a process killed at any moment
    leaves no lock that nobody owns; on shares without hard links it can. Ages are told by the file server's clock alone.
    A lock whose process this machine knows to have ended is taken over at once, any other that has not been touched for
    three minutes too.

    Parameters
    ----------
    bags : Path
        Folder of the bags.

    Raises
    ------
    OutputError
        If locks cannot be written there.
    """

    def __init__(self, bags: Path) -> None:
        self._folder = bags / _FOLDER
        make_folder(self._folder)
        self._held: set[Path] = set()
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._own = json.dumps({**asdict(this_process()), "token": secrets.token_hex(8)})
        self._beats = threading.Thread(target=self._beat, name="locks", daemon=True)
        self._beats.start()

    def acquire(self, slide_id: str) -> bool:
        """Try to become the owner of a slide.

        Parameters
        ----------
        slide_id : str
            Which.

        Returns
        -------
        bool
            False if another process is at work on it.

        Raises
        ------
        OutputError
            If locks cannot be written.
        """
        path = self._path(slide_id)
        if not self._make(path) and not self._take_over(path, replace=True):
            return False
        with self._guard:
            self._held.add(path)
        return True

    def release(self, slide_id: str) -> None:
        """Give a slide back.

        Parameters
        ----------
        slide_id : str
            Which this process owns.
        """
        self._give_back(self._path(slide_id))

    def owner(self, slide_id: str) -> str:
        """Return who works on a slide.

        Parameters
        ----------
        slide_id : str
            Which.

        Returns
        -------
        str
            Host and process, or ``nobody``.
        """
        return owner_of(self._path(slide_id))

    def close(self) -> None:
        """Give everything back."""
        self._stop.set()
        self._beats.join()
        for path in list(self._held):
            self._give_back(path)
        self._sweep()

    def _give_back(self, path: Path) -> None:
        with self._guard:
            self._held.discard(path)
        if self._is_own(path):
            path.unlink(missing_ok=True)

    def _is_own(self, path: Path) -> bool:
        try:
            return path.read_text(encoding="ascii", errors="replace") == self._own
        except FileNotFoundError:
            return False

    def _sweep(self) -> None:
        """Take away what dead owners left behind, and the folder if nobody is at work."""
        for path in self._folder.glob("*.lock*"):
            self._take_over(path, replace=False)
        if not any(self._folder.glob("*.lock*")):
            for scrap in self._folder.glob(".*"):  # drafts and clocks: who misses one makes it again
                scrap.unlink(missing_ok=True)
        try:
            self._folder.rmdir()
        except OSError:
            logger.debug("%s is not empty: others are at work", self._folder)

    def _path(self, slide_id: str) -> Path:
        return self._folder / f"{slide_id}.lock"

    def _make(self, path: Path) -> bool:
        """Make a lock if it is not there: a file that is written first and named after, by a link that replaces nothing."""
        draft = self._folder / f".draft-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            draft.write_text(self._own, encoding="ascii")
            self._name(draft, path)
        except FileExistsError:
            return _is_named(draft)
        except FileNotFoundError:  # another process took the empty folder, or the draft, away between two steps of ours
            make_folder(self._folder)
            return self._make(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error}); free space, or choose another folder") from error
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _name(self, draft: Path, path: Path) -> None:
        try:
            os.link(draft, path)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            with path.open("x", encoding="ascii") as file:
                file.write(self._own)

    def _is_stale(self, path: Path) -> bool | None:
        """Say whether a lock's owner is dead; None of a lock that is gone, which is anybody's to make and nobody's to remove."""
        try:
            age = self._server_time() - path.stat().st_mtime
            owner = _read_owner(path)
        except FileNotFoundError:
            return None
        return age > STALE_S or (owner is not None and owner.has_ended() is True)

    def _server_time(self) -> float:
        probe = self._folder / f".clock-{os.getpid()}-{secrets.token_hex(4)}"
        for _ in range(3):
            try:
                probe.touch()
                now = probe.stat().st_mtime
            except FileNotFoundError:  # swept up by a process that has just ended
                make_folder(self._folder)
                continue
            probe.unlink(missing_ok=True)
            return now
        raise OutputError(f"{self._folder}: files vanish as soon as they are made; is the share healthy?")

    def _take_over(self, path: Path, *, replace: bool) -> bool:
        """Take a dead owner's lock away, and make it ours if asked to.

        One process at a time may do so, by a lock on the lock, which is taken over in the same way from one that died.
        """
        stale = self._is_stale(path)
        if not stale:
            return stale is None and replace and self._make(path)
        right = path.with_name(f"{path.name}.takeover")
        if not self._make(right) and not self._take_over(right, replace=True):
            return False
        try:
            stale = self._is_stale(path)
            if not stale:  # another was quicker
                return stale is None and replace and self._make(path)
            if replace:
                logger.warning("slide %s: its owner (%s) is gone; going on with it", _slide_of(path), owner_of(path))
            path.unlink(missing_ok=True)
            return replace and self._make(path)
        finally:
            if self._is_own(right):
                right.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with self._guard:
                held = list(self._held)
            for path in held:
                try:
                    self._touch(path)
                except OSError as error:
                    logger.warning("%s: the lock cannot be touched (%s)", path.stem, error)

    def _touch(self, path: Path) -> None:
        if self._is_own(path):
            os.utime(path)
            return
        with self._guard:
            lost = path in self._held  # not given back meanwhile
            self._held.discard(path)
        if lost:
            logger.warning("%s: the lock was taken away; another process may do the same slide", path.stem)


def sweep_locks(bags: Path) -> None:
    """Take away what dead owners left behind.

    Parameters
    ----------
    bags : Path
        Folder of the bags.

    Raises
    ------
    OutputError
        If locks cannot be written there.
    """
    if (bags / _FOLDER).is_dir():
        Locks(bags).close()


def owner_of(path: Path) -> str:
    """Return who holds a lock.

    Parameters
    ----------
    path : Path
        The lock's file.

    Returns
    -------
    str
        Host and process, or ``nobody``.
    """
    try:
        owner = _read_owner(path)
    except FileNotFoundError:
        return "nobody"
    return "an unknown process" if owner is None else f"process {owner.number} on {owner.host}"


def _is_named(draft: Path) -> bool:
    """Say whether a draft has a second name: a network file system may link, lose the answer, and then find the name taken."""
    try:
        return draft.stat().st_nlink > 1
    except FileNotFoundError:
        return False


def _slide_of(path: Path) -> str:
    return path.name.partition(".lock")[0]


def _read_owner(path: Path) -> ProcessIdentity | None:
    """Return what a lock says; None of one that is being written at this moment, or that a failing disk has spoiled."""
    try:
        content = json.loads(path.read_text(encoding="ascii", errors="replace"))
        return ProcessIdentity(
            str(content["host"]), str(content["machine"]), int(content["number"]), int(content["started"])
        )
    except (ValueError, KeyError, TypeError):
        return None
