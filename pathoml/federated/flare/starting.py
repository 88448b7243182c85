"""Starting a participant, keeping it going, and ending it: by the number of the process, never by a name."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.flare.kits import Kit, Role, require_flare
from pathoml.files import write_json
from pathoml.processes import ProcessIdentity, is_running, this_process

_log = logging.getLogger(__name__)
_PROCESS_FILE = "process.json"
OUTPUT_FILE = "process.log"
_RESTARTS, _WITHIN_S = 5, 300.0
_PAUSE_S = 5.0
_GRACE_S = 15.0
_LOOKS_EVERY_S = 0.2


def run(kit: Kit) -> None:
    """Run a participant until it is stopped; what dies is started again, unless it dies again and again.

    Parameters
    ----------
    kit : Kit
        A coordinator's or a site's.

    Raises
    ------
    ConfigError
        If it runs already, or the kit is the operator's or the observer's.
    FederationError
        If it cannot be kept going.
    """
    _require_process(kit)
    require_flare()
    with _process_file(kit), _stopped_by_signal():
        ends: list[float] = []
        while True:
            code = _run_once(kit)
            ends = [at for at in ends if time.monotonic() - at < _WITHIN_S] + [time.monotonic()]
            if len(ends) > _RESTARTS:
                raise FederationError(
                    f"{kit.name}: ended {len(ends)} times within {_WITHIN_S / 60:.0f} minutes (last exit code {code}); "
                    f"{kit.folder / 'log.txt'} says why"
                )
            _log.warning("%s: ended with exit code %d; starting again in %.0f s", kit.name, code, _PAUSE_S)
            time.sleep(_PAUSE_S)


def run_in_background(kit: Kit) -> int:
    """Start a participant that goes on when the terminal is closed.

    Parameters
    ----------
    kit : Kit
        A coordinator's or a site's.

    Returns
    -------
    int
        Number of its process; `stop` ends it.
    """
    _require_process(kit)
    _refuse_second(kit)
    output = kit.folder / OUTPUT_FILE
    process = _spawn([sys.executable, "-m", "pathoml", "federate", "start", str(kit.folder)], output)
    while running_process(kit) != process:
        if not is_running(process):
            raise FederationError(f"{kit.name}: did not start; {output} says why")
        time.sleep(_LOOKS_EVERY_S)
    return process


def _spawn(command: list[str], output: Path) -> int:
    """Start a process that outlives this one and its terminal; return its number."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.fspath(output), append, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]  # fmt: skip
    return os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)


def running_process(kit: Kit) -> int | None:
    """Return the number of a participant's process.

    Parameters
    ----------
    kit : Kit
        A coordinator's or a site's.

    Returns
    -------
    int or None
        None if it does not run on this machine.
    """
    path = kit.folder / _PROCESS_FILE
    if not path.is_file():
        return None
    process = ProcessIdentity(**json.loads(path.read_text(encoding="utf-8")))
    return process.number if process.has_ended() is False else None


def is_connected(kit: Kit) -> bool | None:
    """Say whether a site's process holds a connection to the coordinator, or to its proxy.

    Parameters
    ----------
    kit : Kit
        A site's.

    Returns
    -------
    bool or None
        False where it does not run, or the coordinator does not; None where this account may not know.
    """
    import psutil

    process = running_process(kit)
    if process is None:
        return False
    connections = []
    try:
        for one in (psutil.Process(process), *psutil.Process(process).children(recursive=True)):
            connections += one.net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False  # it is just ending, or one of its jobs is: the next look tells
    except psutil.AccessDenied:
        return None
    listening = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    return any(
        one.status == psutil.CONN_ESTABLISHED and one.raddr.port not in listening and one.laddr.port not in listening
        for one in connections
    )


def stop(kit: Kit) -> bool:
    """End a participant's process and those that it started.

    Parameters
    ----------
    kit : Kit
        A coordinator's or a site's.

    Returns
    -------
    bool
        False if it did not run.

    Raises
    ------
    FederationError
        If it does not end.
    """
    process = running_process(kit)
    if process is None:
        return False
    os.kill(process, signal.SIGTERM)
    until = time.monotonic() + 2 * _GRACE_S
    while running_process(kit) == process:
        if time.monotonic() > until:
            raise FederationError(f"{kit.name}: process {process} does not end; end it with `kill -9 {process}`")
        time.sleep(_LOOKS_EVERY_S)
    return True


def _require_process(kit: Kit) -> None:
    if not kit.runs:
        does = "starts the run" if kit.role is Role.OPERATOR else "watches the run (`pathoml federate status`)"
        raise ConfigError(f"{kit.folder}: the {kit.role}'s kit {does}, not a process")
    side = "server" if kit.role is Role.COORDINATOR else "client"
    for name in (f"{side}.crt", f"{side}.key", "rootCA.pem"):
        path = kit.folder / "startup" / name
        if not os.access(path, os.R_OK):
            raise ConfigError(
                f"{path}: is not there or cannot be read by this account; without it nobody lets {kit.name} in: unpack the "
                "kit again, whole, as the account that starts it"
            )


def _refuse_second(kit: Kit) -> None:
    process = running_process(kit)
    if process is not None:
        raise ConfigError(
            f"{kit.name}: runs already as process {process}; `pathoml federate stop {kit.folder}` ends it"
        )


@contextmanager
def _process_file(kit: Kit) -> Iterator[None]:
    _refuse_second(kit)
    path = kit.folder / _PROCESS_FILE
    write_json(path, asdict(this_process()))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """Turn SIGTERM into the end of `run`, as Ctrl-C is."""

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except KeyboardInterrupt:
        _log.warning("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)


def _command(kit: Kit) -> list[str]:
    return [sys.executable, "-u", "-m", "pathoml.federated.flare.participant", str(kit.folder), str(os.getpid())]


def _run_once(kit: Kit) -> int:
    process = subprocess.Popen(_command(kit), stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait()
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End FLARE's process; those of its jobs end with it (see `SiteExecutor` and `CoordinatorController`)."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
