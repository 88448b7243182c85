"""Which batch and precision suit an encoder on this machine: timed, not guessed."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from pathoml.config import Config
from pathoml.extract.built import built_encoder, release_encoders
from pathoml.extract.precision import PRECISIONS, exact_float32

BATCHES = {"cpu": (4, 8, 16, 32), "cuda": (32, 64, 128, 256, 512)}
FORMATS = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "bfloat16", "float16")}
"""Number formats that are worth timing; few CPUs compute in float16."""
_LEAST_S, _LEAST_CALLS = 1.0, 2
_GOOD_ENOUGH = 0.97
"""Of shapes that are nearly as fast as the fastest the smallest is proposed: it needs less memory."""


@dataclass(frozen=True)
class Timing:
    """How fast one batch shape is.

    Parameters
    ----------
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.
    batch_tiles : int
        Tiles of a call.
    tiles_per_s : float
        Of all calls that run side by side; 0 where memory is too small.
    """

    precision: str
    batch_tiles: int
    tiles_per_s: float


def measure_batches(config: Config, device: str) -> Iterator[Timing]:
    """Time the configuration's encoder with every batch shape and precision, on random tiles.

    Parameters
    ----------
    config : Config
        Names encoder and tile size.
    device : str
        ``cpu`` or ``cuda``.

    Yields
    ------
    Timing
        One for each shape and precision.

    Raises
    ------
    EncoderError
        If the encoder cannot be had.
    """
    calls = 1 if device.startswith("cuda") else config.extract.cpu_encoders
    threads = torch.get_num_threads()
    torch.set_num_threads(config.extract.threads_per_worker)
    try:
        kind = "cuda" if device.startswith("cuda") else "cpu"
        for precision in FORMATS[kind]:
            for batch_tiles in BATCHES[kind]:
                yield Timing(precision, batch_tiles, _rate(config, precision, batch_tiles, device, calls))
    finally:
        torch.set_num_threads(threads)
        release_encoders()


def proposal(timings: list[Timing]) -> str:
    """Return a fragment of configuration with the smallest of the fastest batches, for each precision.

    Parameters
    ----------
    timings : list of Timing
        From `measure_batches`.

    Returns
    -------
    str
        YAML lines, to be pasted.
    """
    lines = []
    for precision in PRECISIONS:
        own = [one for one in timings if one.precision == precision and one.tiles_per_s > 0]
        if own:
            best = max(one.tiles_per_s for one in own)
            chosen = min(
                (one for one in own if one.tiles_per_s >= _GOOD_ENOUGH * best), key=lambda one: one.batch_tiles
            )
            fragment = f"extract: {{precision: {precision}, batch_tiles: {chosen.batch_tiles}}}"
            lines.append(f"{fragment}  # {chosen.tiles_per_s:.0f} tiles/s here")
    return "\n".join(lines)


def _rate(config: Config, precision: str, batch_tiles: int, device: str, calls: int) -> float:
    encoder = built_encoder(config.encoder, config.extract.model_copy(update={"precision": precision}), device)
    side = config.tiling.tile_px
    batch = torch.randint(0, 255, (batch_tiles, side, side, 3), dtype=torch.uint8)

    def call(_: int) -> None:
        encoder.encode(batch.to(device), precision=PRECISIONS[precision]).cpu()

    with exact_float32(), ThreadPoolExecutor(calls) as pool:
        try:
            list(pool.map(call, range(calls)))  # the first call of a shape prepares more than it computes
            done, started = 0, time.perf_counter()
            while done < _LEAST_CALLS * calls or time.perf_counter() - started < _LEAST_S:
                list(pool.map(call, range(calls)))
                done += calls
        except torch.OutOfMemoryError:
            return 0.0
    return done * batch_tiles / (time.perf_counter() - started)
