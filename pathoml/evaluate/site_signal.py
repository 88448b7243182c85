"""How well the hospital can be told from features and from the risk: what a model could learn instead of biology."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from pathoml.evaluate.estimates import estimate
from pathoml.evaluate.scheme import Tested
from pathoml.survival.weights import weighted_ratio
from pathoml.units import AnyArray, BoolArray, FloatArray, IntArray

LEAST_PATIENTS = 10
_FOLDS = 5
_COMPONENTS = 32
CONDITION = "95 %, bootstrap over patients, conditional on the classifiers fitted in cross-validation"


def site_from_risk(tested: Tested, *, seed: int) -> dict[str, Any] | None:
    """Tell the hospital from the risk.

    Parameters
    ----------
    tested : Tested
        Predictions.
    seed : int
        Of the folds.

    Returns
    -------
    dict or None
        As `site_from_columns`; the risk enters with its square, so that hospitals of middling risk can be told too.
    """
    columns = np.stack([tested.risk, tested.risk**2], axis=1)
    return site_from_columns(columns, tested.site, tested.counts, seed=seed)


def site_from_columns(
    columns: FloatArray, site: AnyArray, counts: FloatArray, *, seed: int
) -> dict[str, Any] | None:  # fmt: skip
    """Tell the hospital from numbers, by logistic regression on patients that it was not fitted on.

    Parameters
    ----------
    columns : ndarray of float64, shape (patients, columns)
        One row a patient.
    site : ndarray of str, shape (patients,)
        Hospital; empty where it is not known.
    counts : ndarray of float64, shape (1 + bootstraps, patients)
        Draws.
    seed : int
        Of the folds.

    Returns
    -------
    dict or None
        Area under the ROC curve of each hospital against the others, averaged over hospitals: 0.5 is guessing, 1 means that the
        hospital is written in the numbers. None where fewer than two hospitals have ten patients.
    """
    names, sizes = np.unique(site[site != ""], return_counts=True)
    names = names[sizes >= LEAST_PATIENTS]
    if len(names) < 2:
        return None
    rows = np.isin(site, names)
    label = np.searchsorted(names, site[rows])
    score = _scores(columns[rows], label.astype(np.int64), seed)
    drawn = counts[:, rows]
    areas = np.stack([_area(score[:, one], label == one, drawn) for one in range(len(names))])
    return {
        "auc": estimate(areas.mean(axis=0)).to_json(),
        "hospitals": len(names),
        "patients": int(rows.sum()),
        "condition": CONDITION,
    }


def _scores(columns: FloatArray, label: IntArray, seed: int) -> FloatArray:
    scores = np.zeros((len(label), int(label.max()) + 1))  # probabilities: comparable among the folds
    for fit, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(columns, label):
        scaler = StandardScaler().fit(columns[fit])
        known, asked = _reduced(scaler.transform(columns[fit]), scaler.transform(columns[test]))
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(known, label[fit])
        scores[np.ix_(test, model.classes_)] = model.predict_proba(asked)
    return scores


def _reduced(known: FloatArray, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Keep the principal components of many columns, scaled as they are."""
    if known.shape[1] <= _COMPONENTS:
        return known, asked
    axes = np.linalg.svd(known, full_matrices=False)[2][:_COMPONENTS].T
    unit = (known @ axes).std(axis=0)
    axes = axes / np.where(unit > 0, unit, 1.0)
    return known @ axes, asked @ axes


def _area(score: FloatArray, positive: BoolArray, counts: FloatArray) -> FloatArray:
    """Return the area under the ROC curve in every draw."""
    order = np.argsort(score, kind="stable")
    start = np.unique(score[order], return_index=True)[1]
    of_one, of_rest = (np.add.reduceat(counts[:, order] * mask[order], start, axis=1) for mask in (positive, ~positive))
    below = np.cumsum(of_rest, axis=1) - of_rest / 2
    return weighted_ratio((of_one * below).sum(axis=1), of_one.sum(axis=1) * of_rest.sum(axis=1))
