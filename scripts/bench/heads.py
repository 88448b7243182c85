"""Memory and time of every head on one large bag, with everything kept and piece by piece.

Each in a process of its own, on one thread, or on a GPU; memory is what is taken above the bag at its height.

Usage: python scripts/bench/heads.py [--device cpu] [--heads abmil,mean]
"""

import argparse
import json
import sys
import time

import torch
from alone import Figures, alone, peak_above
from torch import nn

from pathoml.mil import pieces
from pathoml.mil.aggregators import AGGREGATORS, build_aggregator
from pathoml.mil.packed import Packed
from pathoml.mil.settings import ModelSettings

WANTED = 0.75
"""Of the memory that keeping everything takes."""
TILES = 12_000
"""Of the bag."""


def one_head(kind: str, how: str, device: str) -> tuple[float, float]:
    """Return seconds and memory of forward and backward of a head over one large bag, with everything kept or in pieces."""
    pieces.WHOLE_UP_TO = 0 if how == "pieces" else 10**9
    settings = ModelSettings.model_validate({"aggregator": {"kind": kind}}).aggregator
    torch.manual_seed(0)
    head = build_aggregator(settings, 1024, 1).to(device).train()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.05)
    bag = torch.randn(TILES, 1024, generator=torch.Generator().manual_seed(0)).half().to(device)
    number = torch.arange(TILES)
    places = torch.stack([number * 0, number // 110, number % 110], dim=1).to(device)

    def step(rows: int = TILES) -> None:
        offsets = torch.tensor([0, rows], device=device)
        head(Packed(bag[:rows], offsets, places[:rows])).logits[0, 0].backward()

    step(2 * pieces.PIECE_TILES)
    if device == "cpu":
        started, memory = time.process_time(), peak_above(step)
        return time.process_time() - started, memory
    torch.cuda.reset_peak_memory_stats()
    before, started = torch.cuda.memory_allocated(), time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - started, (torch.cuda.max_memory_allocated() - before) / 2**20


def every_head(figures: Figures, kinds: list[str], device: str) -> None:
    print(f"{device}: one bag of {TILES} x 1,024, forward and backward: MB above the bag and seconds")
    print(f"{'head':<12} {'kept MB':>8} {'s':>6} {'pieces MB':>10} {'s':>6}")
    for kind in kinds:
        (whole_s, whole), (cut_s, cut) = (alone(one_head, kind, how, device) for how in ("whole", "pieces"))
        print(f"{kind:<12} {whole:>8.0f} {whole_s:>6.2f} {cut:>10.0f} {cut_s:>6.2f}", flush=True)
        name = f"{device}: {kind}, {TILES} x 1,024 in pieces: memory over keeping everything"
        figures[name] = {"value": float(f"{cut / whole:.3g}"), "target": WANTED, "ok": cut <= WANTED * whole}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--heads", default=",".join(AGGREGATORS))
    options = parser.parse_args()
    figures: Figures = {}
    if options.device == "cuda" and not torch.cuda.is_available():
        print("GPU: not run, there is none")
        figures["heads on the GPU"] = {"value": None, "target": WANTED, "ok": None, "why": "not run: no GPU"}
    else:
        every_head(figures, options.heads.split(","), options.device)
    print(json.dumps(figures))
    return 1 if any(one["ok"] is False for one in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
