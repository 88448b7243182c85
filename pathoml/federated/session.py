"""One site's answers to the requests of one plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file as load_arrays_file
from safetensors.numpy import save as save_arrays
from torch import as_tensor

from pathoml.errors import RefusalCode, RefusedError
from pathoml.federated.guard import (
    COUNTS,
    PRIVATE_REQUESTS,
    REPLICATES,
    Allowed,
    allowed_answer,
    metrics_allowed,
    models_of,
)
from pathoml.federated.judging import calibration_sums, member_of, pair_sums, risks_of
from pathoml.federated.linear import linear_terms
from pathoml.federated.membership_run import Asked, examine_membership
from pathoml.federated.messages import Message
from pathoml.federated.patient_fit import patient_losses
from pathoml.federated.plan import Plan, RoundsSettings
from pathoml.federated.preprocessing import (
    SMALL_CELL,
    merged_counts,
    sum_products,
    sum_squares,
    sum_values,
)  # fmt: skip
from pathoml.federated.privacy_ledger import PrivacyLedger
from pathoml.federated.setup import Setup, arrays_of, build_model, load_arrays_into, setup_from_arrays
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_privacy import SitePrivacy, budget_of
from pathoml.federated.site_settings import LimitsSettings
from pathoml.federated.training import SiteTraining, settings_of
from pathoml.files import make_folder, write_bytes, write_json
from pathoml.mil.batches import TrainingPatients
from pathoml.mil.objective import Outcome
from pathoml.mil.patients import select_patients
from pathoml.mil.projection import projection_of, sum_tiles
from pathoml.train import follow_up, local_update, validate
from pathoml.train_state import start_state
from pathoml.units import AnyArray

Answer = tuple[dict[str, AnyArray], dict[str, float]]
_ABOUT_OTHERS = ("setup", "validate", "evaluate", "personal")
"""Requests whose answers say nothing of training patients; those that they speak of are counted where they are answered."""


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


class Session:
    """A site at work on one plan.

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
        self._plan, self._data, self._context = plan, data, context
        self._setup: Setup | None = None
        self._training: SiteTraining | None = None
        self._patients: dict[tuple[str, ...], TrainingPatients] = {}
        self.privacy = self._with_privacy()
        self._dealer = (
            np.random.default_rng()
        )  # of the system's own randomness: what it draws cannot be repeated elsewhere
        self._answers: dict[str, Callable[[Message], Answer]] = {
            "join": self._join,
            "values": self._values,
            "squares": self._squares,
            "products": self._products,
            "tiles": self._tiles,
            "times": self._times,
            "setup": self._take_setup,
            "newton": self._newton,
            "train": self._train,
            "validate": self._validate,
            "evaluate": self._evaluate,
            "personal": self._personal,
            "calibrate": self._calibrate,
            "membership": self._membership,
        }

    def answer(self, request: Message) -> tuple[Message, Allowed]:
        """Do what a request asks.

        Parameters
        ----------
        request : Message
            Of this plan.

        Returns
        -------
        tuple of Message and Allowed
            The answer, and what an answer to such a request may hold.

        Raises
        ------
        RefusedError
            If it is not to be done.
        """
        if request.kind not in self._answers:
            raise RefusedError(f"request of unknown kind {request.kind[:40]!r}", RefusalCode.BAD_REQUEST)
        if against := self._context.limits.against(self._plan):
            raise RefusedError(against, RefusalCode.LIMIT_OF_SITE)
        if self.privacy is not None and request.kind not in PRIVATE_REQUESTS:
            raise RefusedError(
                f"the plan has privacy of patients, and an answer to {request.kind} would leave without noise",
                RefusalCode.MAY_NOT_LEAVE,
            )
        if request.kind not in _ABOUT_OTHERS and not self._enough(self._data.train):
            raise RefusedError(
                f"{len(self._data.train)} training patients with {self._events(self._data.train):.0f} events; nothing is said of "
                f"fewer than {self._context.limits.patients_for(self._plan)} with {self._context.limits.events_for(self._plan)}",
                RefusalCode.TOO_FEW_PATIENTS,
            )
        refused, norm = self._context.limits.refused_metrics, self._context.limits.norm_for(self._plan)
        allowed = allowed_answer(request, self._plan, refused=refused, norm=norm)
        # What was let out once costs nothing more: asked again after a crash, a site gives the very same answer.
        kept = None if self.privacy is None else self.privacy.answers.find(request)
        if kept is not None:
            return kept, allowed
        arrays, numbers = self._answers[request.kind](request)
        numbers = {name: value for name, value in numbers.items() if self.privacy is None or name in allowed.numbers}
        answer = Message(request.kind, request.plan, request.round_number, arrays, numbers)
        if self.privacy is not None:
            self.privacy.answers.keep(request, answer)
        return answer, allowed

    # Before training: who is there, and sums for transforms.

    def _join(self, request: Message) -> Answer:
        time_days, event = follow_up(self._data.cohort, self._data.train)
        return {}, {"patients": float(len(time_days)), "events": float(event.sum())}

    def _values(self, request: Message) -> Answer:
        small = 1 if self._context.limits.public_benchmark else SMALL_CELL
        return sum_values(self._plan, self._raw(), small_cell=small), {}

    def _squares(self, request: Message) -> Answer:
        return sum_squares(self._plan, self._raw(), request.arrays["numbers.mean"]), {}

    def _products(self, request: Message) -> Answer:
        return sum_products(
            self._plan, self._raw(), request.arrays["numbers.mean"], request.arrays["numbers.scale"]
        ), {}

    def _tiles(self, request: Message) -> Answer:
        tiles = select_patients(self._data.cohort, self._data.features, self._data.train).features
        assert tiles is not None, "only a plan with features is asked for tiles"
        sums = sum_tiles(tiles)
        arrays = {
            "tiles.count": np.array([sums.count], dtype=np.int64), "tiles.total": sums.total, "tiles.products": sums.products
        }  # fmt: skip
        if self._plan.features is not None and self._plan.features.scaling == "site":
            own = projection_of(sums, None)
            centred = sums.products - np.outer(own.mean, own.mean) * sums.count
            arrays["tiles.standard"] = centred / np.outer(own.scale, own.scale)
        return arrays, {}

    def _times(self, request: Message) -> Answer:
        time_days, event = follow_up(self._data.cohort, self._data.train)
        smallest = self._context.limits.events_for(self._plan)
        return {"times.events": merged_counts(time_days[event == 1], np.asarray(self._plan.grid), smallest)}, {}

    def _take_setup(self, request: Message) -> Answer:
        setup = setup_from_arrays(self._plan, request.arrays)
        self._use(setup)
        if self._context.folder is not None:
            make_folder(self._context.folder)
            write_bytes(self._setup_file(), save_arrays({name: np.array(one) for name, one in request.arrays.items()}))
        return {}, {}

    # Training.

    def _newton(self, request: Message) -> Answer:
        setup = self._ready()
        objective = setup.objective(self._plan)
        time_days, event = follow_up(self._data.cohort, self._data.train)
        stratum = np.unique(self._data.cohort.site[self._data.cohort.rows_of(self._data.train)], return_inverse=True)[1]
        outcome = Outcome(as_tensor(event == 1), as_tensor(time_days), as_tensor(stratum.astype(np.int64)))
        point = request.arrays["parameters"]
        levels = objective.out if objective.has_level else 0
        if point.shape != (len(setup.transform.names) + levels,):
            raise RefusedError(f"parameters of shape {point.shape}", RefusalCode.BAD_REQUEST)
        terms = linear_terms(objective, point, setup.transform.apply(self._raw()), outcome)
        return {"gradient": terms.gradient, "hessian": terms.hessian}, {"loss": terms.loss}

    def _train(self, request: Message) -> Answer:
        setup = self._ready()
        sent = models_of(request.arrays)
        self._fit(sent, setup)
        control = {
            name.removeprefix("control."): one for name, one in request.arrays.items() if name.startswith("control.")
        }
        numbers = {"patients": float(len(self._data.train)), "events": self._events(self._data.train)}
        numbers |= self._judged(sent)
        if self._training is None:
            folder = None if self._context.folder is None else self._context.folder / "rounds"
            private = None if self.privacy is None else self.privacy.training
            self._training = SiteTraining(self._plan, setup, folder, self._context.device, private)
        model, change, loss = self._training.take_round(
            request.round_number, sent, control, self._training_patients(self._data.train)
        )
        arrays = {f"model.{name}": one for name, one in model.items()} | {
            f"control.{n}": one for n, one in change.items()
        }
        spent = {} if self.privacy is None else {"epsilon": self.privacy.spent["epsilon"]}
        return arrays, self._asked({**numbers, "train_loss": loss}) | spent

    def _validate(self, request: Message) -> Answer:
        sent = models_of(request.arrays)
        self._fit(sent, self._ready())
        return {}, self._asked(self._judged(sent))

    def _judged(self, sent: Mapping[str, AnyArray]) -> dict[str, float]:
        """Return the loss of the shared model on the validation patients, if there are enough of them."""
        names = self._data.validation
        if not self._enough(names) or (self.privacy is not None and not self.privacy.tells_losses):
            return {}
        setup = self._ready()
        model = build_model(self._plan, setup)
        load_arrays_into(model, sent)
        settings = self._plan.train
        patients = self._training_patients(names)
        if self.privacy is not None:
            losses = patient_losses(model.to(self._context.device), patients, setup.objective(self._plan), settings)
            return {"validation_loss": self.privacy.mean_loss(losses), "validation_patients": float(len(names))}
        loss, _ = validate(model.to(self._context.device), patients, setup.objective(self._plan), settings)
        return {"validation_loss": loss, "validation_patients": float(len(names))}

    # Judging.

    def _evaluate(self, request: Message) -> Answer:
        setup, sent = self._ready(), models_of(request.arrays)
        self._fit(sent, setup)
        return self._pairs(sent, setup)

    def _personal(self, request: Message) -> Answer:
        """Fit the model to the site's own patients, keep it there, and say how it does beside the shared one."""
        setup, sent, method = self._ready(), models_of(request.arrays), self._plan.method
        self._fit(sent, setup)
        if not isinstance(method, RoundsSettings) or not method.personal_epochs:
            raise RefusedError("the plan has no personal epochs", RefusalCode.BAD_REQUEST)
        model = build_model(self._plan, setup)
        load_arrays_into(model, sent)
        settings = settings_of(self._plan).model_copy(update={"schedule": "constant", "warmup_epochs": 0})
        state = start_state(model.to(self._context.device), settings)
        for _ in range(method.personal_epochs):
            local_update(state, self._training_patients(self._data.train), setup.objective(self._plan), settings)
        own = arrays_of(state.model)
        if self._context.folder is not None:
            make_folder(self._context.folder)
            write_bytes(self._context.folder / "personal.safetensors", save_arrays(own))
        return self._pairs(own, setup)

    def _pairs(self, model: Mapping[str, AnyArray], setup: Setup) -> Answer:
        names = self._data.test
        if not self._enough(names) or self.privacy is not None:
            zeros = np.zeros(REPLICATES)
            return {"replicates.concordant": zeros, "replicates.comparable": zeros}, {}
        risk = risks_of(member_of(self._plan, setup, dict(model)), self._data, names)
        arrays, numbers = pair_sums(*follow_up(self._data.cohort, names), risk, self._dealer)
        asked = self._asked(numbers)
        if not {"concordant", "comparable"} <= asked.keys():
            arrays = {name: np.zeros(REPLICATES) for name in arrays}
        return arrays, asked

    def _calibrate(self, request: Message) -> Answer:
        setup, sent = self._ready(), models_of(request.arrays)
        self._fit(sent, setup)
        smallest = self._context.limits.events_for(self._plan)
        return calibration_sums(member_of(self._plan, setup, sent), self._data, self._plan, smallest)

    def _membership(self, request: Message) -> Answer:
        """Look, for the site alone, at what the model tells of who was trained on; the answer says nothing of it."""
        setup, sent, context = self._ready(), models_of(request.arrays), self._context
        self._fit(sent, setup)
        private = None if self.privacy is None else self.privacy.training
        effort = Asked(context.limits.reference_models, private, context.device)
        found = examine_membership(self._plan, setup, self._data, sent, effort)
        if context.folder is not None:
            write_json(context.folder / "membership.json", found)
        return {}, {}

    # Small things.

    def _with_privacy(self) -> SitePrivacy | None:
        if self._plan.privacy is None or self._context.limits.against(self._plan):
            return None
        context = self._context
        if context.ledger is None:
            raise RefusedError("a plan with privacy needs a ledger to count what is spent", RefusalCode.LIMIT_OF_SITE)
        count = len(self._data.train)
        budget = budget_of(self._plan, count, context.limits.epsilon)
        ledger = PrivacyLedger(context.ledger, budget, known=context.spent)
        return SitePrivacy(self._plan, count, ledger, context.folder)

    def _raw(self) -> pd.DataFrame:
        return self._data.cohort.covariates.iloc[self._data.cohort.rows_of(self._data.train)]

    def _events(self, names: tuple[str, ...]) -> float:
        return float(follow_up(self._data.cohort, names)[1].sum())

    def _enough(self, names: tuple[str, ...]) -> bool:
        limits = self._context.limits
        enough = len(names) >= limits.patients_for(self._plan) and len(names) > 0
        return enough and self._events(names) >= limits.events_for(self._plan)

    def _asked(self, numbers: Mapping[str, float]) -> dict[str, float]:
        allowed = COUNTS | metrics_allowed(self._plan, self._context.limits.refused_metrics)
        return {name: value for name, value in numbers.items() if name in allowed}

    def _setup_file(self) -> Path:
        assert self._context.folder is not None
        return self._context.folder / "setup.safetensors"

    def _use(self, setup: Setup) -> None:
        tiles = select_patients(self._data.cohort, self._data.features, self._data.train).features
        self._setup, self._training, self._patients = setup.at_site(self._plan, tiles), None, {}

    def _ready(self) -> Setup:
        if self._setup is None and self._context.folder is not None and self._setup_file().is_file():
            self._use(setup_from_arrays(self._plan, load_arrays_file(self._setup_file())))
        if self._setup is None:
            raise RefusedError("the network's transforms have not come yet", RefusalCode.NOT_SET_UP)
        return self._setup

    def _fit(self, sent: Mapping[str, AnyArray], setup: Setup) -> None:
        """Refuse a model that is not the plan's."""
        expected = {name: one.shape for name, one in arrays_of(build_model(self._plan, setup)).items()}
        found = {name: one.shape for name, one in sent.items()}
        if found != expected or not all(np.isfinite(one).all() for one in sent.values()):
            raise RefusedError("the model that came is not the plan's, or not finite", RefusalCode.BAD_REQUEST)

    def _training_patients(self, names: tuple[str, ...]) -> TrainingPatients:
        setup = self._ready()
        if names not in self._patients:
            chosen = select_patients(self._data.cohort, self._data.features, names)
            self._patients[names] = TrainingPatients(
                chosen, self._data.cohort, setup.projection, setup.transform, self._plan.train, self._context.device
            )
        return self._patients[names]
