"""Whether a process of this machine is still at work, and how one ends with another."""

import os
import threading
import time
from pathlib import Path

_LOOKS_EVERY_S = 0.5


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
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


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
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace").splitlines()
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

    def watch() -> None:
        while is_running(process):
            time.sleep(_LOOKS_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_zombie(process: int) -> bool:
    """Say whether a process has ended and only waits to be counted; False where that cannot be told."""
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, IndexError):
        return False
