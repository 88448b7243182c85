"""Measure extraction against the encoder alone, against what peers do, and over many slides; bags against the usual HDF5.

Usage: python scripts/bench/extract.py [FOLDER] [--only NAME ...] [--rounds N] [--device cuda:0]

Draws slides of 256 px JPEG tiles (real H&E where the test data are at hand) into FOLDER. Parts: encoder (tiles/s of the whole
engine over those of the same encoder on tiles in memory, on all cores), peer (resnet18 on one core against a DataLoader
that reads tiles one by one through OpenSlide and PIL; and two cores over one), memory (1,000 small slides against 50), bag,
gpu (a ViT-L in bfloat16; --device names another GPU than the first; a few minutes, nothing is asked). Prints a table and, as
the last line, one JSON object; exits 1 if a figure falls short. What was not run is listed as such and is never ok.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import openslide
import timm
import torch
from PIL import Image
from read import stain_tiles, write_mosaic
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from pathoml.bags import Bag, BagHeader, read_bag, write_bag
from pathoml.cohort import SlideEntry
from pathoml.encoders.settings import EncoderSettings, Lite0Settings, LocalSettings
from pathoml.extract import extract_archive
from pathoml.extract.built import built_encoder
from pathoml.extract.precision import PRECISIONS, exact_float32
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.files import file_digest
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

CORES = sorted(os.sched_getaffinity(0))
Figures = dict[str, dict[str, float | bool | str | None]]


def judge(figures: Figures, name: str, value: float, target: float, *, at_most: bool = False) -> None:
    ok = value <= target if at_most else value >= target
    figures[name] = {"value": round(value, 3), "target": target, "ok": bool(ok)}


def not_run(figures: Figures, name: str, target: float, why: str) -> None:
    figures[name] = {"value": None, "target": target, "ok": False, "not run": why}


def entries(folder: Path, count: int, side: int, tiles: list[np.ndarray]) -> list[SlideEntry]:
    """Slides full of tissue, each of (side / 256) squared stored tiles."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.tif" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.is_file():
            write_mosaic(path, tiles, mpp=0.5, side=side, seed=number)
    return [SlideEntry(path.stem, path, "P", None, number) for number, path in enumerate(paths)]


def local(folder: Path, architecture: str, tile_px: int) -> LocalSettings:
    """Random weights of a true architecture: speed does not depend on them."""
    path = folder / f"{architecture}.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        network = timm.create_model(architecture, pretrained=False, num_classes=0)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return LocalSettings(architecture=architecture, weights=path, sha256=file_digest(path), tile_px=tile_px)


def recipe(encoder: EncoderSettings, tile_px: int, **extract: object) -> Recipe:
    settings = ExtractSettings(**extract)
    return Recipe(ClassicalTissueSettings(), TilingSettings(tile_px=tile_px), encoder, settings)


def engine_rate(slides: list[SlideEntry], wanted: Recipe, device: str = "cpu") -> tuple[float, float]:
    """Return tiles/s between the first tile that was encoded and the end, and the share of time the device was busy."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = extract_archive(slides, wanted, Path(folder), device=device)
        status = json.loads((Path(folder) / "metrics.jsonl").read_text().splitlines()[-1])
    tiles = sum(one.tiles for one in outcomes)
    assert {one.status for one in outcomes} == {"done"}, outcomes
    return tiles / status["encoding_s"], status["device_busy_share"]


def alone_rate(wanted: Recipe, batches: int, calls_at_once: int, device: str = "cpu") -> float:
    """Return tiles/s of the encoder on batches in memory, the same calls side by side."""
    settings = wanted.extract
    encoder = built_encoder(wanted.encoder, settings, device)
    torch.set_num_threads(settings.threads_per_worker)
    side = wanted.tiling.tile_px
    batch = torch.randint(0, 255, (settings.batch_tiles, side, side, 3), dtype=torch.uint8)

    def call(_: int) -> None:
        encoder.encode(batch.to(device), precision=PRECISIONS[settings.precision]).cpu()

    with exact_float32(), ThreadPoolExecutor(calls_at_once) as pool:
        list(pool.map(call, range(2 * calls_at_once)))
        started = time.perf_counter()
        list(pool.map(call, range(batches)))
        return batches * settings.batch_tiles / (time.perf_counter() - started)


def engine_over_encoder(figures: Figures, folder: Path, tiles: list[np.ndarray], rounds: int) -> None:
    """All cores: the engine between two turns of its encoder alone, so that a machine that slows down does so for both."""
    slides = entries(folder / "medium", 4, 256 * 18, tiles)[:2]
    cases = {"lite0": (Lite0Settings(), 224), "resnet18": (local(folder, "resnet18", 224), 224)}
    for name, (encoder, tile_px) in cases.items():
        wanted = recipe(encoder, tile_px, precision="bfloat16", batch_tiles=16, workers=1, cpu_encoders=len(CORES))
        ratios, before = [], alone_rate(wanted, 40, len(CORES))
        for _ in range(rounds):
            engine, busy = engine_rate(slides, wanted)
            after = alone_rate(wanted, 40, len(CORES))
            alone, before = (before + after) / 2, after
            ratios.append(engine / alone)
            print(f"{name}: engine {engine:.1f} tiles/s, encoder alone {alone:.1f}, busy {busy:.2f}", flush=True)
        judge(figures, f"{name}: engine over encoder alone", statistics.median(ratios), 0.92)


class TilesByPil(Dataset[torch.Tensor]):
    """What peers do: a region through OpenSlide, a PIL image, ToTensor, Normalize; tile by tile."""

    def __init__(self, path: Path, coords: np.ndarray) -> None:
        self.path, self.coords, self.slide = path, coords, None
        self.mean, self.std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))

    def __len__(self) -> int:
        return len(self.coords)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.slide is None:
            self.slide = openslide.OpenSlide(self.path)
        x, y = self.coords[index].tolist()
        image: Image.Image = self.slide.read_region((x, y), 0, (256, 256)).convert("RGB")
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (tensor - self.mean[:, None, None]) / self.std[:, None, None]


def peer_rate(path: Path, coords: np.ndarray, dtype: torch.dtype, memory_format: torch.memory_format) -> float:
    """Return tiles/s of a DataLoader with one worker feeding resnet18, on the cores this process may use."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    network = network.to(dtype=dtype, memory_format=memory_format)
    loader = DataLoader(TilesByPil(path, coords), batch_size=64, num_workers=1)
    with torch.inference_mode():
        batches = iter(loader)
        network(next(batches).to(dtype=dtype, memory_format=memory_format))
        started, count = time.perf_counter(), 0
        for batch in batches:
            count += len(network(batch.to(dtype=dtype, memory_format=memory_format)))
    return count / (time.perf_counter() - started)


def on_cores(count: int, work: Callable[..., float], *arguments: object) -> float:
    """Run in a process of its own that, with its children, may use that many cores."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_pinned, args=(count, sender, work, arguments))
    process.start()
    value = receiver.recv()
    process.join()
    return float(value)


def _pinned(count: int, sender: object, work: Callable[..., float], arguments: tuple[object, ...]) -> None:
    os.sched_setaffinity(0, CORES[:count])
    sender.send(work(*arguments))  # type: ignore[attr-defined]


def _engine_only(slides: list[SlideEntry], wanted: Recipe) -> float:
    return engine_rate(slides, wanted)[0]


def against_peers(figures: Figures, folder: Path, tiles: list[np.ndarray], rounds: int) -> None:
    slides = entries(folder / "medium", 4, 256 * 18, tiles)
    coords = np.array([(x * 256, y * 256) for y in range(18) for x in range(18)])
    encoder = local(folder, "resnet18", 256)
    rates: dict[str, list[float]] = {}

    def note(name: str, rate: float) -> None:
        rates.setdefault(name, []).append(rate)
        print(f"{name:<36} {rate:>8.1f} tiles/s", flush=True)

    cases = {"bfloat16": (torch.bfloat16, torch.channels_last), "float32": (torch.float32, torch.channels_last)}
    for _ in range(rounds):
        usual = on_cores(1, peer_rate, slides[0].path, coords, torch.float32, torch.contiguous_format)
        note("usual DataLoader, float32", usual)
        for name, (dtype, layout) in cases.items():
            note(f"DataLoader, {name} channels_last", on_cores(1, peer_rate, slides[0].path, coords, dtype, layout))
            wanted = recipe(encoder, 256, precision=name, batch_tiles=16, workers=1, cpu_encoders=1)
            note(f"pathoml, {name}", on_cores(1, _engine_only, slides[:2], wanted))
        two = recipe(encoder, 256, precision="bfloat16", batch_tiles=16, workers=1, cpu_encoders=2)
        note("pathoml, bfloat16, two cores", on_cores(2, _engine_only, slides, two))
    best = {name: max(found) for name, found in rates.items()}
    for name, rate in best.items():
        print(f"fastest: {name:<36} {rate:>8.1f} tiles/s")
    judge(
        figures,
        "resnet18, one core: over the usual DataLoader",
        best["pathoml, bfloat16"] / best["usual DataLoader, float32"],
        2.6,
    )
    for name in cases:
        value = best[f"pathoml, {name}"] / best[f"DataLoader, {name} channels_last"]
        judge(figures, f"resnet18, one core: like for like, {name}", value, 1.0)
    judge(
        figures, "resnet18: two cores over one", best["pathoml, bfloat16, two cores"] / best["pathoml, bfloat16"], 1.7
    )


def resident_mb(process: int) -> float:
    """Return what a process and its children hold, shared pages by their share."""
    total = 0
    for one in [process, *_children(process)]:
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


def _children(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += [int(child), *_children(int(child))]
    return found


def peak_of(slides: list[SlideEntry], wanted: Recipe) -> float:
    """Return the most memory that extracting slides took, sampled twice a second."""
    peak, stop = 0.0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stop.wait(0.5):
            peak = max(peak, resident_mb(os.getpid()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = extract_archive(slides, wanted, Path(folder))
        assert {one.status for one in outcomes} == {"done"}
    stop.set()
    sampler.join()
    return peak


def flat_memory(figures: Figures, folder: Path, tiles: list[np.ndarray]) -> None:
    first = entries(folder / "tiny", 50, 256 * 2, tiles)
    many = []
    for number in range(1000):  # the same fifty files under a thousand names
        source = first[number % 50]
        many.append(SlideEntry(f"{source.slide_id}-{number}", source.path, "P", None, number))
    wanted = recipe(Lite0Settings(), 224, precision="bfloat16", batch_tiles=16, workers=2, cpu_encoders=2)
    few_mb = on_cores(len(CORES), peak_of, first, wanted)
    many_mb = on_cores(len(CORES), peak_of, many, wanted)
    print(f"50 slides {few_mb:.0f} MB, 1,000 slides {many_mb:.0f} MB")
    judge(figures, "memory of 1,000 small slides over 50", many_mb / few_mb, 1.1, at_most=True)


def bag_speed(figures: Figures, folder: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (15_000, 1024)).astype(np.float32)
    coords = rng.integers(0, 90_000, (15_000, 2)).astype(np.int32)
    bag = Bag(
        _header(), features.astype(np.float16), coords, coords, np.ones(15_000, np.float32), np.zeros(15_000, np.uint8)
    )
    ours, usual = folder / "ours.h5", folder / "usual.h5"

    def new(path: Path) -> None:
        path.unlink(missing_ok=True)  # an extraction writes new files; giving back an old one's pages takes 7 ms

    def write_usual() -> None:
        with h5py.File(usual, "w") as file:
            file.create_dataset("features", data=features, chunks=(1, 1024))
            file.create_dataset("coords", data=coords.astype(np.int64), chunks=(1, 2))

    def read_usual() -> None:
        with h5py.File(usual) as file:
            file["features"][()], file["coords"][()]

    def read_by_h5py() -> None:
        with h5py.File(ours) as file:
            file["features"][()]

    work: dict[str, Callable[[], object]] = {
        "usual write": write_usual,
        "usual read": read_usual,
        "write": lambda: write_bag(ours, bag),
        "read": lambda: read_bag(ours, verify=False),
        "read with checksums": lambda: read_bag(ours),
        "mapped": lambda: read_bag(ours, verify=False, mapped=True),
        "by h5py alone": read_by_h5py,
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(25):  # in turns: what else the machine does falls on all of them
        for name, one in work.items():
            if name.endswith("write"):
                new(usual if name == "usual write" else ours)
            started = time.perf_counter()
            one()
            times[name].append(time.perf_counter() - started)
    took = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(f"bag, {name:<20} {took[name] * 1000:8.2f} ms (fastest {min(found) * 1000:.2f})")
    judge(figures, "bag 15,000 x 1,024: read over the usual", took["usual read"] / took["read"], 30)
    judge(figures, "bag 15,000 x 1,024: mapped over the usual", took["usual read"] / took["mapped"], 30)
    usual_s, ours_s = took["usual write"] + took["usual read"], took["write"] + took["read"]
    judge(figures, "bag: write with digests and fsync, and read", usual_s / ours_s, 8)


def _header() -> BagHeader:
    return BagHeader(
        slide_id="s", slide_fingerprint="0" * 64, slide_digest="0" * 64, width_px=90_000, height_px=90_000,
        slide_mpp=(0.5, 0.5), mpp_from="metadata", target_mpp=0.5, mpp_read=(0.5, 0.5), tile_px=224,
        footprint_level0_px=(224.0, 224.0), stride_level0_px=(224.0, 224.0), origin_level0_px=(0.0, 0.0), encoder="toy",
        weights_digest="0" * 64, precision_asked="float32", precision_used="float32", reader="native tiles",
        decode="exact", batch_tiles=8, batch_used=8, settings_digest="0" * 64, lost_tiles=0, rejected={},
        regions_digest="", stain="none", optical_density={}, pathoml_version="0",
    )  # fmt: skip


def on_a_gpu(figures: Figures, folder: Path, tiles: list[np.ndarray], device: str) -> None:
    """Engine and encoder alone, in turns; a first turn of each is left out, in which kernels are chosen."""
    name = "ViT-L in bfloat16 on one GPU: engine over encoder alone"
    busy_name = "ViT-L in bfloat16 on one GPU: device busy share"
    if not torch.cuda.is_available():
        not_run(figures, name, 0.95, "no GPU on this machine")
        not_run(figures, busy_name, 0.0, "no GPU on this machine")
        return
    slides = entries(folder / "huge", 4, 256 * 60, tiles)
    ratio, busy = gpu_turns(slides, local(folder, "vit_large_patch16_224", 224), 256, device)
    judge(figures, name, ratio, 0.95)
    judge(figures, busy_name, busy, 0.0)  # no target: it is to be known


def gpu_turns(slides: list[SlideEntry], encoder: EncoderSettings, batch_tiles: int, device: str) -> tuple[float, float]:
    """Return the median ratio of engine to encoder alone, and of the share in which the device was busy."""
    shown = device if device == "cpu" else torch.cuda.get_device_name(device)
    wanted = recipe(encoder, 224, precision="bfloat16", batch_tiles=batch_tiles, workers=max(2, len(CORES) - 2))
    ratios, shares = [], []
    for turn in range(4):
        alone = alone_rate(wanted, 40, 1, device)
        engine, busy = engine_rate(slides, wanted, device)
        print(f"{shown}: engine {engine:.0f} tiles/s, encoder alone {alone:.0f}, busy {busy:.2f}", flush=True)
        if turn > 0:
            ratios.append(engine / alone)
            shares.append(busy)
    return statistics.median(ratios), statistics.median(shares)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--only", nargs="+", choices=["encoder", "peer", "memory", "bag", "gpu"])
    parser.add_argument("--rounds", type=int, default=3, help="of the parts encoder (median) and peer (fastest)")
    parser.add_argument("--device", default="cuda:0", help="GPU of the part of that name")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="pathoml-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    tiles = stain_tiles(folder)
    figures: Figures = {}
    parts: dict[str, Callable[[], None]] = {
        "bag": lambda: bag_speed(figures, folder),
        "encoder": lambda: engine_over_encoder(figures, folder, tiles, options.rounds),
        "peer": lambda: against_peers(figures, folder, tiles, options.rounds),
        "memory": lambda: flat_memory(figures, folder, tiles),
        "gpu": lambda: on_a_gpu(figures, folder, tiles, options.device),
    }
    for name, part in parts.items():
        if not options.only or name in options.only:
            part()
    if options.folder is None:
        shutil.rmtree(folder)
    for name, figure in figures.items():
        verdict = "ok" if figure["ok"] else f"NOT RUN ({figure['not run']})" if "not run" in figure else "FALLS SHORT"
        print(f"{name:<52} {figure['value']!s:>8} (target {figure['target']}) {verdict}")
    print(json.dumps(figures))
    return 0 if all(figure["ok"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
