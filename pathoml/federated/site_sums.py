"""What a site adds up of its patients before training: sums and counts that rest on enough of them, and nothing else."""

import numpy as np
import pandas as pd

from pathoml.federated.plan import Plan, PlanBlock, PlanCategories, PlanNumber
from pathoml.units import AnyArray, FloatArray, IntArray


def number_columns(plan: Plan) -> list[str]:
    """Return the numeric columns that sites add up, blocks included, in the order of the sums: those whose mean is not given.

    Parameters
    ----------
    plan : Plan
        With its covariates.

    Returns
    -------
    list of str
        Names in the clinical table.
    """
    single = [one.column for one in plan.covariates if isinstance(one, PlanNumber) and one.mean is None]
    return single + [name for one in plan.covariates if isinstance(one, PlanBlock) for name in one.columns]


def word_covariates(plan: Plan) -> list[PlanCategories]:
    """Return the covariates of a plan that are words.

    Parameters
    ----------
    plan : Plan
        With its covariates.

    Returns
    -------
    list of PlanCategories
        In its order.
    """
    return [one for one in plan.covariates if isinstance(one, PlanCategories)]


def counted_words(plan: Plan) -> list[PlanCategories]:
    """Return the covariates of a plan whose words are counted, since the plan does not fix which of them are levels.

    Parameters
    ----------
    plan : Plan
        With its covariates.

    Returns
    -------
    list of PlanCategories
        In its order.
    """
    return [one for one in word_covariates(plan) if one.levels == "network"]


def sum_values(plan: Plan, raw: pd.DataFrame) -> dict[str, AnyArray]:
    """Add up a site's covariates: the first of two passes.

    Parameters
    ----------
    plan : Plan
        Which.
    raw : DataFrame
        Training patients of the site.

    Returns
    -------
    dict of str to ndarray
        ``numbers.count`` and ``numbers.sum`` of shape (columns,); ``words.K`` of shape (words + 1,), the last for missing.
    """
    values = raw[number_columns(plan)].to_numpy(dtype=np.float64)
    sums: dict[str, AnyArray] = {
        "numbers.count": (~np.isnan(values)).sum(axis=0).astype(np.int64),
        "numbers.sum": np.nansum(values, axis=0),
        "patients": np.array([len(raw)], dtype=np.int64),
    }
    for number, one in enumerate(counted_words(plan)):
        words = raw[one.column].astype(str).to_numpy()
        counts = np.array([(words == word).sum() for word in one.words], dtype=np.int64)
        counts = np.append(counts, len(words) - counts.sum())
        sums[f"words.{number}"] = counts
    return sums


def sum_squares(plan: Plan, raw: pd.DataFrame, mean: FloatArray) -> dict[str, AnyArray]:
    """Add up squares around the network's means: the second pass.

    Parameters
    ----------
    plan : Plan
        Which.
    raw : DataFrame
        Training patients of the site.
    mean : ndarray of float64, shape (columns,)
        The network's.

    Returns
    -------
    dict of str to ndarray
        ``numbers.square`` of shape (columns,).
    """
    values = raw[number_columns(plan)].to_numpy(dtype=np.float64)
    return {"numbers.square": np.nansum((values - mean) ** 2, axis=0)}


def sum_products(plan: Plan, raw: pd.DataFrame, mean: FloatArray, scale: FloatArray) -> dict[str, AnyArray]:
    """Add up products of each block's standardised columns; a missing value is the mean.

    Parameters
    ----------
    plan : Plan
        Which.
    raw : DataFrame
        Training patients of the site.
    mean, scale : ndarray of float64, shape (columns,)
        The network's.

    Returns
    -------
    dict of str to ndarray
        ``products.K`` of shape (columns of block K, the same).
    """
    values = raw[number_columns(plan)].to_numpy(dtype=np.float64)
    standard = np.where(np.isnan(values), 0.0, (values - mean) / scale)
    return {
        f"products.{number}": standard[:, columns].T @ standard[:, columns]
        for number, columns in enumerate(block_columns(plan))
    }


def merged_counts(times: FloatArray, grid: FloatArray, smallest: int) -> IntArray:
    """Count times in the cells of a grid, each cell joined with those after it until it holds enough.

    Parameters
    ----------
    times : ndarray of float64, shape (n,)
        Times of events.
    grid : ndarray of float64, shape (cells,)
        Ends of the cells.
    smallest : int
        Fewest that are told together; a rest at the end goes to the last cell that is told.

    Returns
    -------
    ndarray of int64, shape (cells,)
        0 in cells whose count stands further on.
    """
    cells = np.minimum(np.searchsorted(grid, times), len(grid) - 1)
    counts = np.bincount(cells, minlength=len(grid)).astype(np.int64)
    told = np.zeros(len(grid), dtype=np.int64)
    waiting, last = 0, -1
    for cell, count in enumerate(counts.tolist()):
        waiting += count
        if waiting >= max(1, smallest):
            told[cell], waiting, last = waiting, 0, cell
    if waiting and last >= 0:
        told[last] += waiting
    return told


def merged_exposure(told: IntArray, exposure: FloatArray) -> FloatArray:
    """Join time at risk as the counts of events were joined: that of a cell by itself may be a single patient's.

    Parameters
    ----------
    told : ndarray of int, shape (cells,)
        Of `merged_counts`.
    exposure : ndarray of float64, shape (cells,)
        Time at risk.

    Returns
    -------
    ndarray of float64, shape (cells,)
        0 in cells whose time stands further on; 0 everywhere where no event is told.
    """
    joined = np.zeros(len(told))
    cells = np.flatnonzero(told)
    if len(cells):
        place = np.minimum(np.searchsorted(cells, np.arange(len(told))), len(cells) - 1)
        np.add.at(joined, cells[place], exposure)
    return joined


def block_columns(plan: Plan) -> list[slice]:
    """Return where the columns of each block stand among a plan's numeric columns.

    Parameters
    ----------
    plan : Plan
        With its covariates.

    Returns
    -------
    list of slice
        One a block, in its order.
    """
    start = sum(isinstance(one, PlanNumber) and one.mean is None for one in plan.covariates)
    spans = []
    for one in plan.covariates:
        if isinstance(one, PlanBlock):
            spans.append(slice(start, start + len(one.columns)))
            start += len(one.columns)
    return spans
