"""Transforms that the whole network shares: what the coordinator makes of the sums of sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pathoml.covariates import CovariateTransform, FittedBlock, FittedCategorical, FittedNumeric
from pathoml.errors import FederationError
from pathoml.federated.plan import Plan, PlanBlock, PlanCategories, PlanNumber
from pathoml.federated.site_sums import block_columns
from pathoml.units import AnyArray, FloatArray, IntArray

Arrays = Mapping[str, AnyArray]


def add_sums(parts: Sequence[Arrays]) -> dict[str, AnyArray]:
    """Add what several sites summed up.

    Parameters
    ----------
    parts : sequence of mapping of str to ndarray
        The same names and shapes.

    Returns
    -------
    dict of str to ndarray
        Their sums.
    """
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


@dataclass(frozen=True)
class Spread:
    """Means and deviations of the network's numeric columns.

    Parameters
    ----------
    mean, scale : ndarray of float64, shape (columns,)
        A missing value counts as the mean; the scale is 1 where nothing varies.
    """

    mean: FloatArray
    scale: FloatArray


def mean_of(sums: Arrays) -> FloatArray:
    """Return the network's means.

    Parameters
    ----------
    sums : mapping of str to ndarray
        Of `sum_values`, over all sites.

    Returns
    -------
    ndarray of float64, shape (columns,)
        0 for a column that nobody has a value of.
    """
    count = np.asarray(sums["numbers.count"], dtype=np.float64)
    return np.divide(sums["numbers.sum"], count, out=np.zeros(len(count)), where=count > 0)


def spread_of(sums: Arrays, squares: Arrays) -> Spread:
    """Return the network's means and deviations.

    Parameters
    ----------
    sums, squares : mapping of str to ndarray
        Of `sum_values` and `sum_squares`, over all sites.

    Returns
    -------
    Spread
        For `transform_of`.
    """
    mean = mean_of(sums)
    deviation = np.sqrt(np.asarray(squares["numbers.square"]) / float(sums["patients"][0]))
    return Spread(mean, np.where(deviation > 1e-12 * np.maximum(1.0, np.abs(mean)), deviation, 1.0))


def transform_of(plan: Plan, sums: Arrays, spread: Spread, products: Arrays) -> CovariateTransform:
    """Make the transform that all sites use.

    Parameters
    ----------
    plan : Plan
        Which covariates.
    sums : mapping of str to ndarray
        Of `sum_values`, over all sites.
    spread : Spread
        Of the numeric columns.
    products : mapping of str to ndarray
        Of `sum_products`, over all sites; empty for a plan without blocks.

    Returns
    -------
    CovariateTransform
        In the order of the plan.

    Raises
    ------
    FederationError
        If a block or a word has no spread over the whole network.
    """
    numbers, words, blocks = iter(range(len(spread.mean))), 0, 0
    parts: list[FittedNumeric | FittedCategorical | FittedBlock] = []
    spans = block_columns(plan)
    for one in plan.covariates:
        if isinstance(one, PlanNumber):
            given = _given_number(one)
            at = next(numbers) if given is None else -1
            mean, scale = given if given is not None else (float(spread.mean[at]), float(spread.scale[at]))
            parts.append(FittedNumeric(one.column, mean if one.fill is None else one.fill, mean, scale))
        elif isinstance(one, PlanCategories) and one.levels == "plan":
            parts.append(_given_words(one))
        elif isinstance(one, PlanCategories):
            parts.append(_fitted_words(one, np.asarray(sums[f"words.{words}"], dtype=np.int64)))
            words += 1
        else:
            span, patients = spans[blocks], float(sums["patients"][0])
            parts.append(_fitted_block(one, spread, span, np.asarray(products[f"products.{blocks}"]), patients))
            blocks += 1
    return CovariateTransform(tuple(parts))


def given_transform(plan: Plan) -> CovariateTransform:
    """Make the transform of a plan that gives all of it, so that no site is asked for any sum.

    Parameters
    ----------
    plan : Plan
        Numbers with mean and scale, and words; each word is a level, and so is a missing one.

    Returns
    -------
    CovariateTransform
        In the order of the plan.

    Raises
    ------
    FederationError
        If something is left to the patients.
    """
    parts: list[FittedNumeric | FittedCategorical | FittedBlock] = []
    for one in plan.covariates:
        if isinstance(one, PlanCategories):
            parts.append(_given_words(one))
            continue
        given = _given_number(one) if isinstance(one, PlanNumber) else None
        if given is None or not isinstance(one, PlanNumber):
            raise FederationError("covariates: mean and scale of numbers have to be given, and blocks left out")
        parts.append(FittedNumeric(one.column, given[0] if one.fill is None else one.fill, *given))
    return CovariateTransform(tuple(parts))


def _given_number(one: PlanNumber) -> tuple[float, float] | None:
    return None if one.mean is None or one.scale is None else (one.mean, one.scale)


def _given_words(one: PlanCategories) -> FittedCategorical:
    return FittedCategorical(one.column, tuple(sorted((*one.words, ""))), "")


def edges_from_counts(counts: IntArray, grid: FloatArray, bins: int) -> FloatArray:
    """Choose time bins with about as many events each.

    Parameters
    ----------
    counts : ndarray of int, shape (cells,)
        Of `merged_counts`, over all sites.
    grid : ndarray of float64, shape (cells,)
        Ends of the cells, the last of which ends follow-up.
    bins : int
        Wanted; fewer result where cells hold too many.

    Returns
    -------
    ndarray of float64, shape (edges,)
        From 0 to the last of the grid.

    Raises
    ------
    FederationError
        If no event was told.
    """
    total = int(counts.sum())
    if total == 0:
        raise FederationError(
            "no site told of enough events to choose time bins; give the plan bins: {kind: fixed, ...}"
        )
    reached = np.cumsum(counts) / total
    wanted = np.arange(1, bins) / bins
    inner = grid[np.minimum(np.searchsorted(reached, wanted - 1e-12), len(grid) - 1)]
    return np.unique(np.concatenate([[0.0], inner[inner < grid[-1]], [grid[-1]]]))


def _fitted_words(one: PlanCategories, counts: IntArray) -> FittedCategorical:
    found = {word: int(count) for word, count in zip((*one.words, ""), counts, strict=True) if count}
    if not found:
        raise FederationError(f"covariate {one.column}: no site has enough patients with any of its words")
    levels = tuple(sorted(found))
    fill = "" if "" in found else max(levels, key=lambda word: found[word])
    return FittedCategorical(one.column, levels, fill)


def _fitted_block(one: PlanBlock, spread: Spread, span: slice, products: FloatArray, patients: float) -> FittedBlock:
    variances, vectors = np.linalg.eigh(products)
    order = np.argsort(variances)[::-1]
    order = order[variances[order] > max(float(variances.max()), 0.0) * 1e-10][: one.components]
    if len(order) == 0:
        raise FederationError(f"block {one.name}: its columns do not vary over the network")
    axes = vectors[:, order].T
    axes = axes * np.sign(axes[np.arange(len(order)), np.abs(axes).argmax(axis=1)])[:, None]
    components = axes / np.sqrt(variances[order] / patients)[:, None]
    mean = spread.mean[span]
    return FittedBlock(one.name, one.name, one.columns, mean, mean, spread.scale[span], components)
