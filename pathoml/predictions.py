"""The table of predictions: one row for each patient, model and fold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.errors import InputError
from pathoml.files import write_text
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.units import FloatArray

_TEXT = ("model", "scheme", "fold", "role", "patient_id", "site", "endpoint")
_COLUMNS = (*_TEXT, "repeat", "seed", "time_days", "event", "risk", "risk_group")
SURVIVAL_PREFIX = "survival_"


@dataclass(frozen=True)
class Predictions:
    """Predicted risks and survival curves.

    Parameters
    ----------
    table : DataFrame
        Columns model, scheme, fold, role (train, validation, test, external), patient_id, site, endpoint, repeat, seed,
        time_days, event (missing for patients whose outcome is not known), risk (higher is worse; comparable within
        one model and fold only) and risk_group (low, high; cut-off from training patients).
    curve_days : ndarray of float64, shape (times,)
        When the survival curves are given.
    survival : ndarray of float64, shape (rows, times)
        Probability of no event until then; NaN for train and validation patients, whose curves nobody judges a model by.
    """

    table: pd.DataFrame
    curve_days: FloatArray
    survival: FloatArray

    def select(self, **values: str) -> "Predictions":
        """Return the rows in which columns have given values.

        Parameters
        ----------
        **values : str
            Column name to value.

        Returns
        -------
        Predictions
            Same order.
        """
        keep = np.ones(len(self.table), dtype=bool)
        for column, value in values.items():
            keep &= (self.table[column] == value).to_numpy()
        return Predictions(self.table[keep].reset_index(drop=True), self.curve_days, self.survival[keep])


def join_predictions(parts: list[Predictions]) -> Predictions:
    """Put predictions below one another.

    Parameters
    ----------
    parts : list of Predictions
        With the same survival grid.

    Returns
    -------
    Predictions
        All rows in order.

    Raises
    ------
    InputError
        If the survival grids differ or there is nothing to join.
    """
    if not parts or any(not np.array_equal(part.curve_days, parts[0].curve_days) for part in parts):
        raise InputError("predictions to be joined must be given, and on the same survival grid")
    table = pd.concat([part.table for part in parts], ignore_index=True)
    return Predictions(table, parts[0].curve_days, np.concatenate([part.survival for part in parts]))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions as CSV; floats so that reading gives them back exactly.

    Parameters
    ----------
    path : Path
        Where to.
    predictions : Predictions
        What to write.
    """
    curves = pd.DataFrame(
        predictions.survival, columns=[f"{SURVIVAL_PREFIX}{_exact(day)}d" for day in predictions.curve_days.tolist()]
    )
    table = pd.concat([predictions.table[list(_COLUMNS)], curves], axis=1)
    table["notice"] = RESEARCH_USE_ONLY
    write_text(path, table.to_csv(index=False))


def _exact(day: float) -> str:
    return str(int(day)) if day.is_integer() else repr(day)


def read_predictions(path: Path) -> Predictions:
    """Read predictions written by `write_predictions`.

    Parameters
    ----------
    path : Path
        The CSV.

    Returns
    -------
    Predictions
        Equal to what was written.

    Raises
    ------
    InputError
        If the file is missing or a column is.
    """
    if not path.is_file():
        raise InputError(f"{path}: no predictions there; run 'pathoml train' first")
    curves = [name for name in pd.read_csv(path, nrows=0).columns if name.startswith(SURVIVAL_PREFIX)]
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys((*_TEXT, "risk_group"), str),
        keep_default_na=False,
        na_values={name: [""] for name in ("event", "time_days", *curves)},
        float_precision="round_trip",
    )
    absent = [name for name in _COLUMNS if name not in table.columns]
    if absent:
        raise InputError(f"{path.name}: no column(s) {', '.join(absent)}; it was not written by pathoml")
    days = np.array([float(name.removeprefix(SURVIVAL_PREFIX).removesuffix("d")) for name in curves])
    return Predictions(table[list(_COLUMNS)].copy(), days, table[curves].to_numpy(dtype=np.float64))
