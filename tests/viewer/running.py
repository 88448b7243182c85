"""A viewer at work in a thread of the test, and a client that says exactly what it is told to."""

import http.client
import json
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from pathoml.viewer.app import build_app
from pathoml.viewer.library import Library

TOKEN = "a-token-for-tests"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class RunningViewer:
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def ask(self, path: str, *, method: str = "GET", token: str | None = TOKEN, **headers: str) -> Answer:
        """Send one request; headers are named with underscores, and the path goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        if token is not None:
            connection.putheader("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        if found.get("content-encoding") == "deflate":
            body = zlib.decompress(body)
        return Answer(response.status, found, body)

    def slide_ids(self) -> list[str]:
        return [row["id"] for row in self.ask("/api/slides").json["slides"]]


class _Relay(socketserver.BaseRequestHandler):
    """Carries bytes both ways, as the near end of an SSH tunnel does."""

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.far_port)) as far:
            back = threading.Thread(target=_carry, args=(far, self.request))
            back.start()
            _carry(self.request, far)
            back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while block := source.recv(1 << 16):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other end is gone, and so is the connection
        return


@contextmanager
def tunnel_to(viewer: RunningViewer) -> Iterator[RunningViewer]:
    """Give the same viewer at another port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Relay) as near:
        near.daemon_threads, near.block_on_close = True, False
        near.far_port = viewer.port
        threading.Thread(target=near.serve_forever, daemon=True).start()
        yield RunningViewer(near.server_address[1])
        near.shutdown()


@contextmanager
def running_viewer(library: Library, cache: Path) -> Iterator[RunningViewer]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(build_app(library, cache, TOKEN), log_level="warning", lifespan="on", ws="none", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield RunningViewer(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
