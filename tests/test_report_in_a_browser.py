"""The page as a reader sees it, in Chromium at two widths: the checklist of docs/report.md, as far as a machine can judge."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pathoml.baseline_settings import BASELINE_TITLES
from pathoml.leakage import CHECKS, LeakageReport
from pathoml.report import write_report
from tests.test_report import FLOW, estimate, evaluation, page

pytestmark = [pytest.mark.xdist_group("report_browser"), pytest.mark.filterwarnings("ignore::ResourceWarning")]

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install 'pathoml[dev]')")
WIDTHS = {"laptop": (1440, 900), "narrow": (720, 1000)}

TEXTS = """
() => [...document.querySelectorAll('svg')].map((svg, number) => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].filter(one => one.textContent.trim())
    .map(one => ({text: one.textContent.trim(), box: one.getBoundingClientRect()}));
  const out = texts.filter(({box}) => box.left < frame.left - 1 || box.right > frame.right + 1
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(one => one.text);
  const over = [];
  texts.forEach((one, place) => texts.slice(place + 1).forEach(other => {
    const wide = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
    const high = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
    if (wide > -2 && high > 3) over.push(`${one.text} | ${other.text}`);
  }));
  return {figure: number, name: svg.getAttribute('aria-label').slice(0, 60), out, over};
}).filter(one => one.out.length || one.over.length)
"""
CUT = """
() => [...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => `${one.getAttribute('aria-label')}: ${one.scrollWidth} of ${one.clientWidth}`)
"""


def of_every_baseline(judged: dict[str, Any]) -> dict[str, Any]:
    """Give every baseline that there is the numbers of the clinical model: the fullest page."""
    one = judged["schemes"]["kfold"]
    first = next(iter(one["metrics"]))
    for name in BASELINE_TITLES:
        for part in ("metrics", "groups", "calibration", "hazards"):
            one[part][name] = one[part]["clinical"]
        for part in (one["differences"], one["verdicts"], one["repeats"]["differences"]):
            part[f"{first} - {name}"] = part[f"{first} - clinical"]
        for fold in one["folds"]:
            fold["concordance"][name] = fold["concordance"]["clinical"]
        for horizon in one["decisions"]:
            horizon["models"][name] = horizon["models"]["clinical"]
    for differences in one["differences"].values():  # signs and brackets as wide as they come
        for measure in differences:
            differences[measure] = {**differences[measure], "value": -0.123, "low": -0.230, "high": -0.071}
    one["parts"] = {"condition": "95 %", "parts": [
        {"part": name, "patients": 120, "deviation": estimate(0.5, 0.4, 0.6), "part_of_variance": estimate(0.5, 0.4, 0.6)}
        for name in ("slides", "clinical", "omics")
    ]}  # fmt: skip
    return judged


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    full = of_every_baseline(evaluation())
    leaks = LeakageReport((), 127).to_json()
    write_report(path, page(evaluation=full, flow=FLOW, leakage=leaks, methods=["How it was done."] * 3))
    return path


@pytest.fixture(params=list(WIDTHS))
def shown(browser: "sync_api.Browser", report: Path, request: pytest.FixtureRequest) -> Iterator["sync_api.Page"]:
    """The page at a width; what it asks of a network, or says on its console, fails the test."""
    width, height = WIDTHS[request.param]
    opened = browser.new_page(viewport={"width": width, "height": height})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or complaints.append(asked.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert complaints == []


def test_nothing_is_cut_at_the_side(shown: "sync_api.Page") -> None:
    wide, seen = shown.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= seen
    assert shown.evaluate(CUT) == []


def test_no_text_of_a_figure_is_cut_or_lies_on_another(shown: "sync_api.Page") -> None:
    assert shown.evaluate(TEXTS) == []


def test_figures_say_what_they_are_of_and_numbers_agree_with_the_json(shown: "sync_api.Page") -> None:
    captions = shown.locator("figcaption").all_inner_texts()
    assert len(captions) >= 9
    assert all("test patients" in one and "events" in one for one in captions)
    metrics = evaluation()["schemes"]["kfold"]["metrics"]["model"]["concordance"]
    words = f"{metrics['value']:.3f} ({metrics['low']:.3f} to {metrics['high']:.3f})"
    cells = [one.replace("\N{NO-BREAK SPACE}", " ") for one in shown.locator("td").all_inner_texts()]
    assert words in cells
    assert sum(one == "nothing found" for one in cells) == len(CHECKS)


def test_a_printed_page_is_cut_nowhere(browser: "sync_api.Browser", report: Path) -> None:
    opened = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 within usual margins
    opened.emulate_media(media="print")
    opened.goto(report.as_uri())
    cut = json.dumps(opened.evaluate(CUT))
    over = opened.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    opened.close()
    assert (cut, over) == ("[]", 0)


def test_headings_landmarks_and_tables_are_named_for_a_screen_reader(shown: "sync_api.Page") -> None:
    levels = shown.evaluate("() => [...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(second - first <= 1 for first, second in pairwise(levels))
    unnamed = "() => [...document.querySelectorAll('table')].filter(one => !one.querySelector('th[scope]')).length"
    assert shown.evaluate(unnamed) == 0
    assert shown.locator("main").count() == shown.locator("nav[aria-label]").count() == 1
    assert shown.evaluate("() => document.documentElement.lang") == "en"
