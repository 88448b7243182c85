"""Make the pictures of README and docs: `python scripts/pictures.py pathoml-demo docs/pictures` after `pathoml demo`.

Needs the extra `dev` and Chromium.
"""

import argparse
import json
import shutil
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from pathoml.errors import InputError
from pathoml.pipeline.viewing import open_library
from pathoml.viewer.serving import serve

SIZES = {"wide": (1440, 900), "narrow": (720, 1000)}


def start_viewer(run: Path) -> str:
    """Start the viewer in a thread that ends with this script, and return its address."""
    started: list[str] = []
    ready = threading.Event()

    def on_start(port: int, address: str) -> None:
        started.append(address)
        ready.set()

    threading.Thread(target=lambda: serve(open_library(run), port=None, on_start=on_start), daemon=True).start()
    ready.wait()
    return started[0]


def take_pictures(page: Page, address: str, folder: Path, size: str) -> None:
    page.goto(address)
    page.wait_for_selector("tbody tr")
    page.wait_for_load_state("networkidle")
    picture = {"type": "jpeg", "quality": 82}
    page.screenshot(path=folder / f"viewer_list_{size}.jpg", **picture)
    page.locator("tbody tr").first.click()
    page.wait_for_selector("#tiles img")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(600)
    page.screenshot(path=folder / f"viewer_slide_{size}.jpg", **picture)
    page.keyboard.press("n")
    page.wait_for_timeout(1200)
    page.screenshot(path=folder / f"viewer_tile_{size}.jpg", **picture)


def take_report(page: Page, report: Path, folder: Path, size: str) -> None:
    page.goto(report.absolute().as_uri())
    for name, heading in (("head", "h1"), ("measures", "h2[id^=scheme]"), ("groups", "h3:has-text('Risk groups')")):
        page.locator(heading).first.evaluate(
            "one => window.scrollTo(0, one.getBoundingClientRect().top + scrollY - 20)"
        )
        page.screenshot(path=folder / f"report_{name}_{size}.jpg", type="jpeg", quality=82)


def take_heatmap(run: Path, folder: Path) -> None:
    """Copy the contribution map of the slide with the highest risk, in few colours."""
    maps = json.loads((run / "heatmaps" / "index.json").read_text(encoding="utf-8"))["maps"]
    name = next(name for _, name in maps if name.endswith("_contribution.png"))
    with Image.open(run / "heatmaps" / name) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
            folder / "heatmap.png", optimize=True
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    browser_path = shutil.which("chromium")
    if browser_path is None:
        print("no chromium on this machine; install it (apt-get install chromium)", file=sys.stderr)
        return 2
    try:
        address = start_viewer(options.demo / "run")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("console", lambda message: print(message.text, file=sys.stderr))
            page.on("pageerror", lambda error: print(error, file=sys.stderr))
            take_pictures(page, address, options.folder, size)
            take_report(page, options.demo / "run" / "report.html", options.folder, size)
            page.close()
        browser.close()
    take_heatmap(options.demo / "run", options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
