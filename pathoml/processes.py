"""Processes: which one this is, whether another is still at work, what it holds, and how one ends with another."""

import hashlib
import multiprocessing
import os
import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pathoml.errors import InputError

_LOOKS_EVERY_S = 0.5
_PROC = Path("/proc")
NEEDS_MAIN_GUARD = (
    "a script that lets worker processes begin is imported by each of them: put its calls of pathoml under"
    ' `if __name__ == "__main__":`'
)
"""What to do where processes begin and end at once."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one start of one machine: no later one is taken for it, though it may get the same number.

    Parameters
    ----------
    host : str
        Name of its machine, for people.
    machine : str
        Digest of what changes with every start of the machine and differs between containers; empty where that cannot be told.
    number : int
        Its number there.
    started : int
        When it began, in ticks of the machine's clock; 0 where that cannot be told.
    """

    host: str
    machine: str
    number: int
    started: int

    def has_ended(self) -> bool | None:
        """Say whether the process is gone.

        Returns
        -------
        bool or None
            None where this machine, as it was started, cannot tell: of processes of others, and of those before a restart,
            which may as well be another machine's of the same name.
        """
        if not self.machine or self.machine != _this_machine():
            return None
        return not is_running(self.number) or start_of(self.number) != self.started


def require_main_guard() -> None:
    """Refuse to let processes begin while this one, begun by another, still imports that one's script.

    Raises
    ------
    InputError
        If the script has no `__main__` guard: its processes would have to begin without end.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(NEEDS_MAIN_GUARD)


def this_process() -> ProcessIdentity:
    """Return which process this is.

    Returns
    -------
    ProcessIdentity
        Of the calling process.
    """
    return ProcessIdentity(socket.gethostname(), _this_machine(), os.getpid(), start_of(os.getpid()))


@lru_cache(maxsize=1)
def _this_machine() -> str:
    """Return a digest of the machine's start and of the space in which its processes are numbered."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        numbered_in = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {numbered_in}".encode()).hexdigest()[:16]


def is_running(process: int) -> bool:
    """Say whether a process lives; one that has ended and waits to be counted does not.

    Parameters
    ----------
    process : int
        Its number.

    Returns
    -------
    bool
        False for numbers that name no process.
    """
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    fields = _state_fields(process)
    return not fields or fields[0] != "Z"


def start_of(process: int) -> int:
    """Return when a process began.

    Parameters
    ----------
    process : int
        Its number.

    Returns
    -------
    int
        Ticks since the machine's start; 0 if there is no such process, or where that cannot be told.
    """
    fields = _state_fields(process)
    return int(fields[19]) if len(fields) > 19 else 0


def private_bytes(process: int) -> int | None:
    """Return the memory that a process holds for itself: neither files nor what it shares with others.

    Parameters
    ----------
    process : int
        Its number.

    Returns
    -------
    int or None
        None if it has ended, or where that cannot be told.
    """
    try:
        lines = (_PROC / f"{process}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    held = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))]
    return 1024 * sum(held) if held else None


def end_with(process: int) -> None:
    """Let this process end as soon as another has: what a killed one has begun, nobody waits for.

    Parameters
    ----------
    process : int
        Its number.
    """
    started = start_of(process)

    def watch() -> None:
        while is_running(process) and start_of(process) == started:
            time.sleep(_LOOKS_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _state_fields(process: int) -> list[str]:
    """Return what the system says of a process behind its name, which may hold anything; nothing where it says nothing."""
    try:
        text = (_PROC / f"{process}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return text.rpartition(")")[2].split()
