"""Sites that come late or come back take part in the run that is under way; FLARE by itself starts a job at a site only once.

A site's failure is also kept from being the run's: FLARE ends a job for all when the process of one site dies of an error.
"""

import json
import logging
import threading
import time
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import AdminCommandNames, RunProcessKey
from nvflare.apis.job_scheduler_spec import DispatchInfo
from nvflare.private.admin_defs import Message, MsgHeader, ReturnCode
from nvflare.private.defs import ClientStatusKey, RequestHeader, TrainingTopic
from nvflare.private.fed.utils.fed_utils import set_message_security_data

_log = logging.getLogger(__name__)
_LOOKS_EVERY_S = 3.0
_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 600.0
"""Between two starts at one site; twice as long each time: what fails at once there would fail again."""
_GONE_FOR_S = 10.0
"""A site seems to have lost the job for a moment when the run ends: so long it must seem so."""
_ANSWERS_WITHIN_S = 10.0
_SIGN_OF_LIFE_S = 15.0
"""Sites give one every ten seconds."""


class Rejoining(FLComponent):  # type: ignore[misc] # nvflare has no types
    """Part of the coordinator's main process: looks every few seconds which sites of the running job are there without it."""

    def __init__(self) -> None:
        super().__init__()
        self._next_start: dict[tuple[str, str], float] = {}
        self._pauses_s: dict[tuple[str, str], float] = {}
        self._gone_since: dict[tuple[str, str], float] = {}
        self._stopping = threading.Event()

    def handle_event(self, event_type: str, fl_ctx: Any) -> None:
        """Begin and end with the server.

        Parameters
        ----------
        event_type : str
            FLARE's name of what happens.
        fl_ctx : FLContext
            FLARE's context.
        """
        if event_type == EventType.SYSTEM_START:
            engine = fl_ctx.get_engine()
            # Else FLARE goes on calling the jobs of a killed server running.
            engine.job_runner.update_abnormal_finished_jobs([], fl_ctx)
            threading.Thread(target=self._watch, args=(engine,), daemon=True).start()
        elif event_type == EventType.SYSTEM_END:
            self._stopping.set()

    def _watch(self, engine: Any) -> None:
        while not self._stopping.wait(_LOOKS_EVERY_S):
            for job_id in list(engine.job_runner.running_jobs):
                try:
                    self._look(engine, job_id)
                except Exception:  # noqa: BLE001 - FLARE's server: what fails once is tried again soon
                    _log.exception("job %s: looking for sites that came back failed; trying again", job_id)

    def _look(self, engine: Any, job_id: str) -> None:
        job = engine.job_runner.running_jobs.get(job_id)
        process = engine.run_processes.get(job_id)
        if job is None or process is None or process.get(RunProcessKey.PROCESS_FINISHED):
            return
        for site in _sites_of(job):
            engine.job_runner.resolve_client_outcome(job_id, site)
        for client in engine.get_clients():
            lives = time.time() - client.last_connect_time < _SIGN_OF_LIFE_S
            if lives and client.name in _sites_of(job) and self._is_gone(engine, client, job_id):
                self._put_off(job_id, client.name)
                _start(engine, job, client, process)

    def _is_gone(self, engine: Any, client: Any, job_id: str) -> bool:
        """Tell whether the job runs no longer, or not yet, at a site that is there."""
        key, now = (job_id, client.name), time.monotonic()
        if _works_on(engine, client, job_id):
            self._gone_since.pop(key, None)
            return False
        since = self._gone_since.setdefault(key, now)
        return now - since >= _GONE_FOR_S and now >= self._next_start.get(key, now)

    def _put_off(self, job_id: str, site: str) -> None:
        key = (job_id, site)
        pause_s = self._pauses_s.get(key, _PAUSE_S)
        self._next_start[key] = time.monotonic() + pause_s
        self._pauses_s[key] = min(2 * pause_s, _LONGEST_PAUSE_S)


def _sites_of(job: Any) -> set[str]:
    return {site for sites in job.get_deployment().values() for site in sites if site != "server"}


def _works_on(engine: Any, client: Any, job_id: str) -> bool:
    """Ask a site whether the job runs there; one that does not answer is left in peace."""
    reply = _ask(engine, client, Message(topic=TrainingTopic.CHECK_STATUS, body=""))
    if reply is None:
        return True
    jobs = json.loads(reply.body).get(ClientStatusKey.RUNNING_JOBS, [])
    return any(one.get(ClientStatusKey.JOB_ID) == job_id for one in jobs)


def _start(engine: Any, job: Any, client: Any, process: Any) -> None:
    """Give a site the job and start it there, as FLARE did for those that were there from the beginning."""
    with engine.new_context() as context:
        app = job.get_application_name(client.name)
        deploy = Message(topic=TrainingTopic.DEPLOY, body=job.get_application(app, context))
        deploy.set_header(RequestHeader.REQUIRE_AUTHZ, "true")
        deploy.set_header(RequestHeader.ADMIN_COMMAND, AdminCommandNames.SUBMIT_JOB)
        deploy.set_header(RequestHeader.JOB_ID, job.job_id)
        deploy.set_header(RequestHeader.APP_NAME, app)
        set_message_security_data(deploy, job, context)
        reply = _ask(engine, client, deploy)
        if reply is None or reply.get_header(MsgHeader.RETURN_CODE, ReturnCode.OK) != ReturnCode.OK:
            _log.warning(
                "%s: could not be given the job: %s", client.name, "no answer" if reply is None else reply.body
            )
            return
        enough, token = engine.check_client_resources(job, {client.name: {}}, context).get(client.name, (False, ""))
        if not enough:
            _log.warning("%s: has no room for the job now", client.name)
            return
        members = process[RunProcessKey.PARTICIPANTS]
        others = {key: one for key, one in members.items() if one.name != client.name}
        process[RunProcessKey.PARTICIPANTS] = {**others, client.token: client}
        engine.start_client_job(job, {client.name: DispatchInfo(app, {}, token)}, context)
    _log.warning("%s: takes part again", client.name)


def _ask(engine: Any, client: Any, message: Any) -> Any:
    replies = engine.server.admin_server.send_requests_and_get_reply_dict(
        {client.token: message}, timeout_secs=_ANSWERS_WITHIN_S
    )
    return replies.get(client.token)
