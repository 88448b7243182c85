"""Values that few patients of a site share, hidden before anything is computed: a sum over one patient is that patient."""

import numpy as np
import pandas as pd

from pathoml.federated.plan import Plan, PlanBlock, PlanNumber
from pathoml.federated.site_sums import word_covariates
from pathoml.units import FloatArray, IntArray


def hide_rare_values(plan: Plan, covariates: pd.DataFrame, rows: IntArray, fewest: int) -> pd.DataFrame:
    """Return covariates in which every value that tells patients apart is shared by enough of them, or the column is missing.

    A sum over a column that three patients have a value of is theirs; so is the row of a matrix of products that belongs to a
    mutation with one carrier, and so is the gradient of its weight. None of this depends on how many patients the site has.

    Parameters
    ----------
    plan : Plan
        Which columns.
    covariates : DataFrame
        Of a site's patients; not changed.
    rows : ndarray of int
        The training patients'.
    fewest : int
        Patients of whom something may be said.

    Returns
    -------
    DataFrame
        In the rows given, a number is missing for everybody where fewer have one, or fewer have another than the commonest;
        a word, or its absence, that fewer have counts as the commonest word of the site. Other rows are as they were.
    """
    hidden = covariates.copy()
    for column in _numbers(plan):
        values = hidden[column].to_numpy(dtype=np.float64, copy=True)
        if _few_apart(values[rows], fewest):
            values[rows] = np.nan
            hidden[column] = values
    for one in word_covariates(plan):
        words = hidden[one.column].astype(str).to_numpy(dtype=object, copy=True)
        listed = np.where(np.isin(words, one.words), words, "")[rows]
        names, counts = np.unique(listed, return_counts=True)
        rare = names[counts < fewest]
        if len(rare):
            words[rows] = np.where(np.isin(listed, rare), names[counts.argmax()], listed)
            hidden[one.column] = words
    return hidden


def _numbers(plan: Plan) -> list[str]:
    single = [one.column for one in plan.covariates if isinstance(one, PlanNumber)]
    return single + [name for one in plan.covariates if isinstance(one, PlanBlock) for name in one.columns]


def _few_apart(values: FloatArray, fewest: int) -> bool:
    known = values[~np.isnan(values)]
    if len(known) < fewest:
        return True
    commonest = int(np.unique(known, return_counts=True)[1].max())
    return 0 < len(known) - commonest < fewest
