"""Speed and memory of the viewer: first view, tiles with two clients panning, and a list of 5,000 slides.

The slide is drawn here, 30,000 x 24,000 px. `--minutes 10` for the full watch over memory. First view and list are timed twice:
what the server takes, and what Chromium takes until the page shows it (left out, and said so, where there is none).
"""

import argparse
import http.client
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathoml.testing.pyramid import write_pyramid

SIDE = (30_000, 24_000)
SLIDES_IN_LIST = 5_000
_PATIENCE_S = 30
SERVER = """
import sys
from pathlib import Path
from pathoml.viewer.serving import serve
from pathoml.pipeline.viewing import open_library
serve(open_library(Path(sys.argv[1])), port=None, on_start=lambda port, address: print(port, address, flush=True))
"""


@dataclass(frozen=True)
class Server:
    """The viewer in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    token: str

    @property
    def address(self) -> str:
        """What a browser is given."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that stays open, as a browser's does."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        """Ask for one thing and wait for all of it."""
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        return body

    def resident_mb(self) -> float:
        """Return the server's memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def start_server(path: Path) -> Server:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port, _, address = process.stdout.readline().strip().partition(" ")
    return Server(process, int(port), address.partition("token=")[2])


def draw_slides(folder: Path) -> None:
    """Draw one large slide, and a manifest that names it and 5,000 that are links to one small slide."""
    noise = np.random.default_rng(0).integers(0, 255, (SIDE[1] // 40, SIDE[0] // 40, 3), dtype=np.uint8)
    write_pyramid(folder / "large.tif", np.kron(noise, np.ones((40, 40, 1), dtype=np.uint8)), mpp=0.25)
    write_pyramid(folder / "small.tif", np.full((2000, 2500, 3), 220, dtype=np.uint8), mpp=0.5)
    (folder / "many").mkdir()
    rows = ["slide_id,path,patient_id"]
    for number in range(SLIDES_IN_LIST):
        (folder / "many" / f"S{number:05}.tif").symlink_to(folder / "small.tif")
        rows.append(f"S{number:05},many/S{number:05}.tif,P{number // 2:05}")
    (folder / "many.csv").write_text("\n".join(rows))


def pan(server: Server, slide: str, seconds: float, seed: int, times: "multiprocessing.Queue[list[float]]") -> None:
    """Move about as a user does: a screen of 6 x 4 tiles, a step aside or a step in or out, again and again."""
    generator = np.random.default_rng(seed)
    connection = server.connect()
    image = json.loads(server.get(connection, f"/api/slides/{slide}"))["image"]
    taken: list[float] = []
    zoom, place = image["deepest"] - 2, np.array([0.4, 0.4])
    end = time.monotonic() + seconds
    seen: set[tuple[int, int, int]] = set()
    while time.monotonic() < end:
        side = 256 * 2 ** (image["deepest"] - zoom)
        across, down = -(-image["width_px"] // side), -(-image["height_px"] // side)
        left, top = int(place[0] * across), int(place[1] * down)
        for column in range(left, min(left + 6, across)):
            for row in range(top, min(top + 4, down)):
                if (zoom, column, row) in seen:  # the browser has it
                    continue
                seen.add((zoom, column, row))
                began = time.perf_counter()
                server.get(connection, f"/api/slides/{slide}/tiles/{zoom}/{column}/{row}.jpg")
                taken.append(time.perf_counter() - began)
        place = np.clip(place + generator.normal(size=2) * 3 / max(across, down), 0, 0.95)
        if generator.random() < 0.2:
            zoom = int(np.clip(zoom + generator.choice([-1, 1]), 1, image["deepest"]))
        if len(seen) > 2000:
            seen.clear()
        time.sleep(0.15)  # nobody looks at a screen for less
    times.put(taken)


def first_view(server: Server) -> float:
    """Return seconds from asking for a slide to the last tile of a screen of 1,440 x 900, the slide never opened before."""
    connection = server.connect()
    slide = json.loads(server.get(connection, "/api/slides"))["slides"][0]["id"]
    began = time.perf_counter()
    server.get(connection, "/slide")
    for name in (
        "leaflet.js",
        "leaflet.css",
        "style.css",
        "slide.js",
        "common.js",
        "overlay.js",
        "regions.js",
        "survival.js",
    ):
        server.get(connection, f"/static/{name}")
    image = json.loads(server.get(connection, f"/api/slides/{slide}"))["image"]
    zoom = max(0, image["deepest"] - 4)
    side = 256 * 2 ** (image["deepest"] - zoom)
    for column in range(-(-image["width_px"] // side)):
        for row in range(-(-image["height_px"] // side)):
            server.get(connection, f"/api/slides/{slide}/tiles/{zoom}/{column}/{row}.jpg")
    return time.perf_counter() - began


def seconds_in_a_browser(server: Server, mark: str) -> float:
    """Return seconds until Chromium shows the list (``listed``) or the first slide (``first-view``), as the page marks it."""
    from playwright.sync_api import sync_playwright

    slide = json.loads(server.get(server.connect(), "/api/slides"))["slides"][0]["id"]
    page_address = server.address if mark == "listed" else f"http://127.0.0.1:{server.port}/slide?id={slide}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto("about:blank")
        context.request.get(server.address, max_redirects=0)  # the cookie, without the list and its thumbnails
        page.goto(page_address)
        waited = time.monotonic()  # asked again and again: the page's policy lets nothing be evaluated inside it
        while not page.evaluate(f"performance.getEntriesByName('{mark}').length"):
            if time.monotonic() - waited > _PATIENCE_S:
                raise TimeoutError(f"Chromium has not shown {page_address} after {_PATIENCE_S} s")
            page.wait_for_timeout(20)
        taken = float(page.evaluate(f"performance.getEntriesByName('{mark}')[0].startTime"))
        browser.close()
    return taken / 1e3


def measure_in_a_browser(folder: Path) -> dict[str, tuple[float, float]]:
    if shutil.which("chromium") is None:
        print("no chromium on this machine: what its pages take is not measured")
        return {}
    figures = {}
    for path, mark, name, target in (
        ("large.tif", "first-view", "first view in Chromium, s", 1.5),
        ("many.csv", "listed", "list of 5,000 slides in Chromium, s", 1.0),
    ):
        server = start_server(folder / path)
        try:
            figures[name] = (seconds_in_a_browser(server, mark), target)
        finally:
            server.stop()
    return figures


def pan_together(server: Server, slide: str, seconds: float) -> tuple[list[float], list[float]]:
    """Return the times of two clients' tiles, and the server's memory as time went by."""
    times: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    clients = [multiprocessing.Process(target=pan, args=(server, slide, seconds, seed, times)) for seed in (1, 2)]
    for client in clients:
        client.start()
    memory = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(2.0, seconds / 10))
        memory.append(server.resident_mb())
    taken = [one for _ in clients for one in times.get()]
    for client in clients:
        client.join()
    return taken, memory


def measure(folder: Path, minutes: float) -> dict[str, tuple[float, float]]:
    draw_slides(folder)
    server = start_server(folder / "large.tif")
    try:
        view = first_view(server)
        slide = json.loads(server.get(server.connect(), "/api/slides"))["slides"][0]["id"]
        taken, memory = pan_together(server, slide, minutes * 60)
    finally:
        server.stop()
    quarter = max(1, len(memory) // 4)
    began = time.perf_counter()
    listed = start_server(folder / "many.csv")
    try:
        opened = time.perf_counter() - began
        began = time.perf_counter()
        rows = json.loads(listed.get(listed.connect(), "/api/slides"))["slides"]
        listing = time.perf_counter() - began
        assert len(rows) == SLIDES_IN_LIST
    finally:
        listed.stop()
    print(f"{len(taken)} tiles; memory {memory[0]:.0f} to {memory[-1]:.0f} MB; start with 5,000 slides {opened:.2f} s")
    return {
        "first view, s": (view, 1.5),
        "tile, median, ms": (1e3 * float(np.median(taken)), 15),
        "tile, 99th percentile, ms": (1e3 * float(np.quantile(taken, 0.99)), 60),
        "memory, last quarter over second, ratio": (
            float(np.mean(memory[-quarter:]) / np.mean(memory[quarter : 2 * quarter])), 1.05,
        ),
        "list of 5,000 slides, s": (listing, 1.0),
        **measure_in_a_browser(folder),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="of panning")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.minutes)
    result = {}
    for name, (value, target) in figures.items():
        print(f"{name:<45} {value:>9.3f}  (at most {target:g})")
        result[name] = {"value": value, "target": target, "ok": value <= target}
    print(json.dumps(result))
    return 0 if all(one["ok"] for one in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
