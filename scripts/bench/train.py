"""Memory and time of training: large bags, exact Cox over many bags, an epoch over its bare computation, drawn tiles.

Each figure is measured in a process of its own, on one thread but for the epoch; memory is what the process holds above its
bags. On a machine with a GPU the epoch is also run there, beside the usual loop, with the share of the peak of arithmetic and of
memory bandwidth that it reaches, both measured there. Without one that is recorded as not run.

Usage: python scripts/bench/train.py [--only rows,bag,cox,epoch,gpu]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from alone import Figures, alone, judge, peak_above
from torch import Tensor, nn

from pathoml.cohort import Cohort
from pathoml.covariates import fit_covariates
from pathoml.losses import cox_loss
from pathoml.mil import abmil, pieces
from pathoml.mil.abmil import Abmil
from pathoml.mil.batches import Batch, TrainingPatients, draw_tiles, take_rows_of
from pathoml.mil.gradients import forward, join_outcomes, step_gradient, total_loss
from pathoml.mil.objective import Outcome
from pathoml.mil.objectives import CoxObjective
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.patients import Patients
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import TileProjection
from pathoml.mil.settings import AbmilSettings
from pathoml.train import local_update
from pathoml.train_settings import TrainSettings
from pathoml.train_state import start_state

TURNS = 5
LARGE = AbmilSettings(hidden_dim=512, attention_dim=256, dropout=0.25)


class Textbook(nn.Module):
    """Gated attention as the papers' code has it: float32, everything kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(dim, 512), nn.ReLU(), nn.Dropout(0.25))
        self.tanh = nn.Sequential(nn.Linear(512, 256), nn.Tanh(), nn.Dropout(0.25))
        self.gate = nn.Sequential(nn.Linear(512, 256), nn.Sigmoid(), nn.Dropout(0.25))
        self.score, self.head = nn.Linear(256, 1), nn.Linear(512, 1)

    def forward(self, bag: Tensor) -> Tensor:
        """Return the logit of a bag."""
        hidden = self.embed(bag)
        attention = torch.softmax(self.score(self.tanh(hidden) * self.gate(hidden)), dim=0)
        return self.head(attention.T @ hidden)


def one_bag(kind: str) -> tuple[float, float]:
    """Return CPU seconds and memory of forward, backward and step over 60,000 tiles."""
    generator = torch.Generator().manual_seed(0)
    bag = torch.empty(60_000, 1024, dtype=torch.float16)
    for start in range(0, 60_000, 10_000):
        bag[start : start + 10_000] = torch.randn(10_000, 1024, generator=generator)
    torch.manual_seed(0)
    if kind == "textbook":
        bag = bag.float()
        model: nn.Module = Textbook(1024)
        score = lambda rows: model(bag[:rows])[0, 0]  # noqa: E731
    else:
        if kind == "whole":
            pieces.WHOLE_UP_TO = 10**9
        model = Abmil(LARGE, 1024, 1)
        nn.init.normal_(model.head.weight)
        score = lambda rows: model(Packed(bag[:rows], torch.tensor([0, rows]))).logits[0, 0]  # noqa: E731
    optimizer = torch.optim.AdamW(model.parameters())

    def step(rows: int = 60_000) -> None:
        optimizer.zero_grad()
        score(rows).backward()
        optimizer.step()

    whole_up_to, pieces.WHOLE_UP_TO = pieces.WHOLE_UP_TO, 0 if kind == "pieces" else pieces.WHOLE_UP_TO
    step(2 * pieces.PIECE_TILES)  # what libraries load at their first use is not the bag's
    pieces.WHOLE_UP_TO = whole_up_to
    memory = peak_above(step)
    times = []
    for _ in range(3):
        started = time.process_time()
        step()
        times.append(time.process_time() - started)
    return min(times), memory


@dataclass(frozen=True)
class Measured:
    """One way of computing: CPU seconds of each turn, and the most memory in MB of all turns."""

    seconds: list[float]
    most_mb: float


def in_turn(work: Callable[[str], tuple[float, float]], kinds: tuple[str, ...]) -> dict[str, Measured]:
    """Measure each way in processes of its own, in turns, since a machine is not as fast now as then."""
    turns = [[alone(work, kind) for kind in (kinds if turn % 2 else kinds[::-1])] for turn in range(TURNS)]
    found = {}
    for place, kind in enumerate(kinds):
        own = [one[place if turn % 2 else len(kinds) - 1 - place] for turn, one in enumerate(turns)]
        found[kind] = Measured([seconds for seconds, _ in own], max(memory for _, memory in own))
    return found


def times_as_long(one: Measured, other: Measured) -> float:
    """Return how many times as long one way takes as another: the median of the turns."""
    return statistics.median(own / theirs for own, theirs in zip(one.seconds, other.seconds, strict=True))


def large_bag(figures: Figures) -> None:
    kinds = ("pieces", "whole", "textbook")
    found = in_turn(one_bag, kinds)
    for kind, one in found.items():
        print(f"one bag of 60,000 x 1,024, {kind}: {min(one.seconds):.2f} CPU s, {one.most_mb:.0f} MB above the bag")
    longer = times_as_long(found["pieces"], found["whole"])
    judge(figures, "60,000 x 1,024: MB above the bag", found["pieces"].most_mb, 130)
    judge(figures, "60,000 x 1,024: time over keeping everything", longer, 1.25)
    judge(
        figures, "60,000 x 1,024: memory over the textbook's", found["pieces"].most_mb / found["textbook"].most_mb, 0.25
    )


def cox_parts() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    parts = []
    for number in range(16):
        bag = torch.randn(10_000, 1024, generator=generator).half()
        tiles = Packed(bag, torch.tensor([0, len(bag)]))
        outcome = Outcome(torch.tensor([number % 2 == 0]), torch.tensor([float(1 + number * 7 % 16)]).double())
        parts.append(Batch(tiles, torch.zeros(1, 0), outcome, (str(number),)))
    return parts


def kept_with_dropout_of_pieces(
    function: pieces.TileFunction, values: Tensor, _module: nn.Module, *, embed: nn.Sequential
) -> tuple[Tensor, ...]:
    """Apply a function to a whole bag, with dropout drawn piece by piece as `pathoml.mil.pieces` draws it."""
    linear, relu, dropout = embed
    hidden = relu(linear(values.to(linear.weight.dtype)))
    return function(torch.cat([dropout(piece) for piece in hidden.split(pieces.PIECE_TILES)]))


def cox_work(kind: str, dtype: torch.dtype = torch.float32) -> tuple[PrognosisModel, list[Batch], Callable[[], None]]:
    """Return a model, the parts of a step, and what adds the step's gradient to the model's."""
    parts, settings, objective = cox_parts(), TrainSettings(), CoxObjective()
    torch.manual_seed(0)
    model = PrognosisModel(LARGE, ModelShape(1024, 0, 1)).train()
    nn.init.normal_(model.slides.head.weight)  # type: ignore[union-attr, arg-type]
    model.to(dtype)

    def two_passes() -> None:
        step_gradient(model, parts, objective, settings)

    def all_graphs() -> None:
        outputs = [forward(model, part, settings) for part in parts]
        joined = BagOutput(torch.cat([one.logits for one in outputs]), None, None, {})
        total_loss(joined, join_outcomes([part.outcome for part in parts]), objective).backward()

    return model, parts, two_passes if kind == "two passes" else all_graphs


def exact_cox(kind: str) -> tuple[float, float]:
    model, parts, work = cox_work(kind)
    whole, parts[:] = parts[:], parts[:2]
    work()  # what libraries load at their first use is not the bags'
    model.zero_grad()
    parts[:] = whole
    memory = peak_above(work)
    times = []
    for _ in range(2):
        model.zero_grad()
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times), memory


def cox_gradients(kind: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    model, _, work = cox_work(kind, dtype)
    abmil.in_pieces = pieces.in_pieces if kind == "two passes" else kept_with_dropout_of_pieces  # type: ignore[assignment]
    torch.manual_seed(1)
    work()
    return {name: one.grad.numpy().copy() for name, one in model.named_parameters() if one.grad is not None}


def cox_over_bags(figures: Figures) -> None:
    found = in_turn(exact_cox, ("two passes", "all graphs"))
    for kind, one in found.items():
        seconds = ", ".join(f"{value:.2f}" for value in one.seconds)
        print(f"16 bags of 10,000, {kind}: {seconds} CPU s in turns, {one.most_mb:.0f} MB above the bags")
    longer = times_as_long(found["two passes"], found["all graphs"])
    judge(figures, "Cox over 16 bags of 10,000: MB", found["two passes"].most_mb, 350)
    judge(figures, "Cox over 16 bags of 10,000: time over keeping all graphs", longer, 1.35)
    differences = {}
    for dtype in (torch.float64, torch.float32):
        passed, expected = (alone(cox_gradients, kind, dtype) for kind in ("two passes", "all graphs"))
        scale = max(float(np.abs(value).max()) for value in expected.values() if value.size)
        differences[dtype] = (
            max(float(np.abs(passed[name] - own).max()) for name, own in expected.items() if own.size) / scale
        )
    # In float32 two ways of adding up 160,000 tiles differ, also with every graph kept.
    judge(figures, "Cox over 16 bags of 10,000: the same in float32", differences[torch.float32], 5e-5)
    judge(figures, "Cox over 16 bags of 10,000: largest difference of gradients", differences[torch.float64], 1e-6)


def cohort_of(folder: Path, patients: int, tiles: int, dim: int) -> tuple[Patients, Cohort]:
    """Write float16 bags and, beside them, float32 ones in chunks of a row; return the first, mapped."""
    rng = np.random.default_rng(0)
    mapped = []
    for number in range(patients):
        bag = rng.normal(size=(tiles, dim)).astype(np.float16)
        np.save(folder / f"{number}.npy", bag)
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file.create_dataset("features", data=bag.astype(np.float32), chunks=(1, dim))
        mapped.append(np.load(folder / f"{number}.npy", mmap_mode="r"))
    names = tuple(map(str, range(patients)))
    cohort = Cohort(
        np.array(names), rng.exponential(900, patients), rng.integers(0, 2, patients), np.array(["a"] * patients),
        pd.DataFrame(index=range(patients)), "overall survival",
    )  # fmt: skip
    return Patients(names, tuple(mapped), cohort.covariates), cohort


def usual_epoch(folder: Path, patients: int, device: str) -> float:
    """Take one bag a step from HDF5 in chunks of a row, as is usual; the loss is left to one number a bag."""
    torch.manual_seed(0)
    model = Textbook(512).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    started = time.perf_counter()
    for number in range(patients):
        with h5py.File(folder / f"{number}.h5") as file:
            bag = torch.from_numpy(file["features"][()]).to(device)
        optimizer.zero_grad()
        model(bag).sum().backward()
        optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def epoch(figures: Figures, device: str = "cpu") -> None:
    patients, tiles, dim = 200, 2000, 512
    aggregator = AbmilSettings(hidden_dim=512, attention_dim=256, dropout=0.25)
    settings = TrainSettings(batch_patients=16, tiles_at_once=32_000)
    with tempfile.TemporaryDirectory() as name:
        who, cohort = cohort_of(Path(name), patients, tiles, dim)
        projection = TileProjection(np.zeros(dim), np.ones(dim), None)
        transform = fit_covariates((), who.covariates)
        prepared = TrainingPatients(who, cohort, projection, transform, settings, device)
        on_disk = TrainingPatients(
            who, cohort, projection, transform, settings.model_copy(update={"resident_gb": 0.0}), device
        )
        torch.manual_seed(0)
        state = start_state(PrognosisModel(aggregator, ModelShape(dim, 0, 1)).to(device), settings)
        objective = CoxObjective()
        in_memory = [list(parts) for parts in prepared.steps(torch.Generator().manual_seed(0))]

        def bare() -> None:
            for parts in in_memory:
                state.optimizer.zero_grad()
                logits = torch.cat([state.model(part.tiles, part.covariates).logits for part in parts])
                outcome = join_outcomes([part.outcome for part in parts])
                cox_loss(logits[:, 0], outcome.event, outcome.time_days).backward()
                state.optimizer.step()

        def timed(work: Callable[[], object]) -> float:
            started = time.perf_counter()
            work()
            if device != "cpu":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        trainer, reading, computation = [], [], []
        for _ in range(5):
            computation.append(timed(bare))
            trainer.append(timed(lambda: local_update(state, prepared, objective, settings)))
            reading.append(timed(lambda: local_update(state, on_disk, objective, settings)))
        usual = usual_epoch(Path(name), patients, device)
    ours, read_s, bare_s = (statistics.median(times) for times in (trainer, reading, computation))
    print(
        f"{device}: epoch {ours:.2f} s with kept tiles, {read_s:.2f} s read from float16 bags, bare computation {bare_s:.2f} s, "
        f"usual loop {usual:.2f} s"
    )
    if device == "cpu":
        judge(figures, "epoch of 200 x 2,000 x 512, kept, over its bare computation", ours / bare_s, 1.15)
        judge(figures, "the same, read from float16 bags", read_s / bare_s, 1.15)
        print(f"the usual loop takes {usual / ours:.2f} times as long")
        return
    # Forward, and back to weights; to what went in only where that is no tile.
    products = patients * tiles * (2 * dim * 512 + 3 * 2 * 512 * 256)
    flops, peak_flops = 2 * products / ours, gpu_flops()
    moved, peak_bytes = patients * tiles * 4 * (3 * dim + 10 * 512 + 12 * 256) / ours, gpu_bytes()
    print(
        f"{flops / 1e12:.1f} TFLOP/s, {flops / peak_flops:.0%} of float32 products of 8,192 x 8,192 ({peak_flops / 1e12:.1f})"
    )
    print(f"about {moved / 1e9:.0f} GB/s, {moved / peak_bytes:.0%} of a copy ({peak_bytes / 1e9:.0f})")
    figures["GPU: share of the arithmetic peak"] = {"value": round(flops / peak_flops, 3), "target": None, "ok": None}
    figures["GPU: share of the memory bandwidth"] = {"value": round(moved / peak_bytes, 3), "target": None, "ok": None}
    judge(figures, "GPU: usual loop over an epoch of the resident cohort", usual / ours, 20, at_least=True)


def gpu_seconds(work: Callable[[], object]) -> float:
    """Return the least seconds of five calls, after a first."""
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def gpu_flops() -> float:
    """Return what this GPU does of float32 products, as training asks for them."""
    side = 8192
    left, right = (torch.randn(side, side, device="cuda") for _ in range(2))
    return 2 * side**3 / gpu_seconds(lambda: left @ right)


def gpu_bytes() -> float:
    """Return bytes a second of a copy, read and written."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * 2**28 / gpu_seconds(lambda: target.copy_(source))


def loader(figures: Figures) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "bag.npy"
        np.save(path, np.random.default_rng(0).normal(size=(10_000, 1024)).astype(np.float16))
        bag, dealer = np.load(path, mmap_mode="r"), torch.Generator().manual_seed(0)
        times = []
        for _ in range(41):
            started = time.process_time()
            take_rows_of(bag, draw_tiles(len(bag), 4096, dealer))
            times.append((time.process_time() - started) * 1e3)
    judge(figures, "4,096 drawn rows of 10,000 x 1,024: CPU ms", statistics.median(times), 2.5)


def gpu(figures: Figures) -> None:
    if not torch.cuda.is_available():
        figures["GPU: usual loop over an epoch of the resident cohort"] = {
            "value": None, "target": 20, "ok": None, "why": "not run: no GPU",
        }  # fmt: skip
        print("GPU: not run, there is none")
        return
    epoch(figures, "cuda")


PARTS: dict[str, Callable[[Figures], None]] = {
    "rows": loader, "bag": large_bag, "cox": cox_over_bags, "epoch": epoch, "gpu": gpu,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    figures: Figures = {}
    for name in parser.parse_args().only.split(","):
        PARTS[name](figures)
    print(json.dumps(figures))
    return 1 if any(one["ok"] is False for one in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
