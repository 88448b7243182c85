"""What a site works on for one plan: its patients, the network's setup once it has come, and what is made of both."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file as load_arrays_file
from safetensors.numpy import save as save_arrays
from torch import as_tensor

from pathoml.errors import RefusalCode, RefusedError
from pathoml.federated.guard import COUNTS, metrics_allowed
from pathoml.federated.method_settings import EvaluationSettings
from pathoml.federated.plan import Plan, PlanBlock
from pathoml.federated.rare_values import hide_rare_values
from pathoml.federated.setup import Setup, arrays_of, build_model, setup_from_arrays
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_settings import LimitsSettings
from pathoml.files import make_folder, write_bytes, write_json
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objective import Objective, Outcome
from pathoml.mil.patients import select_patients
from pathoml.train import follow_up
from pathoml.units import AnyArray, FloatArray

_TRAINED_ON = "trained_on.json"


@dataclass(frozen=True)
class SessionContext:
    """What a session is given besides plan and data.

    Parameters
    ----------
    limits : LimitsSettings
        Of the site.
    folder : Path or None
        Where the state of the training is kept; None keeps it in memory.
    device : str
        ``cpu`` or ``cuda``.
    ledger : Path or None
        The site's privacy ledger, one for all plans; plans with privacy need it.
    spent : float
        Epsilon that the site's audit log says the plan has spent.
    """

    limits: LimitsSettings
    folder: Path | None
    device: str = "cpu"
    ledger: Path | None = None
    spent: float = 0.0


@dataclass(frozen=True)
class InUse:
    """A setup, and what a site makes of it once rather than at each request.

    Parameters
    ----------
    setup : Setup
        As this site uses it.
    objective : Objective
        What is minimised.
    shapes : mapping of str to tuple of int
        Of the weights of the plan's model.
    design : ndarray of float64, shape (training patients, columns)
        Transformed covariates.
    outcome : Outcome
        Follow-up of the training patients.
    """

    setup: Setup
    objective: Objective
    shapes: Mapping[str, tuple[int, ...]]
    design: FloatArray
    outcome: Outcome


class Workbench:
    """A site's patients and its limits, for one plan.

    Parameters
    ----------
    plan : Plan
        Approved.
    data : SiteData
        The site's patients.
    context : SessionContext
        Limits, folder, device.
    """

    def __init__(self, plan: Plan, data: SiteData, context: SessionContext) -> None:
        self.plan, self.context = plan, context
        summed = plan.privacy is None and not isinstance(plan.method, EvaluationSettings)
        self.data = self._with_rare_values_hidden(data) if summed else data
        self._in_use: InUse | None = None
        self._patients: dict[tuple[str, ...], TrainingPatients] = {}

    @property
    def fewest(self) -> int:
        """Fewest patients of whom anything is said."""
        return self.context.limits.patients_for(self.plan)

    @property
    def fewest_to_train(self) -> int:
        """Fewest patients that the site trains with: from fewer than twice the columns of a block, products tell of each."""
        blocks = [len(one.columns) for one in self.plan.covariates if isinstance(one, PlanBlock)]
        return (
            self.fewest if self.context.limits.public_benchmark else max(self.fewest, *(2 * one for one in blocks), 0)
        )

    @property
    def fewest_events(self) -> int:
        """Fewest events of which anything is said."""
        return self.context.limits.events_for(self.plan)

    @property
    def raw(self) -> pd.DataFrame:
        """Covariates of the training patients, as the table has them."""
        return self.data.cohort.covariates.iloc[self.data.cohort.rows_of(self.data.train)]

    def events(self, names: tuple[str, ...]) -> float:
        """Count events.

        Parameters
        ----------
        names : tuple of str
            Patients.

        Returns
        -------
        float
            Of these.
        """
        return float(follow_up(self.data.cohort, names)[1].sum())

    def enough(self, names: tuple[str, ...]) -> bool:
        """Tell whether anything may be said of some patients.

        Parameters
        ----------
        names : tuple of str
            Patients.

        Returns
        -------
        bool
            By the strictest of plan, site and pathoml.
        """
        return len(names) >= max(1, self.fewest) and self.events(names) >= self.fewest_events

    def asked(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers that the plan asks for and the site does not refuse.

        Parameters
        ----------
        numbers : mapping of str to float
            All that were computed.

        Returns
        -------
        dict of str to float
            Those that are said.
        """
        allowed = COUNTS | metrics_allowed(self.plan, self.context.limits.refused_metrics)
        return {name: value for name, value in numbers.items() if name in allowed}

    def take(self, arrays: Mapping[str, AnyArray]) -> None:
        """Use a setup that came, and keep it for the day when this process has been started anew.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            As it came.

        Raises
        ------
        FederationError
            If it does not fit the plan.
        """
        self._use(setup_from_arrays(self.plan, arrays))
        self.keep("setup.safetensors", arrays)

    def ready(self) -> InUse:
        """Return what is in use.

        Returns
        -------
        InUse
            Of the last setup that came.

        Raises
        ------
        RefusedError
            If none has come.
        """
        folder = self.context.folder
        if self._in_use is None and folder is not None and (folder / "setup.safetensors").is_file():
            self._use(setup_from_arrays(self.plan, load_arrays_file(folder / "setup.safetensors")))
        if self._in_use is None:
            raise RefusedError("the network's transforms have not come yet", RefusalCode.NOT_SET_UP)
        return self._in_use

    def require_fit(self, sent: Mapping[str, AnyArray]) -> None:
        """Refuse a model that is not the plan's.

        Parameters
        ----------
        sent : mapping of str to ndarray
            Weights as they came.

        Raises
        ------
        RefusedError
            If names, shapes or values are not those of the plan's model.
        """
        found = {name: one.shape for name, one in sent.items()}
        if found != self.ready().shapes or not all(np.isfinite(one).all() for one in sent.values()):
            expected = self.ready().shapes
            strange = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            words = "; ".join(f"{name} {found.get(name)}, expected {expected.get(name)}" for name in strange[:5])
            raise RefusedError(
                f"the model that came is not the plan's: {words or 'not finite'}", RefusalCode.BAD_REQUEST
            )

    def patients(self, names: tuple[str, ...]) -> TrainingPatients:
        """Return patients ready to be trained on.

        Parameters
        ----------
        names : tuple of str
            Who.

        Returns
        -------
        TrainingPatients
            Made once.
        """
        setup = self.ready().setup
        if names not in self._patients:
            chosen = select_patients(self.data.cohort, self.data.features, names)
            self._patients[names] = TrainingPatients(
                chosen, self.data.cohort, setup.projection, setup.transform, self.plan.train, self.context.device
            )
        return self._patients[names]

    def keep(self, name: str, arrays: Mapping[str, AnyArray]) -> None:
        """Keep arrays in the plan's folder at this site, if it has one.

        Parameters
        ----------
        name : str
            Of the file.
        arrays : mapping of str to ndarray
            What to keep.
        """
        if self.context.folder is not None:
            make_folder(self.context.folder)
            write_bytes(self.context.folder / name, save_arrays({key: np.array(one) for key, one in arrays.items()}))

    def remember_whom_it_trains_on(self) -> None:
        """Keep digests of the training patients' ids, here, so that no later plan scores its model on them."""
        if self.context.folder is not None and not (self.context.folder / _TRAINED_ON).is_file():
            make_folder(self.context.folder)
            write_json(self.context.folder / _TRAINED_ON, sorted(_mark(name) for name in self.data.train))

    def _with_rare_values_hidden(self, data: SiteData) -> SiteData:
        """Hide what few share from what is summed; with privacy it would make one patient's part depend on the others."""
        rows = data.cohort.rows_of(data.train)
        table = hide_rare_values(self.plan, data.cohort.covariates, rows, self.fewest)
        return replace(data, cohort=replace(data.cohort, covariates=table))

    def _use(self, setup: Setup) -> None:
        plan, data = self.plan, self.data
        tiles = select_patients(data.cohort, data.features, data.train).features
        own = setup.at_site(plan, tiles)
        time_days, event = follow_up(data.cohort, data.train)
        stratum = np.unique(data.cohort.site[data.cohort.rows_of(data.train)], return_inverse=True)[1]
        self._in_use = InUse(
            own, own.objective(plan), {name: one.shape for name, one in arrays_of(build_model(plan, own)).items()},
            own.transform.apply(self.raw),
            Outcome(as_tensor(event == 1), as_tensor(time_days), as_tensor(stratum.astype(np.int64))),
        )  # fmt: skip
        self._patients = {}


def _mark(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()


def scored_patients(method: EvaluationSettings, data: SiteData) -> tuple[str, ...]:
    """Return the patients whom a site scores.

    Parameters
    ----------
    method : EvaluationSettings
        Of the plan.
    data : SiteData
        The site.

    Returns
    -------
    tuple of str
        Their ids.
    """
    return data.test if method.patients == "test" else (*data.train, *data.validation, *data.test)


def trained_before(states: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Count patients whom models of earlier plans were trained on, at this site.

    Parameters
    ----------
    states : Path
        The site's folder with a folder for each plan that it took part in.
    names : tuple of str
        Ids of patients.

    Returns
    -------
    dict of str to int
        First 16 digits of a plan's hash -> how many; plans with none are left out.
    """
    marks = {_mark(name) for name in names}
    counts = {
        path.parent.name: len(marks.intersection(json.loads(path.read_text(encoding="utf-8"))))
        for path in sorted(states.glob(f"*/{_TRAINED_ON}"))
    }
    return {plan: count for plan, count in counts.items() if count}


def require_not_trained_on(states: Path, plan: str, names: tuple[str, ...]) -> None:
    """Refuse to score a model on patients whom this site trained it on.

    Parameters
    ----------
    states : Path
        The site's folder with a folder for each plan that it took part in.
    plan : str
        Hash of the plan that made the model; empty if none did.
    names : tuple of str
        Who is to be scored.

    Raises
    ------
    RefusedError
        If there are such patients, with their number.
    """
    seen = trained_before(states, names).get(plan[:16], 0) if plan else 0
    if seen:
        raise RefusedError(
            f"{seen} of {len(names)} patients were trained on here by the plan that made the package; method.patients: test, with"
            " the test, seed and validation_share of that plan, scores the others",
            RefusalCode.BAD_REQUEST,
        )
