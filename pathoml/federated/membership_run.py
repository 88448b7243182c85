"""What a site does when it is asked what a model tells of its own patients: all of it at the site, for the site."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from pathoml.federated.accountant import Release
from pathoml.federated.membership import ReferenceModels, membership_report, most_exposed, train_references
from pathoml.federated.method_settings import RoundsSettings
from pathoml.federated.patient_fit import patient_fit
from pathoml.federated.plan import Plan
from pathoml.federated.private_update import PrivateTraining, private_update
from pathoml.federated.setup import Setup, build_model, load_arrays_into
from pathoml.federated.site_data import SiteData
from pathoml.federated.training import settings_of
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.patients import select_patients
from pathoml.train import local_update
from pathoml.train_state import start_state
from pathoml.units import AnyArray, FloatArray, IntArray


@dataclass(frozen=True)
class Asked:
    """What the site puts into it.

    Parameters
    ----------
    reference_models : int
        Models that the site trains to compare with; 0 for the loss threshold alone.
    privacy : PrivateTraining or None
        As the plan trains, so that models to compare with are trained alike.
    device : str
        ``cpu`` or ``cuda``.
    """

    reference_models: int
    privacy: PrivateTraining | None
    device: str


def examine_membership(
    plan: Plan, setup: Setup, data: SiteData, model: Mapping[str, AnyArray], asked: Asked
) -> dict[str, Any]:  # fmt: skip
    """Attack a model with the site's own patients: those trained on against those kept for validation and test.

    Parameters
    ----------
    plan : Plan
        How models are trained.
    setup : Setup
        What the network shares.
    data : SiteData
        The site.
    model : mapping of str to ndarray
        The network's weights.
    asked : Asked
        Effort.

    Returns
    -------
    dict
        Plain JSON values: sentences, figures, and the most exposed patients by name. For the site's eyes only.

    Raises
    ------
    FederationError
        If the site keeps no patients out of training.
    """
    names = (*data.train, *data.validation, *data.test)
    member = np.arange(len(names)) < len(data.train)
    everyone = _patients(plan, setup, data, names, asked.device)
    objective = setup.objective(plan)
    network = build_model(plan, setup)
    load_arrays_into(network, model)
    statistic = patient_fit(network.to(asked.device), everyone, objective, plan.train)
    references: ReferenceModels | None = None
    if asked.reference_models and isinstance(plan.method, RoundsSettings):

        def fit(rows: IntArray, seed: int) -> FloatArray:
            chosen = tuple(names[row] for row in rows.tolist())
            return _fit_of_reference(
                plan, setup, (_patients(plan, setup, data, chosen, asked.device), everyone), seed, asked
            )

        references = train_references(fit, len(names), asked.reference_models, plan.seed)
    report = membership_report(statistic, member, references)
    return {
        "plan": plan.digest, "leaks": report.leaks, "sentences": report.sentences(),
        "attacks": [asdict(one) for one in report.attacks], "most_exposed": most_exposed(statistic, member, names),
    }  # fmt: skip


def _fit_of_reference(
    plan: Plan, setup: Setup, patients: tuple[TrainingPatients, TrainingPatients], seed: int, asked: Asked
) -> FloatArray:  # fmt: skip
    """Train on some patients as the plan does, as often as a whole plan does, and look at all of them."""
    members, everyone = patients
    method = plan.method
    assert isinstance(method, RoundsSettings)  # the caller has looked
    settings, objective = settings_of(plan).model_copy(update={"seed": seed}), setup.objective(plan)
    seeded = plan.model_copy(update={"train": plan.train.model_copy(update={"seed": seed})})
    state = start_state(build_model(seeded, setup).to(asked.device), settings)
    for _ in range(method.rounds * method.local_epochs):
        if asked.privacy is None:
            local_update(state, members, objective, settings)
        else:  # never leaves the site, and is not counted
            private_update(state, members, objective, settings, replace(asked.privacy, spend=_let_in))
    with torch.no_grad():
        return patient_fit(state.model, everyone, objective, settings)


def _let_in(release: Release) -> None:
    """Count nothing: nothing is let out."""


def _patients(plan: Plan, setup: Setup, data: SiteData, names: tuple[str, ...], device: str) -> TrainingPatients:
    chosen = select_patients(data.cohort, data.features, names)
    return TrainingPatients(chosen, data.cohort, setup.projection, setup.transform, plan.train, device)
