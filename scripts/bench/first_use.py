"""Measure what a newcomer waits for: help, check of a large table, and the whole demo with its peak memory.

Usage: python scripts/bench/first_use.py [FOLDER]

Prints a table and, as the last line, one JSON object; exits 1 if a figure falls short.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 10_000
REPEATS = 5
TARGETS = {"help_s": 0.5, "check_10000_rows_s": 3.0, "demo_s": 300.0, "demo_peak_gb": 3.0}


def seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def median_seconds(command: list[str], folder: Path) -> float:
    seconds(command, folder)  # fills the disk cache
    return statistics.median(seconds(command, folder) for _ in range(REPEATS))


def write_large_study(folder: Path) -> None:
    """Write a study of 10,000 patients whose slides are empty files: check without --slides looks at names only."""
    slides = folder / "slides"
    slides.mkdir(parents=True)
    rows, manifest = ["patient_id,site,age,time_days,event"], ["slide_id,path,patient_id"]
    for index in range(ROWS):
        rows.append(f"P{index:05d},{index % 20:02d},{40 + index % 50},{100 + index % 3000},{index % 2}")
        manifest.append(f"S{index:05d},slides/S{index:05d}.svs,P{index:05d}")
        (slides / f"S{index:05d}.svs").touch()
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    (folder / "slides.csv").write_text("\n".join(manifest) + "\n")
    (folder / "study.yaml").write_text(
        "name: large\noutput: run\ncohort: {table: cohort.csv, time: time_days, time_unit: days, event: event, site: site,\n"
        "  covariates: [{kind: numeric, column: age}]}\nslides: {manifest: slides.csv}\n"
    )


def run_demo(pathoml: list[str], folder: Path) -> tuple[float, float]:
    """Return seconds and the largest sum of resident memory over the demo's processes, in GB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*pathoml, "demo", "demo"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident_bytes(pid) for pid in family(process.pid)))
        time.sleep(0.2)
    if process.returncode != 0:
        sys.exit(f"the demo failed with exit code {process.returncode}")
    return time.perf_counter() - started, peak / 1e9


def family(root: int) -> list[int]:
    """Return a process and all that descend from it (Linux)."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def resident_bytes(pid: int) -> int:
    """Return the proportional set size: shared pages are counted once over all processes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="pathoml-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    pathoml = [sys.executable, "-m", "pathoml"]
    write_large_study(folder / "large")
    values = {
        "help_s": median_seconds([*pathoml, "--help"], folder),
        "check_10000_rows_s": median_seconds([*pathoml, "check", "study.yaml"], folder / "large"),
    }
    values["demo_s"], values["demo_peak_gb"] = run_demo(pathoml, folder)
    figures = {
        name: {"value": round(value, 3), "target": TARGETS[name], "ok": value <= TARGETS[name]}
        for name, value in values.items()
    }
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for name, figure in figures.items():
        print(f"{name:<20} {figure['value']:>10} target {figure['target']:>8} {'ok' if figure['ok'] else 'TOO MUCH'}")
    print(json.dumps(figures))
    return 0 if all(figure["ok"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
