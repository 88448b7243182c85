"""Finished runs put side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathoml.config import Config
from pathoml.errors import InputError
from pathoml.evaluate.comparison import compare_runs
from pathoml.pipeline.run_folder import RunFolder, check_training
from pathoml.pipeline.study import run_config
from pathoml.predictions import Predictions, read_predictions
from pathoml.report.comparison import Comparison, write_comparison
from pathoml.settings import result_settings


def compare(roots: Sequence[Path], output: Path) -> dict[str, Any]:
    """Compare the models of finished runs on the patients that all of them have tested.

    Parameters
    ----------
    roots : sequence of Path
        Run folders, two or more.
    output : Path
        The page; its numbers go beside it as JSON.

    Returns
    -------
    dict
        As `pathoml.evaluate.comparison.compare_runs` gives it.

    Raises
    ------
    InputError
        If there are fewer than two runs, one is not finished, or they have nothing in common.
    """
    if len(roots) < 2:
        raise InputError("a comparison needs two run folders or more")
    configs: dict[str, Config] = {}
    runs: dict[str, Predictions] = {}
    places: list[tuple[str, str]] = []
    for number, root in enumerate(roots, start=1):
        folder, config = RunFolder(root), run_config(root)
        check_training(folder)
        predictions = read_predictions(folder.predictions)
        name = f"{number} {config.name}"
        configs[name], places = config, [*places, (name, str(root))]
        runs[name] = predictions.select(model=str(predictions.table["model"].iloc[0]))
    first = next(iter(configs.values())).evaluate
    horizons = first.horizons_days or _quartiles(next(iter(runs.values())))
    evaluation = compare_runs(runs, horizons, bootstraps=first.bootstraps, seed=first.seed)
    write_comparison(output, Comparison(places, evaluation, _different_settings(configs)))
    return evaluation


def _quartiles(predictions: Predictions) -> tuple[float, ...]:
    table = predictions.table.drop_duplicates("patient_id")
    times = table["time_days"][table["event"] == 1].to_numpy(dtype=np.float64)
    return tuple(float(value) for value in np.round(np.quantile(times, [0.25, 0.5, 0.75])))


def _different_settings(configs: dict[str, Config]) -> list[tuple[str, ...]]:
    flat = [dict(_flat("", result_settings(config))) for config in configs.values()]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, *(one.get(key, "-") for one in flat)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), one)
    else:
        yield path, str(value)
