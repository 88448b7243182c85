"""How long the losses and the bootstrap take: CPU time of one thread, medians.

Usage: python scripts/bench/losses.py
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from pathoml.losses import cox_loss
from pathoml.survival import harrell_metric

PATIENTS, REPEATS = 100_000, 21
COHORT, SAMPLES = 1000, 1000


def median_cpu_ms(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1e3)
    return statistics.median(times)


def cox_ms(ties: str) -> float:
    rng = np.random.default_rng(0)
    log_hazard = torch.from_numpy(rng.normal(size=PATIENTS).astype(np.float32)).requires_grad_()
    event, time_days = (
        torch.from_numpy(rng.random(PATIENTS) < 0.3),
        torch.from_numpy(rng.exponential(900, PATIENTS).round()),
    )

    def work() -> None:
        cox_loss(log_hazard, event, time_days, ties=ties).backward()  # type: ignore[arg-type]

    return median_cpu_ms(work)


def bootstrap_s() -> float:
    rng = np.random.default_rng(0)
    time_days, event, risk = rng.exponential(900, COHORT), rng.integers(0, 2, COHORT), rng.normal(size=COHORT)
    counts = rng.multinomial(COHORT, np.full(COHORT, 1 / COHORT), size=SAMPLES).astype(np.float64)
    times = []
    for _ in range(3):
        started = time.process_time()
        harrell_metric(time_days, event, risk)(counts)
        times.append(time.process_time() - started)
    return statistics.median(times)


def main() -> int:
    torch.set_num_threads(1)
    figures = {
        f"Cox, Breslow, n = {PATIENTS}: forward and backward, CPU ms": (cox_ms("breslow"), 30.0),
        f"Cox, Efron, n = {PATIENTS}: forward and backward, CPU ms": (cox_ms("efron"), 30.0),
        f"{SAMPLES} bootstrapped concordances, n = {COHORT}, CPU s": (bootstrap_s(), 2.0),
    }
    found = {
        name: {"value": round(value, 3), "target": target, "ok": value <= target}
        for name, (value, target) in figures.items()
    }
    for name, one in found.items():
        print(f"{name:<72} {one['value']:>10} (target {one['target']}) {'ok' if one['ok'] else 'SHORT'}")
    print(json.dumps(found))
    return 0 if all(one["ok"] for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
