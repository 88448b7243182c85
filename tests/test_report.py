"""The page: needs nothing else, says what it must, lets nothing through."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pathoml.report import Page, write_report

CURVE = {"patients": 10, "events": 4, "days": [100.0, 200.0], "survival": [0.8, 0.5], "at_risk": [10, 7]}
EMPTY = {"patients": 0, "events": 0, "days": [], "survival": [], "at_risk": [0, 0]}
EVIL = "<script>alert('x')</script> & \"quoted\""


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "folds": 0 if value is None else 5}


def scheme(difference: dict[str, Any] | None = None, low_group: dict[str, Any] = CURVE) -> dict[str, Any]:
    metrics = {
        "concordance": estimate(0.71, 0.66, 0.76),
        "auc_365d": estimate(None),
        "integrated_brier": estimate(0.18, 0.1, 0.2),
    }
    groups = {
        "cutoff": "",
        "log_rank": 4.2,
        "p_value": 0.04,
        "at_risk_days": [0.0, 365.25],
        "curves": {"low": low_group, "high": CURVE},
    }
    return {
        "metrics": {"model": metrics, "clinical": metrics},
        "differences": {"model - clinical": {**metrics, "concordance": difference or estimate(0.02, -0.01, 0.05)}},
        "folds": [
            {"fold": "Hospital 05", "patients": 20, "events": 8, "concordance": {"model": 0.71, "clinical": None}}
        ],
        "groups": {"model": groups, "clinical": groups},
    }


def page(**changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": "Study", "endpoint": "overall survival", "facts": [("Patients", "100")], "warnings": [],
        "evaluation": {"condition": "intervals: 95 %", "schemes": {"kfold": scheme()}},
        "heatmaps": [], "provenance": [("Configuration", "abc")], "settings": "name: study",
    }  # fmt: skip
    return Page(**{**values, **changes})


def write(folder: Path, **changes: Any) -> str:
    write_report(folder / "report.html", page(**changes))
    return (folder / "report.html").read_text(encoding="utf-8")


def evaluation(**changes: Any) -> dict[str, Any]:
    return {"condition": "", "schemes": {"kfold": scheme(**changes)}}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (200, 30, 90)).save(tmp_path / "map.png")
    return tmp_path / "map.png"


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path, picture: Path) -> None:
    text = write(tmp_path, heatmaps=[("slide s1", picture)])
    assert not re.search(r"<(script|link|iframe|object|embed|base)\b", text, re.IGNORECASE)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text, re.IGNORECASE)
    loads = re.findall(r"\b(?:src|href|xlink:href|data|action|poster|srcset)\s*=\s*\"([^\"]*)\"", text)
    assert loads
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in loads)


def test_the_page_says_research_use_only_and_not_a_device(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "Research use only" in text
    assert "Not a medical device" in text


def test_a_heatmap_is_inside_the_page_with_its_caption(tmp_path: Path, picture: Path) -> None:
    text = write(tmp_path, heatmaps=[("slide s1 & friends", picture)])
    assert "data:image/jpeg;base64,/9j/" in text
    assert "<figcaption>slide s1 &amp; friends</figcaption>" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"title": EVIL},
        {"endpoint": EVIL},
        {"facts": [(EVIL, EVIL)]},
        {"warnings": [EVIL]},
        {"provenance": [("x", EVIL)]},
        {"settings": f"</pre>{EVIL}"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_names_from_outside_are_escaped(tmp_path: Path, changes: dict[str, Any]) -> None:
    text = write(tmp_path, **changes)
    assert "<script" not in text
    assert "alert" in html.unescape(text)


def test_a_hospitals_name_is_escaped(tmp_path: Path) -> None:
    one = scheme()
    one["folds"][0]["fold"] = EVIL
    text = write(tmp_path, evaluation={"condition": "", "schemes": {"leave_one_site_out": one}})
    assert "<script" not in text
    assert html.escape(EVIL, quote=False).split("'")[0] in text


def test_a_caption_cannot_leave_its_attribute(tmp_path: Path, picture: Path) -> None:
    text = write(tmp_path, heatmaps=[('x" onerror="alert(1)', picture)])
    assert 'onerror="alert' not in text


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (
            estimate(0.05, 0.01, 0.09),
            "0.050 (0.010 to 0.090). The interval excludes 0: on these patients the model ranks better.",
        ),
        (estimate(-0.05, -0.09, -0.01), "The interval excludes 0: on these patients the clinical model ranks better."),
        (
            estimate(0.02, -0.01, 0.05),
            "The interval includes 0: these patients do not show that the model ranks better.",
        ),
        (estimate(0.02, 0.0, 0.05), "The interval includes 0"),
        (estimate(None), "The difference in concordance cannot be computed."),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(tmp_path: Path, difference: dict[str, Any], sentence: str) -> None:
    assert sentence in write(tmp_path, evaluation=evaluation(difference=difference))


def test_numbers_stand_with_their_intervals_and_undefined_ones_say_so(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "0.710 (0.660 to 0.760)" in text
    assert re.search(r"AUC at 365 days, higher is better</td><td class=\"number\">not defined", text)
    assert re.search(r"Hospital 05</td>.*0\.710</td><td class=\"number\">not defined", text)


def test_every_scheme_has_its_own_part(tmp_path: Path) -> None:
    schemes = {"kfold": scheme(), "leave_one_site_out": scheme(), "fixed": scheme()}
    text = write(tmp_path, evaluation={"condition": "", "schemes": schemes})
    for title in ("Cross-validation", "Leaving one hospital out", "Given folds"):
        assert f"<h2>{title}</h2>" in text


def test_curves_start_at_one_and_name_both_groups_with_their_numbers(tmp_path: Path) -> None:
    text = write(tmp_path)
    for group in ("low", "high"):
        assert f"{group} risk: 4 events in 10 patients" in text
    assert "log-rank p = 0.04" in text


def test_patients_still_at_risk_stand_below_the_curves(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "at risk" in text
    assert re.findall(r">(10|7)</text>", text).count("7") == 4  # two groups, two models


def test_an_empty_risk_group_is_no_error(tmp_path: Path) -> None:
    assert "low risk: 0 events in 0 patients" in write(tmp_path, evaluation=evaluation(low_group=EMPTY))


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path) == write(tmp_path)


def test_dollars_in_the_endpoint_are_no_formula(tmp_path: Path) -> None:
    endpoint = "cost $\\x$"
    assert endpoint in html.unescape(write(tmp_path, endpoint=endpoint))
