"""How much of the differences in risk each part of a model makes: slides, clinical columns, blocks, gene groups."""

from typing import Any

import numpy as np
import pandas as pd

from pathoml.errors import InputError
from pathoml.evaluate.estimates import FROZEN, estimate
from pathoml.evaluate.scheme import Tested
from pathoml.survival.weights import weighted_ratio
from pathoml.units import FloatArray


def judge_parts(tested: Tested, shares: pd.DataFrame) -> dict[str, Any]:
    """Divide what tells test patients apart among the parts of the model.

    Parameters
    ----------
    tested : Tested
        Predictions of the model.
    shares : DataFrame
        Of the same scheme and repetition: patient_id, part, present, share, as `pathoml.part_shares` gives them.

    Returns
    -------
    dict
        For each part how many patients have it; the standard deviation of its share over patients, in standard deviations of the
        risk of the patients that fitted the model; and its part of the variance of the sum of all shares (covariance over
        variance), which add up to 1.

    Raises
    ------
    InputError
        If the shares are not of the tested patients.
    """
    names = list(dict.fromkeys(shares["part"]))
    values = shares.pivot(index="patient_id", columns="part", values="share")
    absent = sorted(set(tested.patient_id.tolist()) - set(values.index))
    if absent:
        raise InputError(f"part shares: none of patient(s) {', '.join(absent[:5])}; run 'pathoml train' again")
    own: FloatArray = values.loc[tested.patient_id.tolist(), names].to_numpy(dtype=np.float64)
    total = own.sum(axis=1)
    spread, common = _covariance(own, own, tested.counts), _covariance(own, total[:, None], tested.counts)
    whole = _covariance(total[:, None], total[:, None], tested.counts)[:, 0]
    present = shares.groupby("part")["present"].sum()
    return {
        "condition": FROZEN,
        "parts": [
            {
                "part": name,
                "patients": int(present[name]),
                "deviation": estimate(np.sqrt(np.maximum(spread[:, place], 0.0))).to_json(),
                "part_of_variance": estimate(weighted_ratio(common[:, place], whole)).to_json(),
            }
            for place, name in enumerate(names)
        ],
    }


def _covariance(one: FloatArray, other: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the covariance of columns in every draw, shape (draws, columns)."""
    size = counts.sum(axis=1, keepdims=True)
    found: FloatArray = counts @ (one * other) / size - (counts @ one / size) * (counts @ other / size)
    return found
