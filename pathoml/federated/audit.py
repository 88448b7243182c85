"""A site's audit log: one line for every message in and out, each chained to the one before by its hash."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pathoml.errors import FederationError, OutputError
from pathoml.federated.messages import Message
from pathoml.files import make_folder, write_bytes
from pathoml.provenance import digest_of

_FIRST = "0" * 64


@dataclass(frozen=True)
class Verdict:
    """What the check of a log found.

    Parameters
    ----------
    lines : int
        Lines that are whole and in their place.
    problem : str
        What is wrong with the first that is not; empty if nothing is.
    head : str
        Hash of the last good line. Written down elsewhere, it shows later whether lines were cut off the end.
    """

    lines: int
    problem: str
    head: str


class AuditLog:
    """The log of one site.

    Parameters
    ----------
    path : Path
        JSON lines, only ever appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        self._size, self._number, self._head = 0, 0, _FIRST
        with self._locked() as stream:
            torn = _torn_end(stream)
            self._catch_up(stream)
            if torn:
                aside = path.with_name(f"{path.stem}.torn-{self._number}")
                write_bytes(aside, torn)
                why = {"why": f"the last line was cut off in writing, as by a power cut; it is in {aside.name}"}
                self._write(stream, "torn", Message("log", ""), torn, why)

    def epsilon_of(self, plan: str) -> float:
        """Return the most that the log says a plan has spent of patients' privacy.

        Parameters
        ----------
        plan : str
            Its hash.

        Returns
        -------
        float
            Epsilon; 0 for a plan without.
        """
        lines = [line for line in read_log(self.path) if line["plan"] == plan and line.get("privacy")]
        return max((float(line["privacy"]["epsilon"]) for line in lines), default=0.0)

    def note(self, direction: str, message: Message, content: bytes, further: Mapping[str, Any] | None = None) -> None:
        """Write a line.

        Parameters
        ----------
        direction : str
            ``in`` or ``out``.
        message : Message
            What came or goes.
        content : bytes
            As it came or goes; only its digest and length are kept.
        further : mapping, optional
            What else the site's staff should know, such as why it refused, or the privacy spent.

        Raises
        ------
        OutputError
            If it cannot be written; then nothing is sent either.
        """
        with self._locked() as stream:
            self._catch_up(stream)
            self._write(stream, direction, message, content, further or {})

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Hold the log for this process alone: two that write side by side would break the chain."""
        try:
            with self.path.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield stream
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); nothing leaves without its line"
            ) from error

    def _catch_up(self, stream: BinaryIO) -> None:
        """Take note of what another process has written since."""
        size = os.fstat(stream.fileno()).st_size
        if size == self._size:
            return
        verdict = verify_log(self.path)
        if verdict.problem:
            raise FederationError(
                f"{self.path}: {verdict.problem}; the log was altered. Keep it for whoever looks into this; begin another folder"
            )
        self._size, self._number, self._head = size, verdict.lines, verdict.head

    def _write(
        self, stream: BinaryIO, direction: str, message: Message, content: bytes, further: Mapping[str, Any]
    ) -> None:  # fmt: skip
        line: dict[str, Any] = {
            "number": self._number, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "direction": direction,
            "kind": message.kind, "plan": message.plan, "round": message.round_number, "code": message.code,
            "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in sorted(message.arrays.items())],
            "numbers": dict(message.numbers), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
            **further, "previous": self._head,
        }  # fmt: skip
        line["digest"] = digest_of(line)
        stream.write(f"{json.dumps(line, sort_keys=True)}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
        self._size = os.fstat(stream.fileno()).st_size
        self._number, self._head = self._number + 1, line["digest"]


def _torn_end(stream: BinaryIO) -> bytes:
    """Cut off and return what stands behind the last end of a line: a line that was never whole."""
    stream.seek(0)
    content = stream.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        stream.truncate(whole)
        stream.seek(0, os.SEEK_END)
    return content[whole:]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log's lines.

    Parameters
    ----------
    path : Path
        As `AuditLog` wrote it.

    Returns
    -------
    list of dict
        In order, unchecked.
    """
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append({"digest": "", "unreadable": line[:80]})
    return found


def verify_log(path: Path, known: str = "") -> Verdict:
    """Check that every line of a log is as it was written, and in its place.

    Parameters
    ----------
    path : Path
        The log; one that is not there is whole and empty.
    known : str, optional
        Hash of a line that was written down earlier, at least eight of its first digits: lines cut off the end, and a chain that
        was computed anew, show only by it.

    Returns
    -------
    Verdict
        With the number of the first line that is not.
    """
    previous = _FIRST
    lines = read_log(path)
    for number, line in enumerate(lines):
        stated = line.get("digest")
        content = {name: value for name, value in line.items() if name != "digest"}
        if "unreadable" in line:
            return Verdict(number, f"line {number + 1} cannot be read", previous)
        if digest_of(content) != stated:
            return Verdict(number, f"line {number + 1} was changed", previous)
        if line["previous"] != previous or line["number"] != number:
            return Verdict(number, f"a line before line {number + 1} was changed, moved or taken out", previous)
        previous = str(stated)
    if known and not any(str(line["digest"]).startswith(known) for line in lines):
        problem = (
            f"no line has the hash {known}: lines were cut off the end, or all were written anew; keep the file as it is, and tell "
            "whoever answers for this machine"
        )
        return Verdict(len(lines), problem, previous)
    return Verdict(len(lines), "", previous)
