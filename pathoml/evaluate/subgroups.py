"""How well a model does in each hospital and each clinical subgroup: the rows of a forest plot."""

from typing import Any

import numpy as np

from pathoml.evaluate.background import Background, subgroups_of
from pathoml.evaluate.estimates import FROZEN, estimate
from pathoml.evaluate.scheme import Tested
from pathoml.survival.cox_regression import fit_cox_draws
from pathoml.survival.metrics import concordance_sums
from pathoml.survival.weights import weighted_ratio
from pathoml.units import BoolArray, FloatArray

HOSPITAL = "hospital"


def judge_subgroups(tested: Tested, background: Background | None, *, least_events: int) -> dict[str, Any]:
    """Return concordance and hazard ratio of everybody, of each hospital and of each clinical subgroup.

    Parameters
    ----------
    tested : Tested
        Predictions.
    background : Background or None
        Clinical covariates.
    least_events : int
        Subgroups with fewer events are not shown; hospitals with fewer are put together.

    Returns
    -------
    dict
        Rows, and the covariates whose smaller subgroups are left out.
    """
    everyone = np.ones(len(tested.time_days), dtype=bool)
    groups = [("all", "all patients", everyone), *_hospitals(tested, least_events)]
    if background is not None:
        groups += subgroups_of(background, tested.patient_id)
    rows, left_out = [], []
    for name, level, members in groups:
        if tested.event[members].sum() < least_events and name != "all":
            left_out.append(f"{name} {level}")
            continue
        rows.append(_row(tested, name, level, members))
    return {"condition": FROZEN, "least_events": least_events, "rows": rows, "left_out": left_out}


def _hospitals(tested: Tested, least_events: int) -> list[tuple[str, str, BoolArray]]:
    names = sorted(set(tested.site.tolist()) - {""})
    if len(names) < 2:
        return []
    members = {name: tested.site == name for name in names}
    large = [name for name in names if tested.event[members[name]].sum() >= least_events]
    rest = np.isin(tested.site, [name for name in names if name not in large])
    others = [(HOSPITAL, f"{len(names) - len(large)} others together", rest)] if rest.any() else []
    return [*((HOSPITAL, name, members[name]) for name in large), *others]


def _row(tested: Tested, name: str, level: str, members: BoolArray) -> dict[str, Any]:
    fits = fit_cox_draws(
        tested.risk[members, None], tested.time_days[members], tested.event[members], counts=tested.counts[:, members],
        stratum=tested.fold[members],
    )  # fmt: skip
    return {
        "by": name,
        "level": level,
        "patients": int(members.sum()),
        "events": int(tested.event[members].sum()),
        "concordance": estimate(_concordance(tested, members)).to_json(),
        "hazard_ratio": estimate(np.exp(fits.coefficients[:, 0])).to_json(),
    }


def _concordance(tested: Tested, members: BoolArray) -> FloatArray:
    """Compare patients of the subgroup within folds, all folds' pairs together, since a fold has few of them."""
    above, below = np.zeros(len(tested.counts)), np.zeros(len(tested.counts))
    for fold in np.unique(tested.fold[members]):
        rows = members & (tested.fold == fold)
        won, pairs = concordance_sums(
            tested.time_days[rows], tested.event[rows], tested.risk[rows], tested.counts[:, rows]
        )  # fmt: skip
        above, below = above + won, below + pairs
    return weighted_ratio(above, below)
