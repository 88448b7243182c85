"""Starting the viewer: one port of this machine, until it is interrupted."""

import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvicorn

from pathoml.errors import InputError
from pathoml.viewer.app import build_app
from pathoml.viewer.library import Library

DEFAULT_PORT = 8765
_HOST = "127.0.0.1"


def serve(
    library: Library, *, port: int | None = None, cache: Path | None = None, on_start: Callable[[int, str], None]
) -> None:
    """Show a library until interrupted.

    Parameters
    ----------
    library : Library
        What is shown.
    port : int, optional
        Of 127.0.0.1; by default 8765, or another one if that is taken.
    cache : Path, optional
        Folder that keeps overviews of slides that store none; by default a temporary one, removed at the end.
    on_start : callable
        Told the port and the address to open, token included.

    Raises
    ------
    InputError
        If the port asked for is taken.
    """
    with tempfile.TemporaryDirectory(prefix="pathoml-view-") as temporary, _listening(port) as listener:
        token = secrets.token_urlsafe(24)
        taken = listener.getsockname()[1]
        app = build_app(library, cache or Path(temporary), token)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
            lifespan="on", limit_concurrency=128, timeout_keep_alive=30, timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=1 << 15, http="h11",
        )  # fmt: skip
        on_start(taken, f"http://{_HOST}:{taken}/?token={token}")
        uvicorn.Server(config).run(sockets=[listener])


def _listening(port: int | None) -> socket.socket:
    wanted = [port] if port is not None else [DEFAULT_PORT, 0]
    for number in wanted:
        # With the protocol named, asyncio sends without waiting for acknowledgements, which costs 40 ms a tile.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, number))
            listener.listen(128)  # from here on a client waits instead of being turned away
        except OSError as error:
            listener.close()
            if number == wanted[-1]:
                raise InputError(
                    f"port {number} of this machine is taken ({error.strerror}); name another with --port"
                ) from error
        else:
            return listener
    raise AssertionError("every way out of the loop returns or raises")
