"""Paths that do to the process that opens them what broken slides do: importable, so that worker processes know them."""

import os
import signal
import time
from multiprocessing import parent_process
from pathlib import Path, PosixPath


class Deadly(PosixPath):
    """A codec that crashes."""

    def is_file(self) -> bool:
        if parent_process() is not None:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().is_file()


class DeadlyOnce(PosixPath):
    """One that crashes the first time."""

    def is_file(self) -> bool:
        mark = Path(f"{self}.tried")
        if parent_process() is not None and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().is_file()


class Puzzling(PosixPath):
    """A slide that a library stumbles over in a way that nobody foresaw."""

    def is_file(self) -> bool:
        if parent_process() is not None:
            raise IndexError("list index out of range")
        return super().is_file()


class Hanging(PosixPath):
    """A share that does not answer."""

    def is_file(self) -> bool:
        if parent_process() is not None:
            Path(f"{self}.hangs").touch()
            time.sleep(600)
        return super().is_file()


class Greedy(PosixPath):
    """More memory than there is."""

    def is_file(self) -> bool:
        if parent_process() is not None:
            raise MemoryError
        return super().is_file()


class DeadlyToAll(PosixPath):
    """A driver that takes every process with it that so much as looks at the slide, but the one named beside it."""

    def is_file(self) -> bool:
        if os.getpid() != int(Path(f"{self}.spared").read_text(encoding="ascii")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().is_file()


def _fill_memory() -> None:
    held = []
    for _ in range(100):  # 4 GB, unless somebody ends it
        held.append(b"x" * 40_000_000)
        time.sleep(0.02)


class Hungry(PosixPath):
    """A codec that takes ever more memory."""

    def is_file(self) -> bool:
        if parent_process() is not None:
            _fill_memory()
        return super().is_file()


class HungryOnce(PosixPath):
    """One that does so the first time."""

    def is_file(self) -> bool:
        mark = Path(f"{self}.tried")
        if parent_process() is not None and not mark.exists():
            mark.touch()
            _fill_memory()
        return super().is_file()


class GreedyOnce(PosixPath):
    """More memory than there is, the first time, in whatever process."""

    def is_file(self) -> bool:
        mark = Path(f"{self}.tried")
        if not mark.exists():
            mark.touch()
            raise MemoryError
        return super().is_file()
