"""Every number of an evaluation as one row of a table."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = ("scheme", "measure", "value", "low", "high", "patients", "events", "conditional_on")
_INTERVAL = {"value", "low", "high"}


def numbers_table(evaluation: Mapping[str, Any]) -> str:
    """Write an evaluation as CSV: one row a number, named by its path in evaluation.json.

    Parameters
    ----------
    evaluation : mapping
        As `pathoml.evaluate` gives it.

    Returns
    -------
    str
        CSV with a header. Intervals stand beside their number, with what they are conditional on; entries of a curve are
        counted from 0.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, scheme in evaluation["schemes"].items():
        around = {"conditional_on": evaluation["condition"], **_counts(scheme.get("tested", {}))}
        for row in _rows("", scheme, around):
            writer.writerow([name, *(row.get(column, "") for column in COLUMNS[1:])])
    return stream.getvalue()


def _counts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("patients", "events") if isinstance(values.get(name), int)}


def _rows(path: str, value: Any, around: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(value, Mapping):
        around = {**around, **_counts(value)}
        if isinstance(value.get("condition"), str):
            around["conditional_on"] = value["condition"]
        if set(value) >= _INTERVAL:
            yield from _estimates(path, value, around)
            value = {key: one for key, one in value.items() if key not in _INTERVAL}
        for key, one in value.items():
            if key != "condition":
                yield from _rows(f"{path}.{key}" if path else str(key), one, around)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from _rows(f"{path}[{place}]", one, around)
    elif value is not None:
        yield {"measure": path, "value": value, **{key: one for key, one in around.items() if key != "conditional_on"}}


def _estimates(path: str, value: Mapping[str, Any], around: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not isinstance(value["value"], list):
        yield {"measure": path, **{key: value[key] for key in _INTERVAL}, **around}
        return
    for place, (middle, low, high) in enumerate(zip(value["value"], value["low"], value["high"], strict=True)):
        yield {"measure": f"{path}[{place}]", "value": middle, "low": low, "high": high, **around}
