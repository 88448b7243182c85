"""Work measured in a process of its own, for the benchmarks beside this file."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Figures = dict[str, dict[str, Any]]


def resident_mb() -> float:
    text = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(text[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_above(work: Callable[[], object]) -> float:
    """Return how much memory work took at its height."""
    before, peak, stop = resident_mb(), 0.0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stop.wait(0.002):
            peak = max(peak, resident_mb())

    sampler = threading.Thread(target=sample)
    sampler.start()
    work()
    stop.set()
    sampler.join()
    return peak - before


def alone(work: Callable[..., Any], *arguments: object) -> Any:
    """Run in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()  # so that the end of the process, whatever it is, ends the waiting
    value = receiver.recv()
    process.join()
    return value


def _send(sender: Any, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    nn.Linear(1024, 512)(torch.randn(64, 1024)).sum().backward()  # what libraries set up once is not the model's
    sender.send(work(*arguments))


def judge(figures: Figures, name: str, value: float, target: float, *, at_least: bool = False) -> None:
    ok = value >= target if at_least else value <= target
    figures[name] = {"value": float(f"{value:.4g}"), "target": target, "ok": ok}
    print(f"{name:<78} {value:>9.3f} (target {target}) {'ok' if ok else 'SHORT'}", flush=True)
