"""A whole network on one machine, over TLS: coordinator, operator and sites as the processes that hospitals would run."""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ruamel.yaml import YAML

from pathoml.federated.flare.kits import Kit, Role, join
from pathoml.federated.flare.operating import NetworkStatus, status_of
from pathoml.federated.flare.provisioning import provision
from pathoml.federated.flare.starting import run_in_background, running_process, stop
from pathoml.federated.plan import NetworkSettings, Plan

_LOOKS_EVERY_S = 0.2
_ENDS_WITHIN_S = 30.0
_ASKS_EVERY_S = 2.0
"""How often the coordinator is asked: each time takes a login."""


class LoopbackNetwork:
    """Kits of a plan on this machine; on leaving, every process that was started is ended.

    Parameters
    ----------
    plan : Plan
        What is to be done; its port is replaced by a free one.
    sites : mapping of str to Path
        Name of each site -> its settings file.
    folder : Path
        For the kits; new.
    port : int, optional
        The coordinator's; a free one by default.
    """

    def __init__(self, plan: Plan, sites: Mapping[str, Path], folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.plan = plan.model_copy(update={"network": NetworkSettings(port=port or free_port())})
        folder.mkdir(parents=True)
        plan_path = folder / "plan.yaml"
        with plan_path.open("w", encoding="utf-8") as stream:
            YAML().dump(self.plan.model_dump(mode="json"), stream)
        kits = provision(plan_path, folder / "kits")
        self.coordinator = next(kit for kit in kits if kit.role is Role.COORDINATOR)
        self.operator = next(kit for kit in kits if kit.role is Role.OPERATOR)
        self.sites = {kit.name: kit for kit in kits if kit.role is Role.SITE}
        for name, path in sites.items():
            join(self.sites[name], path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for kit in (*self.sites.values(), self.coordinator):
            stop(kit)
        try:
            wait_until(lambda: not self.processes(), "every process of the network has ended", _ENDS_WITHIN_S)
        finally:
            for process in self.processes():
                os.kill(process, signal.SIGKILL)

    @property
    def output(self) -> Path:
        """Where the coordinator keeps what comes out."""
        return self.coordinator.output_of(self.plan.digest)

    def start(self) -> None:
        """Start the coordinator and the sites, and wait until they have found each other."""
        for kit in (self.coordinator, *self.sites.values()):
            run_in_background(kit)
        wait_until(lambda: not status_of(self.operator).missing, "all sites are connected", 120, _ASKS_EVERY_S)

    def kill(self, kit: Kit) -> None:
        """End a participant as a power cut does, and wait until nothing of it is left.

        Parameters
        ----------
        kit : Kit
            The coordinator's or a site's.
        """
        process = running_process(kit)
        assert process is not None
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: not processes_naming(kit.folder), f"{kit.name} is gone", 30)

    def wait_for_end(self, limit_s: float) -> NetworkStatus:
        """Wait until the run is over.

        Parameters
        ----------
        limit_s : float
            At most so long.

        Returns
        -------
        NetworkStatus
            As it ended.
        """
        wait_until(lambda: not status_of(self.operator).is_running, "the run is over", limit_s, _ASKS_EVERY_S)
        return status_of(self.operator)

    def processes(self) -> list[int]:
        """Return the numbers of all processes of this network that live.

        Returns
        -------
        list of int
            Empty after leaving.
        """
        return processes_naming(self.folder)


def free_port() -> int:
    """Return a port of this machine that nobody uses now.

    Returns
    -------
    int
        Above 1023.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str, limit_s: float, every_s: float = _LOOKS_EVERY_S) -> None:
    """Wait until something holds.

    Parameters
    ----------
    holds : callable
        Says whether it does.
    what : str
        In words, for whoever waits in vain.
    limit_s : float
        At most so long.
    every_s : float, optional
        How often to look.

    Raises
    ------
    TimeoutError
        If it does not hold by then.
    """
    until = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {limit_s:.0f} s in vain until {what}")
        time.sleep(every_s)


def processes_naming(folder: Path) -> list[int]:
    """Return the numbers of living processes that name a folder on their command line.

    Parameters
    ----------
    folder : Path
        Absolute.

    Returns
    -------
    list of int
        In order.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        process = int(path.parent.name)
        if process != os.getpid() and any(word == str(folder) or word.startswith(f"{folder}/") for word in words):
            found.append(process)
    return sorted(found)
