"""The predictions of one validation scheme, laid out for measures: divisions, forecasts, and one set of draws for all."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pathoml.errors import InputError
from pathoml.predictions import Predictions
from pathoml.survival import StepFunction, censoring_survival, kaplan_meier
from pathoml.survival.metrics import restricted_days
from pathoml.units import AnyArray, FloatArray, IntArray

TESTED_ROLES = ("test", "external")

RECALIBRATED = "recalibrated"
"""What a package is called whose probabilities were moved to fit the patients tested."""


@dataclass(frozen=True)
class Division:
    """One fold of one repetition: who is tested, and what the patients seen in training fix.

    Parameters
    ----------
    repeat : int
        Which repetition.
    fold : str
        Its name.
    columns : ndarray of int64, shape (tested,)
        Places of the tested patients in the scheme.
    censoring : StepFunction
        Probability of not being censored; of the patients seen in training, or, for a model from elsewhere, of the tested.
    reference : StepFunction
        Kaplan-Meier of the same patients.
    end_days : float
        Until when enough of them are followed.
    trained : int
        How many patients were seen in training; 0 of a model from elsewhere.
    """

    repeat: int
    fold: str
    columns: IntArray
    censoring: StepFunction
    reference: StepFunction
    end_days: float
    trained: int


@dataclass(frozen=True)
class Forecast:
    """What one model says about the patients tested in one division, in their order.

    Parameters
    ----------
    risk : ndarray of float64, shape (tested,)
        Higher is worse; comparable within the division.
    standard : ndarray of float64, shape (tested,)
        The risk in standard deviations of the patients seen in training, from their mean.
    group : ndarray of str, shape (tested,)
        Risk group.
    survival : ndarray of float64, shape (tested, times)
        Probability of no event until each day of the grid.
    """

    risk: FloatArray
    standard: FloatArray
    group: AnyArray
    survival: FloatArray


@dataclass(frozen=True)
class Scheme:
    """Everything that the measures of one scheme read.

    Parameters
    ----------
    name : str
        Of the scheme.
    patient_id, site : ndarray of str, shape (patients,)
        Who was tested, sorted; their hospital.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event : ndarray of int64, shape (patients,)
        1 the event that is predicted, 0 anything else.
    cause : ndarray of int64, shape (patients,)
        0 censored, 1 the event, 2 and more what competes with it.
    curve_days : ndarray of float64, shape (times,)
        When survival is predicted.
    divisions : tuple of Division
        Every fold of every repetition.
    forecasts : mapping of str to tuple of Forecast
        Of each model, one a division.
    counts : ndarray of float64, shape (1 + bootstraps, patients)
        Draws of patients, the first of which is everybody once; a patient tested in several repetitions is drawn in all of
        them alike.
    """

    name: str
    patient_id: AnyArray
    site: AnyArray
    time_days: FloatArray
    event: IntArray
    cause: IntArray
    curve_days: FloatArray
    divisions: tuple[Division, ...]
    forecasts: Mapping[str, tuple[Forecast, ...]]
    counts: FloatArray

    @property
    def models(self) -> tuple[str, ...]:
        """Names, the one to be judged first."""
        return tuple(self.forecasts)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Numbers of the repetitions."""
        return tuple(dict.fromkeys(one.repeat for one in self.divisions))

    @property
    def has_sites(self) -> bool:
        """Whether patients of one hospital can be told from those of others."""
        return len(set(self.site.tolist()) - {""}) > 1

    def tested(self, model: str) -> "Tested":
        """Return the first repetition's predictions of a model, one row a patient.

        Parameters
        ----------
        model : str
            Its name.

        Returns
        -------
        Tested
            Division after division.
        """
        first = [
            (place, one) for place, one in enumerate(self.divisions) if one.repeat == self.divisions[0].repeat
        ]  # fmt: skip
        columns = np.concatenate([one.columns for _, one in first])
        forecasts = [self.forecasts[model][place] for place, _ in first]
        return Tested(
            patient_id=self.patient_id[columns], site=self.site[columns], time_days=self.time_days[columns],
            event=self.event[columns], cause=self.cause[columns], counts=self.counts[:, columns],
            fold=np.repeat(np.arange(len(first)), [len(one.columns) for _, one in first]),
            risk=np.concatenate([one.standard for one in forecasts]),
            group=np.concatenate([one.group for one in forecasts]),
            survival=np.concatenate([one.survival for one in forecasts]), curve_days=self.curve_days,
            censoring=tuple(one.censoring for _, one in first), frozen=all(one.trained == 0 for _, one in first),
        )  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """Predictions of one model for patients each of whom is tested once.

    Parameters
    ----------
    patient_id, site : ndarray of str, shape (patients,)
        Who and where.
    time_days : ndarray of float64, shape (patients,)
        Follow-up.
    event, cause : ndarray of int64, shape (patients,)
        As in `Scheme`.
    counts : ndarray of float64, shape (1 + bootstraps, patients)
        Draws.
    fold : ndarray of int64, shape (patients,)
        Which fold tests them, counted from 0.
    risk : ndarray of float64, shape (patients,)
        In standard deviations of the patients seen in training.
    group : ndarray of str, shape (patients,)
        Risk group.
    survival : ndarray of float64, shape (patients, times)
        Predicted probability of no event.
    curve_days : ndarray of float64, shape (times,)
        When.
    censoring : tuple of StepFunction
        Of each fold.
    frozen : bool
        Whether the model is from elsewhere: no outcome of these patients decided anything about it, so that p-values of usual
        tests hold. Models of a cross-validation have seen the outcomes of other folds' patients, and such p-values do not.
    """

    patient_id: AnyArray
    site: AnyArray
    time_days: FloatArray
    event: IntArray
    cause: IntArray
    counts: FloatArray
    fold: IntArray
    risk: FloatArray
    group: AnyArray
    survival: FloatArray
    curve_days: FloatArray
    censoring: tuple[StepFunction, ...]
    frozen: bool

    @property
    def has_competing(self) -> bool:
        """Whether something else than the event that is predicted ended the follow-up of some patients."""
        return bool((self.cause > 1).any())

    def survival_at(self, days: FloatArray) -> FloatArray:
        """Return each patient's predicted probability of no event until a time of their own, straight between grid days.

        Parameters
        ----------
        days : ndarray of float64, shape (patients,)
            When; constant after the last day of the grid.

        Returns
        -------
        ndarray of float64, shape (patients,)
            1 on day 0.
        """
        grid = np.concatenate([[0.0], self.curve_days])
        curves = np.concatenate([np.ones((len(days), 1)), self.survival], axis=1)
        right = np.clip(np.searchsorted(grid, days, side="left"), 1, len(grid) - 1)
        part = np.clip((days - grid[right - 1]) / (grid[right] - grid[right - 1]), 0, 1)
        rows = np.arange(len(days))
        values: FloatArray = curves[rows, right - 1] * (1 - part) + curves[rows, right] * part
        return values

    def probability(self, day: float) -> FloatArray:
        """Return each patient's predicted probability of the event until a day.

        Parameters
        ----------
        day : float
            When.

        Returns
        -------
        ndarray of float64, shape (patients,)
            From 0 to 1.
        """
        return 1 - self.survival_at(np.full(len(self.time_days), day))

    def uncensored(self, days: FloatArray) -> FloatArray:
        """Return the probability of not having been censored until a time, as the patient's own fold has it.

        Parameters
        ----------
        days : ndarray of float64, shape (patients,)
            When.

        Returns
        -------
        ndarray of float64, shape (patients,)
            From 0 to 1.
        """
        values = np.empty(len(days))
        for place, steps in enumerate(self.censoring):
            rows = self.fold == place
            values[rows] = steps.at(days[rows])
        return values


def build_scheme(predictions: Predictions, *, bootstraps: int, seed: int) -> Scheme:
    """Lay out the predictions of one scheme.

    Parameters
    ----------
    predictions : Predictions
        Of one scheme.
    bootstraps : int
        How many draws.
    seed : int
        Of the draws.

    Returns
    -------
    Scheme
        With draws of patients within the folds of the first repetition.

    Raises
    ------
    InputError
        If the models of a fold are tested on different patients, or a patient's outcome is not one and the same.
    """
    table = predictions.table.reset_index(drop=True)
    is_tested = table["role"].isin(TESTED_ROLES).to_numpy()
    name = str(table["scheme"].iloc[0])
    people = table[is_tested].drop_duplicates("patient_id").sort_values("patient_id", kind="stable")
    names = people["patient_id"].to_numpy(dtype=str)
    groups = _rows_by(table)
    keys = list(dict.fromkeys((repeat, fold) for repeat, fold, _ in groups))
    models = list(dict.fromkeys(table["model"]))
    divisions: list[Division] = []
    forecasts: dict[str, list[Forecast]] = {model: [] for model in models}
    for repeat, fold in keys:
        tested_by = {model: _sorted_rows(table, groups.get((repeat, fold, model)), is_tested) for model in models}
        if len({tuple(table["patient_id"].iloc[tested]) for tested, _ in tested_by.values()}) > 1:
            raise InputError(f"predictions of {name} fold {fold}: the models are tested on different patients")
        tested, seen = tested_by[models[0]]
        if not len(tested):
            continue
        divisions.append(_division(table, (repeat, fold), names, tested, seen))
        for model, (of_test, of_training) in tested_by.items():
            forecasts[model].append(_forecast(predictions, of_test, of_training))
    columns = [one.columns for one in divisions if one.repeat == divisions[0].repeat]
    cause = people["event"].to_numpy(dtype=np.int64)
    return Scheme(
        name=name, patient_id=names, site=people["site"].to_numpy(dtype=str),
        time_days=people["time_days"].to_numpy(dtype=np.float64), event=(cause == 1).astype(np.int64), cause=cause,
        curve_days=predictions.curve_days, divisions=tuple(divisions),
        forecasts={model: tuple(values) for model, values in forecasts.items()},
        counts=draw_patients(len(names), columns, bootstraps=bootstraps, seed=seed),
    )  # fmt: skip


def _rows_by(table: pd.DataFrame) -> dict[tuple[int, str, str], IntArray]:
    """Return the rows of each repetition, fold and model, in the order of the table."""
    columns = zip(table["repeat"].tolist(), table["fold"].tolist(), table["model"].tolist(), strict=True)
    rows: dict[tuple[int, str, str], list[int]] = {}
    for row, (repeat, fold, model) in enumerate(columns):
        rows.setdefault((int(repeat), str(fold), str(model)), []).append(row)
    return {key: np.array(of_key, dtype=np.int64) for key, of_key in rows.items()}


def draw_patients(patients: int, strata: list[IntArray], *, bootstraps: int, seed: int) -> FloatArray:
    """Draw patients with replacement, within each stratum as many as it has.

    Parameters
    ----------
    patients : int
        How many there are.
    strata : list of ndarray of int64
        Places of the patients of each stratum; patients in none are drawn once always.
    bootstraps : int
        How many draws.
    seed : int
        Of chance.

    Returns
    -------
    ndarray of float64, shape (1 + bootstraps, patients)
        How often each was drawn; the first row is everybody once.
    """
    rng = np.random.default_rng(seed)
    counts = np.ones((1 + bootstraps, patients))
    for columns in strata:
        size = len(columns)
        counts[1:, columns] = rng.multinomial(size, np.full(size, 1 / size), size=bootstraps)
    return counts


def _sorted_rows(table: pd.DataFrame, rows: IntArray | None, is_tested: AnyArray) -> tuple[IntArray, IntArray]:
    """Return rows of tested patients by patient, and rows of the others."""
    if rows is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    tested = rows[is_tested[rows]]
    order = np.argsort(table["patient_id"].to_numpy(dtype=str)[tested], kind="stable")
    return tested[order], rows[~is_tested[rows]]


def _division(table: pd.DataFrame, key: tuple[int, str], names: AnyArray, tested: IntArray, seen: IntArray) -> Division:
    fixing = table.iloc[seen if len(seen) else tested]
    time_days = fixing["time_days"].to_numpy(dtype=np.float64)
    event = (fixing["event"].to_numpy(dtype=np.int64) == 1).astype(np.int64)
    columns = np.searchsorted(names, table["patient_id"].to_numpy(dtype=str)[tested])
    end = restricted_days(time_days, event) if event.any() else 0.0
    return Division(
        *key, columns, censoring_survival(time_days, event), kaplan_meier(time_days, event), end, len(seen)
    )  # fmt: skip


def _forecast(predictions: Predictions, tested: IntArray, seen: IntArray) -> Forecast:
    risk = predictions.table["risk"].to_numpy(dtype=np.float64)
    centre, scale = (float(risk[seen].mean()), float(risk[seen].std())) if len(seen) else (0.0, 1.0)
    return Forecast(
        risk=risk[tested], standard=(risk[tested] - centre) / (scale if scale > 0 else 1.0),
        group=predictions.table["risk_group"].to_numpy(dtype=str)[tested], survival=predictions.survival[tested],
    )  # fmt: skip
