"""One site's answers to the requests of one plan."""

from collections.abc import Callable, Mapping

import numpy as np

from pathoml.errors import RefusalCode, RefusedError
from pathoml.federated.clipping import clip_update
from pathoml.federated.guard import PRIVATE_REQUESTS, Allowed, allowed_answer, models_of
from pathoml.federated.linear import linear_terms
from pathoml.federated.membership_run import Asked, examine_membership
from pathoml.federated.messages import Message
from pathoml.federated.method_settings import RoundsSettings
from pathoml.federated.patient_fit import patient_losses
from pathoml.federated.plan import Plan
from pathoml.federated.privacy_ledger import PrivacyLedger
from pathoml.federated.requests import RequestBook, require_request
from pathoml.federated.setup import build_model, load_arrays_into
from pathoml.federated.site_answers import Answer, calibrate, evaluate, personal, score
from pathoml.federated.site_data import SiteData
from pathoml.federated.site_privacy import SitePrivacy, budget_of
from pathoml.federated.site_sums import merged_counts, sum_products, sum_squares, sum_values
from pathoml.federated.training import SiteTraining
from pathoml.federated.workbench import SessionContext, Workbench
from pathoml.files import write_json
from pathoml.mil.patients import select_patients
from pathoml.mil.projection import projection_of, sum_tiles
from pathoml.train import follow_up, validate
from pathoml.units import AnyArray, FloatArray

_ABOUT_OTHERS = ("setup", "validate", "evaluate", "personal", "score")
"""Requests whose answers say nothing of training patients; those that they speak of are counted where they are answered."""


WIDEST_RISKS = 30.0
"""Between the highest and the lowest log hazard of a site's patients where derivatives are summed; fits have less than 10."""


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
        self._bench = Workbench(plan, data, context)
        self._book = RequestBook(context.folder)
        self._training: SiteTraining | None = None
        self.privacy = self._with_privacy()
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
            "evaluate": lambda request: evaluate(self._bench, request),
            "personal": lambda request: personal(self._bench, request),
            "calibrate": lambda request: calibrate(self._bench, request),
            "score": lambda request: score(self._bench, request),
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
        if against := self._context.limits.against(self._plan):
            raise RefusedError(against, RefusalCode.LIMIT_OF_SITE)
        if self.privacy is not None and request.kind not in PRIVATE_REQUESTS:
            raise RefusedError(
                f"the plan has privacy of patients, and an answer to {request.kind} would leave without noise",
                RefusalCode.MAY_NOT_LEAVE,
            )
        require_request(request, self._plan)
        bench, train = self._bench, self._data.train
        if request.kind not in _ABOUT_OTHERS and not (bench.enough(train) and len(train) >= bench.fewest_to_train):
            raise RefusedError(
                f"{len(train)} training patients with {bench.events(train):.0f} events; nothing is said of fewer than "
                f"{bench.fewest_to_train} with {bench.fewest_events}",
                RefusalCode.TOO_FEW_PATIENTS,
            )
        refused, norm = self._context.limits.refused_metrics, self._context.limits.norm_for(self._plan)
        allowed = allowed_answer(request, self._plan, refused=refused, norm=norm)
        # What was let out once costs nothing more: asked again after a crash, a site gives the very same answer.
        kept = None if self.privacy is None else self.privacy.answers.find(request)
        if kept is not None:
            return kept, allowed
        self._book.enter(request)
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
        return sum_values(self._plan, self._bench.raw), {}

    def _squares(self, request: Message) -> Answer:
        return sum_squares(self._plan, self._bench.raw, request.arrays["numbers.mean"]), {}

    def _products(self, request: Message) -> Answer:
        mean, scale = request.arrays["numbers.mean"], request.arrays["numbers.scale"]
        return sum_products(self._plan, self._bench.raw, mean, scale), {}

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
        counts = merged_counts(time_days[event == 1], np.asarray(self._plan.grid), self._bench.fewest_events)
        return {"times.events": counts}, {}

    def _take_setup(self, request: Message) -> Answer:
        self._bench.take(request.arrays)
        self._training = None
        return {}, {}

    # Training.

    def _newton(self, request: Message) -> Answer:
        in_use, point = self._bench.ready(), request.arrays["parameters"]
        levels = in_use.objective.out if in_use.objective.has_level else 0
        if point.shape != (in_use.design.shape[1] + levels,):
            expected = (in_use.design.shape[1] + levels,)
            raise RefusedError(f"parameters of shape {point.shape}, expected {expected}", RefusalCode.BAD_REQUEST)
        self._require_many_at(point[: in_use.design.shape[1]], in_use.design)
        terms = linear_terms(in_use.objective, point, in_use.design, in_use.outcome)
        self._bench.remember_whom_it_trains_on()
        return {"gradient": terms.gradient, "hessian": terms.hessian}, {"loss": terms.loss}

    def _require_many_at(self, coefficients: AnyArray, design: FloatArray) -> None:
        """Refuse a point at which few patients count, and a matrix of more columns than the patients can hide in."""
        if self._context.limits.public_benchmark:
            return
        patients, columns = design.shape
        if patients < 2 * columns:
            raise RefusedError(
                f"{patients} training patients for {columns} columns; nothing is summed of fewer than {2 * columns}",
                RefusalCode.TOO_FEW_PATIENTS,
            )
        spread = float(np.ptp(design @ coefficients)) if columns else 0.0
        if spread > WIDEST_RISKS:
            raise RefusedError(
                f"at the point asked for, log hazards lie {spread:.3g} apart, where few patients count by themselves; no sums leave"
                f" where it is more than {WIDEST_RISKS:g}",
                RefusalCode.LIMIT_OF_SITE,
            )

    def _train(self, request: Message) -> Answer:
        setup, sent, train = self._bench.ready().setup, models_of(request.arrays), self._data.train
        self._bench.require_fit(sent)
        control = {
            name.removeprefix("control."): one for name, one in request.arrays.items() if name.startswith("control.")
        }
        numbers = {"patients": float(len(train)), "events": self._bench.events(train), **self._judged(sent)}
        if self._training is None:
            folder = None if self._context.folder is None else self._context.folder / "rounds"
            private = None if self.privacy is None else self.privacy.training
            self._training = SiteTraining(self._plan, setup, folder, self._context.device, private)
        self._bench.remember_whom_it_trains_on()
        model, change, loss = self._training.take_round(
            request.round_number, sent, control, self._bench.patients(train)
        )
        arrays = {f"model.{name}": one for name, one in self._shortened(sent, model).items()} | {
            f"control.{n}": one for n, one in change.items()
        }
        spent = {} if self.privacy is None else {"epsilon": self.privacy.spent["epsilon"]}
        return arrays, self._bench.asked({**numbers, "train_loss": loss}) | spent

    def _shortened(self, sent: Mapping[str, AnyArray], model: dict[str, AnyArray]) -> dict[str, AnyArray]:
        """Return the model with an update that is no longer than the plan wants it."""
        method = self._plan.method
        if not isinstance(method, RoundsSettings) or method.longest_update is None:
            return model
        update = {name: one.astype(np.float64) - sent[name] for name, one in model.items()}
        clipped = clip_update(update, method.longest_update)
        if clipped.keys() == update.keys() and all(clipped[name] is one for name, one in update.items()):
            return model
        return {name: (sent[name] + clipped[name]).astype(one.dtype) for name, one in model.items()}

    def _validate(self, request: Message) -> Answer:
        sent = models_of(request.arrays)
        self._bench.require_fit(sent)
        return {}, self._bench.asked(self._judged(sent))

    def _judged(self, sent: Mapping[str, AnyArray]) -> dict[str, float]:
        """Return the loss of the shared model on the validation patients, if there are enough of them."""
        names = self._data.validation
        if not self._bench.enough(names) or (self.privacy is not None and not self.privacy.tells_losses):
            return {}
        in_use = self._bench.ready()
        model = build_model(self._plan, in_use.setup)
        load_arrays_into(model, sent)
        model, settings, patients = model.to(self._context.device), self._plan.train, self._bench.patients(names)
        if self.privacy is not None:
            loss = self.privacy.mean_loss(patient_losses(model, patients, in_use.objective, settings))
        else:
            loss, _ = validate(model, patients, in_use.objective, settings)
        return {"validation_loss": loss, "validation_patients": float(len(names))}

    def _membership(self, request: Message) -> Answer:
        """Look, for the site alone, at what the model tells of who was trained on; the answer says nothing of it."""
        setup, sent, context = self._bench.ready().setup, models_of(request.arrays), self._context
        self._bench.require_fit(sent)
        private = None if self.privacy is None else self.privacy.training
        effort = Asked(context.limits.reference_models, private, context.device)
        found = examine_membership(self._plan, setup, self._bench.data, sent, effort)
        if context.folder is not None:
            write_json(context.folder / "membership.json", found)
        return {}, {}

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
