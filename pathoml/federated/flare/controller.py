"""The coordinator's end: the rounds of `pathoml.federated.coordinator`, with FLARE as the transport."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvflare.apis.controller_spec import Task
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.impl.controller import Controller
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from pathoml.errors import FederationError, RefusalCode
from pathoml.federated.flare.envelopes import content_of, enclose
from pathoml.federated.flare.jobs import PACKAGE, TASK
from pathoml.federated.flare.kits import read_kit
from pathoml.federated.flare.policies import STATS_GROUP
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.files import make_folder
from pathoml.package_files import read_package_files
from pathoml.processes import end_with

if TYPE_CHECKING:
    from pathoml.federated.plan import Plan

_log = logging.getLogger(__name__)
_LOOKS_EVERY_S = 0.05
_ASKS_WHO_IS_HERE_EVERY_S = 2.0


class CoordinatorController(Controller):  # type: ignore[misc] # nvflare has no types
    """What FLARE runs at the coordinator.

    Parameters
    ----------
    plan : str
        The plan, as JSON.
    digest : str
        Its hash: what the operator submitted, to be found again after FLARE has read the job.
    """

    def __init__(self, plan: str, digest: str) -> None:
        super().__init__(task_check_period=_LOOKS_EVERY_S)
        self._text, self._digest = plan, digest
        self._exchange: FlareTransport | None = None

    def start_controller(self, fl_ctx: Any) -> None:
        """End with the coordinator's own process, however that ends.

        Parameters
        ----------
        fl_ctx : FLContext
            FLARE's context.
        """
        end_with(os.getppid())

    def stop_controller(self, fl_ctx: Any) -> None:
        """Do nothing: what is to be kept is kept after every round.

        Parameters
        ----------
        fl_ctx : FLContext
            FLARE's context.
        """

    def control_flow(self, abort_signal: Any, fl_ctx: Any) -> None:
        """Run the plan, from the checkpoint if there is one.

        Parameters
        ----------
        abort_signal : Signal
            Set when the operator stops the run.
        fl_ctx : FLContext
            FLARE's context; names the kit.

        Raises
        ------
        FederationError
            If the plan is not the one submitted, or the run cannot go on; FLARE then says that the job failed.
        """
        from pathoml.federated.coordinator import run_evaluation, run_federation
        from pathoml.federated.method_settings import EvaluationSettings
        from pathoml.federated.plan import Plan

        plan = Plan.model_validate_json(self._text)
        if plan.digest != self._digest:
            raise FederationError(f"plan: its hash is {plan.digest[:12]}, not {self._digest[:12]} as was submitted")
        output = read_kit(Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT))).output_of(plan.digest)
        self._exchange = FlareTransport(self, plan, fl_ctx, abort_signal)
        with _sole_writer(output):
            try:
                if isinstance(plan.method, EvaluationSettings):
                    files = read_package_files(Path(fl_ctx.get_prop(FLContextKey.APP_ROOT)) / PACKAGE)
                    run_evaluation(plan, files, self._exchange, output)
                else:
                    run_federation(plan, self._exchange, output)
            except _StoppedError:
                _log.warning("stopped by the operator; `pathoml federate resume` goes on after the last whole round")

    def process_result_of_unknown_task(
        self, client: Any, task_name: str, client_task_id: str, result: Any, fl_ctx: Any
    ) -> None:
        """Drop an answer that came too late.

        Parameters
        ----------
        client : Client
            Whose.
        task_name : str
            Always the same.
        client_task_id : str
            FLARE's number of a task that is over.
        result : Shareable
            The answer.
        fl_ctx : FLContext
            FLARE's context.
        """
        _log.warning("an answer of %s came after its round was over; dropped", client.name)

    def handle_event(self, event_type: str, fl_ctx: Any) -> None:
        """Say how far the run is, when the operator asks.

        Parameters
        ----------
        event_type : str
            FLARE's name of what happens.
        fl_ctx : FLContext
            FLARE's context.
        """
        if event_type == InfoCollector.EVENT_TYPE_GET_STATS and self._exchange is not None:
            collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
            if isinstance(collector, GroupInfoCollector):
                collector.set_info(STATS_GROUP, self._exchange.progress())


class FlareTransport:
    """The sites, as far as FLARE reaches them.

    Parameters
    ----------
    controller : CoordinatorController
        Through which FLARE is asked.
    plan : Plan
        Names the sites, and says how long slow ones are waited for.
    fl_ctx : FLContext
        FLARE's context of the run.
    abort_signal : Signal
        Set when the operator stops the run.
    """

    def __init__(self, controller: CoordinatorController, plan: "Plan", fl_ctx: Any, abort_signal: Any) -> None:
        self._controller, self._fl_ctx, self._abort = controller, fl_ctx, abort_signal
        self._sites, self._patience_s = tuple(plan.sites), plan.patience_s
        self._said: dict[str, Any] = {}
        self._refused: dict[str, str] = {}
        self._looked_at = 0.0

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites of the plan."""
        return self._sites

    def exchange(self, request: Message, sites: Sequence[str], quorum: int) -> Mapping[str, bytes]:
        """Ask the sites side by side; wait for all that live, but once a quorum has answered no longer than patience allows.

        Parameters
        ----------
        request : Message
            The same for all.
        sites : sequence of str
            Who is asked.
        quorum : int
            So many answers are enough; where fewer are asked, none has to answer.

        Returns
        -------
        mapping of str to bytes
            Answers by site; those of dead, failed and overly slow sites are absent.
        """
        task = Task(name=TASK, data=enclose(to_bytes(request)))
        # A setup has no round of its own: it goes to who is back, amid the rounds of the others.
        number = self._said.get("round", 0) if request.kind == "setup" else request.round_number
        self._said = {"asked for": request.kind, "round": number, "sites": list(sites), "refused": dict(self._refused)}
        self._controller.broadcast(task, self._fl_ctx, targets=list(sites), min_responses=0)
        try:
            self._wait(task, sites, quorum)
        finally:
            self._controller.cancel_task(task)
        answers = self._answers(task)
        self._note_refusals(answers)
        missing = [name for name in sites if name not in answers]
        if missing:
            _log.warning("%s, round %d: no answer of %s", request.kind, request.round_number, ", ".join(missing))
        return answers

    def progress(self) -> dict[str, Any]:
        """Return what is being waited for, for the operator.

        Returns
        -------
        dict of str to Any
            Plain values.
        """
        return self._said

    def _wait(self, task: Any, sites: Sequence[str], quorum: int) -> None:
        enough_since: float | None = None
        needed = quorum if len(sites) >= quorum else 0
        while task.completion_status is None:
            if self._abort.triggered:
                raise _StoppedError("stopped by the operator")
            answered = {one.client.name for one in list(task.client_tasks) if one.result_received_time is not None}
            self._said["answered"] = sorted(answered)
            missing = set(sites) - answered
            if not missing:
                return
            self._take_up_rejoined()
            if len(answered) >= needed:
                enough_since = time.monotonic() if enough_since is None else enough_since
                dead = all(self._controller.get_client_disconnect_time(name) is not None for name in missing)
                if dead or time.monotonic() - enough_since > self._patience_s:
                    return
            time.sleep(_LOOKS_EVERY_S)

    def _note_refusals(self, answers: Mapping[str, bytes]) -> None:
        """Remember for the operator who says no; whether an answer can be used at all is judged elsewhere."""
        for name, content in answers.items():
            self._refused.pop(name, None)
            try:
                code = from_bytes(content).code
            except FederationError:
                code = "not a message"
            if code:
                self._refused[name] = code if code in tuple(RefusalCode) else "an unknown word"
        self._said["refused"] = dict(self._refused)

    def _take_up_rejoined(self) -> None:
        """Ask now and then who takes part by now: a site that was restarted comes under a new token."""
        if time.monotonic() - self._looked_at >= _ASKS_WHO_IS_HERE_EVERY_S:
            self._looked_at = time.monotonic()
            self._fl_ctx.get_engine().sync_clients_from_main_process()

    @staticmethod
    def _answers(task: Any) -> dict[str, bytes]:
        answers = {}
        for one in task.client_tasks:
            content = content_of(one.result)
            if content is not None:
                answers[str(one.client.name)] = content
        return answers


class _StoppedError(FederationError):
    """The operator stops the run."""


@contextmanager
def _sole_writer(output: Path) -> Iterator[None]:
    """Hold the output for this process alone; the system lets go of it when the process ends, however it ends."""
    make_folder(output)
    with (output / ".lock").open("w", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("%s: another run is still at work there; waiting for its end", output)
                time.sleep(1.0)
            else:
                break
        yield
