"""A hospital's end of the network: bytes in, bytes out, everything noted, nothing done that was not approved."""

import logging
from collections.abc import Callable
from pathlib import Path

from pathoml.errors import FederationError, PathomlError, RefusalCode, RefusedError, TrainingError
from pathoml.federated.approvals import Approvals
from pathoml.federated.audit import AuditLog
from pathoml.federated.guard import release
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.plan import Plan
from pathoml.federated.session import Session
from pathoml.federated.site_data import SiteData, load_site
from pathoml.federated.site_settings import LimitsSettings, SiteSettings, read_site
from pathoml.federated.workbench import SessionContext

logger = logging.getLogger(__name__)

STATE_FOLDER = "state"
"""Folder, in the site's, with a folder for each plan that it takes part in."""
REFUSED = "refused"
"""Kind of an answer that says no, with a code and nothing else."""


class Site:
    """One site.

    Parameters
    ----------
    folder : Path
        For the audit log and the state of trainings.
    plan_of : callable
        Hash of a plan -> the plan, or `RefusedError`; deployed sites look among those they approved.
    data_for : callable
        Plan -> the site's data.
    limits : LimitsSettings
        What it enforces.
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(
        self, folder: Path, plan_of: Callable[[str], Plan], data_for: Callable[[Plan], SiteData],
        limits: LimitsSettings, device: str = "cpu",
    ) -> None:  # fmt: skip
        self._folder, self._plan_of, self._data_for = folder, plan_of, data_for
        self._limits, self._device = limits, device
        self._log = AuditLog(folder / "audit.jsonl")
        self._sessions: dict[str, Session] = {}

    def answer(self, request: bytes) -> bytes:
        """Do what is asked, or refuse it with a code; what exactly was wrong stays in the site's own log.

        Parameters
        ----------
        request : bytes
            A message.

        Returns
        -------
        bytes
            The answer, as it leaves the site, noted in the audit log before it does.

        Raises
        ------
        OutputError
            If the audit log cannot be written: then nothing leaves.
        """
        asked = Message("unreadable", "")
        why: dict[str, str] = {}
        try:
            asked = from_bytes(request)
            self._log.note("in", asked, request, self._spent(asked.plan))
            answer = self._answer(asked)
        except RefusedError as error:
            why["why"] = str(error)
            answer = Message(REFUSED, asked.plan, asked.round_number, code=error.code.value)
        except PathomlError as error:
            why["why"] = f"{type(error).__name__}: {error}"
            answer = Message(REFUSED, asked.plan, asked.round_number, code=_code_of(error).value)
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:  # not one line of it leaves
            logger.exception("request %s: an error that was not foreseen", asked.kind)
            why["why"] = f"{type(error).__name__}: {error}"
            answer = Message(REFUSED, asked.plan, asked.round_number, code=RefusalCode.BAD_REQUEST.value)
        content = to_bytes(answer)
        if why:
            logger.warning("request %s refused (%s): %s", asked.kind, answer.code, why["why"])
        self._log.note("out", answer, content, {**why, **self._spent(asked.plan)})
        return content

    def _answer(self, request: Message) -> Message:
        plan = self._plan_of(request.plan)
        if request.plan not in self._sessions:
            context = SessionContext(
                self._limits, self._folder / STATE_FOLDER / request.plan[:16], self._device, self._folder / "privacy.json",
                self._log.epsilon_of(request.plan),
            )  # fmt: skip
            self._sessions[request.plan] = Session(plan, self._data_for(plan), context)
        answer, allowed = self._sessions[request.plan].answer(request)
        return release(answer, request, allowed)

    def _spent(self, plan: str) -> dict[str, object]:
        """Return what the log says of privacy: epsilon and delta, or null, which means that there is none."""
        session = self._sessions.get(plan)
        return {} if session is None else {"privacy": None if session.privacy is None else session.privacy.spent}


def open_site(path: Path) -> Site:
    """Open a site by its settings file, as a deployed federation does.

    Parameters
    ----------
    path : Path
        The hospital's YAML file.

    Returns
    -------
    Site
        It answers requests of the plans that were approved there.

    Raises
    ------
    ConfigError
        If the file is wrong.
    FederationError
        If its audit log was altered.
    """
    settings = read_site(path)
    approvals = Approvals(settings.folder)
    return site_of(settings, approvals.plan)


def site_of(settings: SiteSettings, plan_of: Callable[[str], Plan]) -> Site:
    """Open a site by its settings.

    Parameters
    ----------
    settings : SiteSettings
        Where its data lie and what it allows.
    plan_of : callable
        Hash of a plan -> the plan, or `RefusedError`.

    Returns
    -------
    Site
        Its data are read when the first request comes.
    """
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Site(settings.folder, plan_of, lambda plan: load_site(settings, plan), settings.limits, device)


def _code_of(error: PathomlError) -> RefusalCode:
    if isinstance(error, TrainingError):
        return RefusalCode.TRAINING_FAILED
    return RefusalCode.BAD_REQUEST if isinstance(error, FederationError) else RefusalCode.BAD_DATA
