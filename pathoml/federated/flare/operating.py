"""What the operator does through the coordinator: submit the run, look at it, stop it, resume it."""

import io
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.flare.jobs import job_name, write_job
from pathoml.federated.flare.kits import Kit, Role, require_flare
from pathoml.federated.flare.policies import STATS_GROUP
from pathoml.files import make_folder
from pathoml.package_files import PackageFiles, read_package_files

_LOGIN_S = 15.0
_LOOKS_EVERY_S = 1.0
_ENDS_WITHIN_S = 60.0
_ENDED = "FINISHED"
_OVER = ("FAILED", "ABANDONED")


@dataclass(frozen=True)
class NetworkStatus:
    """What the coordinator knows.

    Parameters
    ----------
    connected : tuple of str
        Sites that are there now.
    missing : tuple of str
        Sites of the plan that are not.
    run : str
        FLARE's word for the state of the newest run of the plan; empty if there was none.
    asked_for : str
        What the sites are asked for now; empty if nothing.
    round_number : int
        Counted from 0; -1 if nothing is asked for.
    answered : tuple of str
        Sites that have answered in this round.
    refused : mapping of str to str
        Code of each site that said no when it was last asked; of a run that is under way.
    trains : bool
        False for the run of an evaluation.
    """

    connected: tuple[str, ...]
    missing: tuple[str, ...]
    run: str = ""
    asked_for: str = ""
    round_number: int = -1
    answered: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    trains: bool = True

    @property
    def is_running(self) -> bool:
        """Whether a run is under way or waits to begin."""
        return bool(self.run) and not _is_over(self.run)

    @property
    def advice(self) -> str:
        """What to do about a run that is over; empty for others."""
        if not self.run or self.is_running:
            return ""
        if self.run.endswith("COMPLETED"):
            return "`pathoml federate report` of the coordinator's kit makes a page of it"
        again = (
            "`pathoml federate resume` goes on after the last whole round"
            if self.trains
            else "`pathoml federate evaluate` begins anew, and sites that said no will again until what they say is mended"
        )
        return f"`pathoml federate status` of the coordinator's kit says who said no; {again}"


def submit(kit: Kit, *, wait_s: float = 0.0, package: Path | None = None) -> str:
    """Start the run of a kit's plan; a run that was cut off goes on after its last whole round.

    Parameters
    ----------
    kit : Kit
        The operator's.
    wait_s : float, optional
        How long to wait until a quorum of sites is there.
    package : Path, optional
        Folder of the package that the sites of an evaluation score.

    Returns
    -------
    str
        FLARE's number of the job.

    Raises
    ------
    ConfigError
        If a run of the plan is under way, or a package is missing or given to a plan that trains.
    FederationError
        If too few sites are there.
    """
    plan = _plan_of(kit)
    files = _package_for(plan, package)
    jobs = kit.folder / "jobs"
    make_folder(jobs)
    job = write_job(plan, jobs, files)
    with _session(kit) as session:
        _wait_for_quorum(session, plan.sites, plan.quorum, wait_s)
        newest = _newest(session, plan.digest)
        if newest is not None and not _is_over(newest["status"]):
            raise ConfigError(
                f"plan {plan.digest[:12]}: a run is under way ({newest['status']}); `pathoml federate status` shows how far it is"
            )
        return str(session.submit_job(str(job)))


def resume(kit: Kit, *, wait_s: float = 0.0) -> str:
    """Go on with the run after the coordinator was killed.

    Parameters
    ----------
    kit : Kit
        The operator's.
    wait_s : float, optional
        As for `submit`.

    Returns
    -------
    str
        FLARE's number of the new job; what FLARE still takes for running is ended first.
    """
    stop_run(kit)
    return submit(kit, wait_s=wait_s)


def stop_run(kit: Kit) -> bool:
    """Stop the run of a kit's plan.

    Parameters
    ----------
    kit : Kit
        The operator's.

    Returns
    -------
    bool
        False if none was under way.
    """
    plan = _plan_of(kit)
    with _session(kit) as session:
        left = _under_way(session, plan.digest)
        for job_id in left:
            _abort(session, job_id)
        until = time.monotonic() + _ENDS_WITHIN_S
        while _under_way(session, plan.digest):
            if time.monotonic() > until:
                raise FederationError(
                    f"the run does not end within {_ENDS_WITHIN_S:.0f} s; stop and start the coordinator"
                )
            time.sleep(_LOOKS_EVERY_S)
    return bool(left)


def status_of(kit: Kit) -> NetworkStatus:
    """Ask the coordinator how the network is.

    Parameters
    ----------
    kit : Kit
        The operator's or the observer's.

    Returns
    -------
    NetworkStatus
        Sites and the newest run of the plan.
    """
    plan = _plan_of(kit, Role.OPERATOR, Role.OBSERVER)
    with _session(kit) as session:
        here = _connected(session)
        connected = tuple(site for site in plan.sites if site in here)
        missing = tuple(site for site in plan.sites if site not in here)
        newest = _newest(session, plan.digest)
        if newest is None:
            return NetworkStatus(connected, missing)
        said = _progress(session, newest["job_id"]) if newest["status"] == "RUNNING" else {}
        return NetworkStatus(
            connected, missing, str(newest["status"]), str(said.get("asked for", "")), int(said.get("round", -1)),
            tuple(said.get("answered", ())), dict(said.get("refused", {})), plan.method.kind != "evaluation",
        )  # fmt: skip


@contextmanager
def _session(kit: Kit) -> Iterator[Any]:
    """Log in at the coordinator; what FLARE says when it cannot is put into words."""
    require_flare()
    from nvflare.apis.fl_exception import FLCommunicationError
    from nvflare.fuel.flare_api.api_spec import AuthenticationError, AuthorizationError, InternalError, NoConnection
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    level = logging.getLogger("nvflare").level
    logging.getLogger("nvflare").setLevel(
        logging.CRITICAL
    )  # it warns of every attempt; what came of them is said below
    try:
        with redirect_stdout(io.StringIO()):
            session = new_secure_session(kit.name, str(kit.folder), timeout=_LOGIN_S)
    except (NoConnection, FLCommunicationError) as error:
        raise FederationError(
            f"the coordinator cannot be reached ({error}); does it run, and is its port open to this machine?"
        ) from error
    except AuthenticationError as error:
        raise FederationError(f"the coordinator does not accept the certificate of {kit.folder} ({error})") from error
    try:
        yield session
    except (AuthorizationError, InternalError, NoConnection) as error:
        raise FederationError(f"the coordinator says no: {error}") from error
    finally:
        session.close()
        logging.getLogger("nvflare").setLevel(level)


def _plan_of(kit: Kit, *roles: Role) -> Any:
    from pathoml.federated.plan import read_plan

    if kit.role not in (roles or (Role.OPERATOR,)):
        raise ConfigError(
            f"{kit.folder}: the kit of the {kit.role}; runs are started with the operator's, and watched with the observer's too"
        )
    plan = read_plan(kit.plan_path)
    if plan.digest != kit.plan:
        raise ConfigError(
            f"{kit.plan_path}: hash {plan.digest[:12]}, but the kit was made for {kit.plan[:12]}; a changed plan needs "
            "approval and kits of its own: `pathoml federate provision --authority`"
        )
    return plan


def _package_for(plan: Any, folder: Path | None) -> PackageFiles | None:
    """Read the package of an evaluation, and hold it against the plan before anything is sent."""
    from pathoml.federated.coordinator import require_package

    if folder is None:
        if plan.method.kind == "evaluation":
            raise ConfigError(
                f"plan {plan.name} trains nothing: `pathoml federate evaluate KIT PACKAGE` has its package scored"
            )
        return None
    files = read_package_files(folder)
    require_package(plan, files)
    return files


def _connected(session: Any) -> set[str]:
    return {client.name for client in session.get_system_info().client_info}


def _wait_for_quorum(session: Any, sites: Sequence[str], quorum: int, wait_s: float) -> None:
    """Wait for all sites as long as allowed, and begin without the missing only with a quorum."""
    until = time.monotonic() + wait_s
    while len(here := _connected(session).intersection(sites)) < len(sites) and time.monotonic() < until:
        time.sleep(_LOOKS_EVERY_S)
    if len(here) < quorum:
        missing = ", ".join(site for site in sites if site not in here)
        raise FederationError(f"{len(here)} of {quorum} sites needed are there; missing: {missing}")


def _jobs(session: Any, plan_digest: str) -> list[dict[str, Any]]:
    """Return FLARE's jobs of a plan, newest first."""
    return list(session.list_jobs(name_prefix=job_name(plan_digest), reverse=True))


def _newest(session: Any, plan_digest: str) -> dict[str, Any] | None:
    jobs = _jobs(session, plan_digest)
    return jobs[0] if jobs else None


def _under_way(session: Any, plan_digest: str) -> list[str]:
    """Return numbers of jobs of a plan that are not over."""
    return [str(job["job_id"]) for job in _jobs(session, plan_digest) if not _is_over(job["status"])]


def _abort(session: Any, job_id: str) -> None:
    from nvflare.fuel.flare_api.api_spec import JobNotRunning

    try:
        session.abort_job(job_id)
    except JobNotRunning:
        return  # ended by itself a moment ago


def _progress(session: Any, job_id: str) -> dict[str, Any]:
    from nvflare.fuel.flare_api.api_spec import JobNotFound, JobNotRunning

    try:
        said = session.show_stats(job_id, "server")
    except (JobNotFound, JobNotRunning):
        return {}  # it is only beginning, or ended a moment ago
    return next((stats[STATS_GROUP] for stats in said.values() if isinstance(stats, dict) and STATS_GROUP in stats), {})


def _is_over(status: str) -> bool:
    return any(word in status for word in (_ENDED, *_OVER))
