"""What in a plan lets something about patients out that no noise covers. Torch-free."""

from typing import TYPE_CHECKING

from pathoml.federated.privacy_settings import reasons_against

if TYPE_CHECKING:  # the plan asks this module while it is made
    from pathoml.federated.plan import Plan


def against_privacy(plan: "Plan") -> list[str]:
    """Say why a plan cannot have the privacy that it asks for.

    Parameters
    ----------
    plan : Plan
        With or without a section ``privacy``.

    Returns
    -------
    list of str
        Key, reason and remedy of each; empty if there is none, or no privacy is asked for.
    """
    if plan.privacy is None:
        return []
    found = [*_of_method(plan), *_of_preparation(plan), *reasons_against(plan.train)]
    return [f"privacy does not go with this plan: {words}" for words in found]


def _of_method(plan: "Plan") -> list[str]:
    method, privacy = plan.method, plan.privacy
    if method.kind == "newton":
        return ["method: Newton steps are sums over patients without noise; take kind: rounds"]
    if method.kind == "evaluation":
        return ["method: a concordance compares pairs of patients, and no noise fits it; leave privacy out"]
    found = (
        (
            method.start != "zero" and bool(plan.covariates),
            "method.start: Newton steps are sums over patients without noise; set start: zero",
        ),
        (
            method.weight != "patients",
            "method.weight: the number of events is a sum over patients without noise; set weight: patients",
        ),
        (
            method.keep == "best_validation" and privacy is not None and privacy.metric_noise is None,
            "method.keep: the validation loss leaves with noise or not at all; set privacy.metric_noise, or keep: last",
        ),
    )
    return [words for is_so, words in found if is_so]


def _of_preparation(plan: "Plan") -> list[str]:
    loose = [one.column for one in plan.covariates if one.kind == "numeric" and one.mean is None]
    features = plan.features
    found = (
        (
            plan.bins.kind != "fixed",
            "bins: edges from counts of events are sums without noise; give them, kind: fixed",
        ),
        (
            bool(loose),
            f"covariates: {', '.join(loose[:5])}: means of patients are sums without noise; give mean and scale",
        ),
        (
            any(one.kind == "block" for one in plan.covariates),
            "covariates: a block's components are fitted on sums without noise; leave blocks out",
        ),
        (
            features is not None and (features.scaling != "none" or plan.model.tile_components is not None),
            "features: standardising tiles, or their components, mixes patients without noise; set scaling: none and "
            "model.tile_components: null",
        ),
    )
    return [words for is_so, words in found if is_so]
