"""Measure what a real network costs a round beside the sites' own computing: coordinator and 3 sites over TLS on this machine.

Usage: python scripts/bench/deployed.py [FOLDER]

The model is a gated-attention network of about 530,000 weights, as large as the one that NVIDIA FLARE and Flower were compared with
(docs/benchmarks.md). Prints a table and, as the last line, one JSON object; exits 1 if the figure falls short.
"""

import json
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pathoml.bags import Bag, BagHeader, write_bag
from pathoml.federated.audit import read_log
from pathoml.federated.flare.operating import submit
from pathoml.federated.plan import Plan
from pathoml.federated.site_settings import read_site
from pathoml.pipeline.federating import approve
from pathoml.testing.loopback import LoopbackNetwork

SITES, PATIENTS, TILES, DIM, ROUNDS = ("north", "south", "west"), 60, 16, 1024, 20
TARGET_S = 3.0
SPEC = {"encoder": "drawn", "weights_digest": "c" * 64, "target_mpp": 0.5, "tile_px": 224, "precision_asked": "float32",
        "settings_digest": "d" * 64}  # fmt: skip


def measure_overhead(folder: Path) -> dict[str, float]:
    """Run the network in a new folder; return seconds a round, the slowest site's own, and the rest of it, as medians."""
    plan = Plan.model_validate({
        "name": "overhead", "sites": list(SITES), "quorum": 3, "endpoint": "overall survival",
        "features": {**SPEC, "dim": DIM},
        "model": {"aggregator": {"kind": "abmil", "hidden_dim": 400, "attention_dim": 152}, "tile_components": None},
        "train": {"loss": {"kind": "discrete"}},
        "method": {"kind": "rounds", "rounds": ROUNDS, "local_epochs": 1, "start": "zero"},
    })  # fmt: skip
    files = {name: write_site(folder / name, name, number, plan) for number, name in enumerate(SITES)}
    with LoopbackNetwork(plan, files, folder / "network") as network:
        network.start()
        submit(network.operator, wait_s=60)
        ended = network.wait_for_end(1800)
    if ended.run != "FINISHED:COMPLETED":
        raise SystemExit(f"the run ended as {ended.run}; see {folder}")
    return split_rounds([read_log(read_site(path).folder / "audit.jsonl") for path in files.values()])


def split_rounds(logs: list[list[dict[str, object]]]) -> dict[str, float]:
    """Part each round, from one request to the next, into the slowest site's own time and the rest."""
    asked, answered = ([times_of(log, direction) for log in logs] for direction in ("in", "out"))
    whole, own = [], []
    for number in range(ROUNDS - 1):
        began, following = (min(one[at] for one in asked) for at in (number, number + 1))
        whole.append(following - began)
        own.append(max(out[number] - into[number] for into, out in zip(asked, answered, strict=True)))
    rest = [round_s - own_s for round_s, own_s in zip(whole, own, strict=True)]
    sent = next(line["bytes"] for line in logs[0] if line["kind"] == "train")
    return {
        "round_s": statistics.median(whole), "site_s": statistics.median(own), "overhead_s": statistics.median(rest),
        "overhead_most_s": max(rest), "message_mb": float(str(sent)) / 1e6,
    }  # fmt: skip


def times_of(log: list[dict[str, object]], direction: str) -> dict[int, float]:
    """Return when each round's request came or its answer left."""
    return {
        int(str(line["round"])): datetime.fromisoformat(str(line["time"])).timestamp()
        for line in log
        if line["direction"] == direction and line["kind"] == "train"
    }


def write_site(home: Path, name: str, seed: int, plan: Plan) -> Path:
    """Write a hospital of drawn patients, one slide each, and approve the plan there."""
    rng = np.random.default_rng(seed)
    (home / "bags").mkdir(parents=True)
    rows, manifest = ["patient_id,days,dead"], ["slide_id,path,patient_id"]
    for number in range(PATIENTS):
        slide = f"{name}{number:03d}"
        rows.append(f"{slide},{rng.integers(30, 3000)},{int(rng.random() < 0.6)}")
        manifest.append(f"{slide},{slide}.svs,{slide}")
        write_bag(home / "bags" / f"{slide}.h5", drawn_bag(slide, rng))
    (home / "cohort.csv").write_text("\n".join(rows) + "\n")
    (home / "slides.csv").write_text("\n".join(manifest) + "\n")
    settings = {
        "name": name, "device": "cpu",
        "cohort": {"table": "cohort.csv", "time": "days", "time_unit": "days", "event": "dead"},
        "slides": {"manifest": "slides.csv", "bags": "bags"},
    }  # fmt: skip
    path = home / "site.yaml"
    with path.open("w") as stream:
        YAML().dump(settings, stream)
    approve(read_site(path), plan, plan.digest)
    return path


def drawn_bag(slide: str, rng: np.random.Generator) -> Bag:
    """Draw a bag of one row of tiles."""
    grid = np.column_stack([np.zeros(TILES), np.arange(TILES)]).astype(np.int32)
    header = BagHeader(
        slide_id=slide, slide_fingerprint="a" * 64, slide_digest="b" * 64, width_px=8000, height_px=448, slide_mpp=(0.25, 0.25),
        mpp_from="metadata", mpp_read=(0.5, 0.5), footprint_level0_px=(448.0, 448.0), stride_level0_px=(448.0, 448.0),
        origin_level0_px=(0.0, 0.0), precision_used="float32", batch_tiles=8, batch_used=8, reader="native tiles",
        decode="exact", lost_tiles=0, rejected={}, regions_digest="", stain="none", optical_density={}, pathoml_version="0.1.0",
        **SPEC,
    )  # fmt: skip
    features = rng.normal(size=(TILES, DIM)).astype(np.float16)
    return Bag(header, features, grid[:, ::-1] * 448, grid, np.ones(TILES, np.float32), np.zeros(TILES, np.uint8))


def main() -> None:
    if len(sys.argv) > 1:
        found = measure_overhead(Path(sys.argv[1]).absolute())
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure_overhead(Path(folder))
    print(f"{'a round':30} {found['round_s']:6.2f} s (median of {ROUNDS - 1})")
    print(f"{'  of it the slowest site':30} {found['site_s']:6.2f} s")
    print(f"{'  of it the network':30} {found['overhead_s']:6.2f} s (at most {found['overhead_most_s']:.2f})")
    print(f"{'a message':30} {found['message_mb']:6.2f} MB")
    met = found["overhead_s"] <= TARGET_S
    print(
        json.dumps({"federation_overhead_s": {"value": round(found["overhead_s"], 3), "target": TARGET_S, "ok": met}})
    )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
