"""The page: needs nothing else, says what it must, lets nothing through."""

import functools
import html
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from pathoml.cohort import FlowStep
from pathoml.evaluate import EvaluateSettings, evaluate
from pathoml.leakage import CHECKS, Finding, LeakageReport
from pathoml.report import Page, write_report
from pathoml.report.drawn import drawn_models
from pathoml.report.words import estimate_words, ratio_words, summary_words, verdict_words
from tests.evaluate.test_measures import background, with_sites
from tests.test_evaluate import predictions

EVIL = "<script>alert('x')</script> & \"quoted\""


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "folds": 0 if value is None else 5}


@functools.cache
def _judged() -> str:
    settings = EvaluateSettings(bootstraps=100, horizons_days=(300.0, 600.0), trial={"simulations": 3})
    given = with_sites(predictions(noise=(0.5, 2.0)))
    judged = evaluate(given, settings, background(features=True))
    judged["schemes"]["kfold"]["permutation"] = {"clinical": PERMUTATION}
    return json.dumps(judged)


PERMUTATION = {
    "permutations": 200, "condition": "refitted", "p_value": 0.0049751, "log_rank_p_value": None,
    "concordance": {"observed": 0.634, "null_low": 0.4, "null_median": 0.5, "null_high": 0.6},
}  # fmt: skip


def scheme(
    difference: dict[str, Any] | None = None, verdict: dict[str, Any] | None = None, values: tuple[float, ...] = (0.02,)
) -> dict[str, Any]:
    one: dict[str, Any] = json.loads(_judged())["schemes"]["kfold"]
    if difference is not None:
        one["differences"]["model - clinical"]["concordance"] = difference
        one["verdicts"]["model - clinical"] = verdict
        one["repeats"]["differences"]["model - clinical"]["values"] = list(values)
    return one


def page(**changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": "Study", "endpoint": "overall survival", "facts": [("Patients", "100")], "warnings": [],
        "evaluation": evaluation(),
        "heatmaps": [], "provenance": [("Configuration", "abc")], "settings": "name: study",
    }  # fmt: skip
    return Page(**{**values, **changes})


def write(folder: Path, **changes: Any) -> str:
    write_report(folder / "report.html", page(**changes))
    return (folder / "report.html").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")


@functools.cache
def plain_page() -> str:
    """The page as it is without changes, drawn once."""
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder))


BARE: dict[str, Any] = {"condition": "95 %", "schemes": {}}
"""An evaluation without anything to draw, for what stands around it."""


def evaluation(**changes: Any) -> dict[str, Any]:
    return {**json.loads(_judged()), "schemes": {"kfold": scheme(**changes)}}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (200, 30, 90)).save(tmp_path / "map.png")
    return tmp_path / "map.png"


SURE, UNREPEATED, UNCONFIRMED, NONE, WORSE, UNKNOWN = (
    {"by_interval": 1, "better": 1, "by_repeats": 1}, {"by_interval": 1, "better": 0, "by_repeats": None},
    {"by_interval": 1, "better": 0, "by_repeats": 0}, {"by_interval": 0, "better": 0, "by_repeats": None},
    {"by_interval": -1, "better": 0, "by_repeats": None}, {"by_interval": None, "better": None, "by_repeats": None},
)  # fmt: skip


def found(concordance: tuple[float, float, float], **verdicts: dict[str, int | None]) -> dict[str, Any]:
    return {
        "metrics": {"model": {"concordance": estimate(*concordance)}},
        "verdicts": {f"model - {other}": verdict for other, verdict in verdicts.items()},
        "differences": {},
    }


GOOD = (0.8, 0.7, 0.9)


@pytest.mark.parametrize(
    ("schemes", "sentences"),
    [
        ([found(GOOD, clinical=SURE, forest=SURE)],
         ["It puts 80 of 100 pairs of patients in the right order, where guessing gives 50.", "It ranks better than age alone.",
          "It ranks better than every other model, and repetitions confirm it."]),
        ([found(GOOD, clinical=UNREPEATED, slides_ridge=NONE), found((0.7, 0.6, 0.8), clinical=UNREPEATED)],
         ["It puts 70 and 80 of 100 pairs of patients, by way of testing, in the right order",
          "better than age alone; in 2 of 2 ways of testing nothing was repeated to confirm it",
          "Not every way of testing shows that it ranks better than: ridge Cox on mean tile features. By ranking",
          "whether repetitions would confirm that is not known"]),
        ([found((0.55, 0.45, 0.65), clinical=NONE, forest=WORSE)],
         ["which its interval holds in the only way of testing", "It is not shown to rank better than age alone.",
          "it ranks worse than: random survival forest (in the only way of testing).",
          "it ranks worse than the random survival forest; whether repetitions would confirm that is not known"]),
        ([found(GOOD, clinical=SURE), found(GOOD, clinical=WORSE)],
         ["Against age alone it ranks better, confirmed by repetitions, in 1 of 2 ways of testing; worse by its interval"]),
        ([found(GOOD, clinical=UNCONFIRMED, forest=UNCONFIRMED)],
         ["repetitions do not confirm that", "better by its interval, which repetitions do not confirm, in the only way",
          "By ranking, these patients give little reason"]),
        ([found(GOOD, clinical=UNKNOWN, forest=UNKNOWN)], ["It cannot be compared with the clinical model (Cox)"]),
        ([found(GOOD, forest=UNREPEATED)], ["that was not confirmed by repetitions everywhere"]),
    ],
)  # fmt: skip
def test_the_first_lines_say_whether_the_model_is_of_use_and_no_more_than_verdicts(
    schemes: list[dict[str, Any]], sentences: list[str]
) -> None:
    named = dict(zip(("kfold", "fixed"), schemes, strict=False))
    first, *rest = summary_words({**named, "validation": {"metrics": {"package": {}}}}, "age")
    assert first.startswith("Of use? ")
    assert len(rest) == len(schemes) + 1
    assert [sentence for sentence in sentences if sentence not in " ".join([first, *rest])] == []
    assert "95 % intervals" in rest[-1]


def test_a_model_that_ranks_better_is_not_listed_twice() -> None:
    first = summary_words({"kfold": found(GOOD, omics_ridge=WORSE, forest=NONE)}, "age")[0]
    assert first.count("ridge Cox on omics") == 1
    assert "Not every way of testing shows that it ranks better than: random survival forest." in first
    alone = summary_words({"kfold": found(GOOD, omics_ridge=WORSE)}, "age")[0]
    assert "every other model" not in alone
    assert "little reason to prefer it" in alone


def test_the_first_lines_name_models_whose_probabilities_are_nearer_to_what_happened() -> None:
    """A model that ranks better may be the worse one by its probabilities, and the first screen says so."""
    first, second = found(GOOD, clinical=SURE, forest=SURE), found(GOOD, clinical=SURE, forest=SURE)
    first["differences"] = {"model - clinical": {"integrated_brier": estimate(-0.02, -0.03, -0.01)}}
    second["differences"] = {
        "model - clinical": {"integrated_brier": estimate(0.01, -0.01, 0.03)},
        "model - forest": {"integrated_brier": estimate(0.034, 0.016, 0.051)},
    }
    said = summary_words({"kfold": first, "leave_one_site_out": second}, "age")[0]
    named = "Survival probabilities nearer to what happened have: random survival forest (in 1 of 2 ways of testing)."
    assert named in said
    assert "nearer to what happened" not in summary_words({"kfold": first}, "age")[0]


def test_a_study_without_clinical_data_is_not_compared_with_them() -> None:
    assert "alone" not in summary_words({"kfold": found(GOOD, clinical=SURE)}, "")[0]


def test_the_page_begins_with_what_was_found(tmp_path: Path) -> None:
    text = write(tmp_path, methods=["The study predicts overall survival of 100 patients."])
    assert (
        text.index("The study predicts overall survival of 100 patients.") < text.index("Of use?") < text.index("<h2")
    )


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path, picture: Path) -> None:
    text = write(tmp_path, heatmaps=[("slide s1", picture)])
    assert not re.search(r"<(script|link|iframe|object|embed|base)\b", text, re.IGNORECASE)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text, re.IGNORECASE)
    loads = re.findall(r"\b(?:src|href|xlink:href|data|action|poster|srcset)\s*=\s*\"([^\"]*)\"", text)
    assert loads
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in loads)


def test_the_page_says_research_use_only_and_not_a_device() -> None:
    text = plain_page()
    assert "Research use only" in text
    assert "Not a medical device" in text


def test_a_heatmap_is_inside_the_page_with_its_caption(tmp_path: Path, picture: Path) -> None:
    text = write(tmp_path, evaluation=BARE, heatmaps=[("slide s1 & friends", picture)])
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
    text = (
        write(tmp_path, **{"evaluation": BARE, **changes}) if "endpoint" not in changes else write(tmp_path, **changes)
    )
    assert "<script" not in text
    assert "alert" in html.unescape(text)


def test_a_hospitals_name_is_escaped(tmp_path: Path) -> None:
    one = scheme()
    one["folds"][0]["fold"] = EVIL
    text = write(tmp_path, evaluation={"condition": "95 %", "schemes": {"leave_one_site_out": one}})
    assert "<script" not in text
    assert html.escape(EVIL, quote=False).split("'")[0] in text


def test_a_caption_cannot_leave_its_attribute(tmp_path: Path, picture: Path) -> None:
    text = write(tmp_path, evaluation=BARE, heatmaps=[('x" onerror="alert(1)', picture)])
    assert 'onerror="alert' not in text


def said(
    better: int, by_interval: int, by_repeats: int | None, spread: tuple[float, float] | None = None
) -> dict[str, Any]:
    low, high = spread or (None, None)
    return {
        "better": better, "by_interval": by_interval, "by_repeats": by_repeats, "repeats_low": low, "repeats_high": high
    }  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "verdict", "values", "sentence"),
    [
        (
            estimate(0.05, 0.01, 0.09), said(1, 1, 1, (0.02, 0.08)), (0.04, 0.06),
            "0.050 (0.010 to 0.090). The interval excludes 0; over 2 repetitions, refitting counted, 95 % +0.020 to +0.080: on"
            " these patients the model ranks better.",
        ),
        (estimate(-0.05, -0.09, -0.01), said(-1, -1, -1), (-0.05,),
         "on these patients the clinical model (Cox) ranks better."),
        (estimate(0.05, 0.01, 0.09), said(0, 1, None), (0.05,), "fitted once"),
        (estimate(0.05, 0.01, 0.09), said(0, 1, 0, (-0.02, 0.12)), (0.1, -0.01), "the repetitions do not show it"),
        (estimate(0.02, -0.01, 0.05), said(0, 0, 0), (0.02,),
         "The interval includes 0: these patients do not show that the model ranks better."),
        (estimate(None), said(0, 0, 0), (), "cannot be computed."),
    ],
)  # fmt: skip
def test_the_verdict_says_no_more_than_interval_and_repetitions(
    difference: dict[str, Any], verdict: dict[str, Any], values: tuple[float, ...], sentence: str
) -> None:
    assert sentence in " ".join(verdict_words(scheme(difference=difference, verdict=verdict, values=values)))


def test_every_verdict_stands_on_the_page() -> None:
    text = html.unescape(plain_page())
    assert all(sentence in text for sentence in verdict_words(scheme()))


def test_numbers_stand_with_their_intervals_and_undefined_ones_say_so(tmp_path: Path) -> None:
    one = scheme()
    one["metrics"]["model"]["concordance"] = estimate(0.71, 0.66, 0.76)
    one["metrics"]["model"]["auc_300d"] = estimate(None)
    one["folds"][1]["concordance"]["clinical"] = None
    text = write(tmp_path, evaluation={**evaluation(), "schemes": {"kfold": one}})
    assert "0.710 (0.660 to 0.760)" in text
    row = re.search(r"Area under the ROC curve, on test.*?<tbody>\s*<tr>(.*?)</tr>", text, re.DOTALL)
    assert row is not None
    assert row.group(1).startswith('<th scope="row">this model</th><td>not defined')
    assert re.search(r'<th scope="row">1</th>(<td>[0-9.]+</td>)+<td>not defined', text)


def test_every_scheme_has_its_own_part(tmp_path: Path) -> None:
    schemes = {"kfold": scheme(), "leave_one_site_out": scheme(), "fixed": scheme()}
    text = write(tmp_path, evaluation={**evaluation(), "schemes": schemes})
    for title in ("Cross-validation", "Leaving one hospital out", "Given folds"):
        assert f"{title}</h2>" in text


def test_curves_name_both_groups_with_their_numbers_and_tests(tmp_path: Path) -> None:
    text, groups = plain_page(), scheme()["groups"]["model"]
    for name, curve in groups["curves"].items():
        assert f"{name} risk: {curve['events']} events in {curve['patients']} patients" in text
        assert f">{curve['at_risk'][1]}</text>" in text
    assert "not tested: the model was not fitted again on shuffled outcomes" in text
    one = scheme()
    one["permutation"]["clinical"]["log_rank_p_value"] = 0.043
    text = write(tmp_path, evaluation={**evaluation(), "schemes": {"kfold": one}})
    assert "fitted again on shuffled outcomes: p = 0.043" in text


def test_an_empty_risk_group_is_no_error(tmp_path: Path) -> None:
    given = with_sites(predictions(noise=(0.5,)))
    given.table["risk_group"] = "high"
    judged = evaluate(given, EvaluateSettings(bootstraps=100, trial={"simulations": 0}))
    assert "low risk: 0 events in 0 patients" in write(tmp_path, evaluation=judged)


def test_every_figure_has_words_for_those_who_do_not_see_it_and_its_patients_and_events() -> None:
    text = plain_page()
    figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) >= 8
    for figure in figures:
        assert re.search(r'<svg role="img" aria-label="[^"]{30,}"', figure)
        assert re.search(r"\d+ test patients.* events", figure[figure.index("<figcaption>") :])


def test_every_number_stands_in_the_table_beside_the_page(tmp_path: Path) -> None:
    write(tmp_path)
    table = pd.read_csv(tmp_path / "numbers.csv")
    one = scheme()
    row = table[table["measure"] == "metrics.model.concordance"].iloc[0]
    expected = one["metrics"]["model"]["concordance"]
    assert [float(row[name]) for name in ("value", "low", "high")] == [
        expected[name] for name in ("value", "low", "high")
    ]
    assert "conditional on the fitted models" in row["conditional_on"]
    curve = one["decisions"][0]["models"]["model"]
    row = table[table["measure"] == "decisions[0].models.model[3]"].iloc[0]
    assert (float(row["value"]), row["high"]) == (curve["value"][3], curve["high"][3])
    numbers = [value for value in _leaves(one) if isinstance(value, float)]
    exact = pd.read_csv(tmp_path / "numbers.csv", dtype=str, keep_default_na=False)
    written = {cell for name in ("value", "low", "high") for cell in exact[name]}
    assert {repr(number) for number in numbers} <= written


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    return [leaf for one in value for leaf in _leaves(one)] if isinstance(value, list) else [value]


def test_the_checklist_has_every_item_once_and_says_what_is_left_to_the_authors(tmp_path: Path) -> None:
    text = write(tmp_path, evaluation=BARE, answers={"outcome": "overall survival at 300 days"})
    table = pd.read_csv(tmp_path / "tripod_ai.csv", dtype=str).set_index("item")
    assert len(table) == 52
    assert table.index.is_unique
    assert table.loc["8a", "answer"] == "overall survival at 300 days"
    assert table.loc["17", "answer"] == "for the authors"
    assert "overall survival at 300 days" in text
    with pytest.raises(KeyError, match="no item of the checklist is called wrong"):
        write(tmp_path, evaluation=BARE, answers={"wrong": ""})


FLOW = (
    FlowStep("patients", "patients of cohort.csv", 0, 125), FlowStep("patients", "no <follow-up>", 5, 120, ("a",) * 5),
    FlowStep("slides", "slides of slides.csv", 0, 130), FlowStep("slides", "no features: NO_TISSUE", 3, 127, ("s",) * 3),
)  # fmt: skip


def test_the_flow_counts_who_was_left_out_and_names_nobody(tmp_path: Path) -> None:
    text = re.sub(r"<[^>]*>", "|", write(tmp_path, flow=FLOW))
    for box in (
        "125 patients of cohort.csv",
        "left out 5: no &lt;follow-up&gt;",
        "120 left",
        "left out 3: no features: NO_TISSUE",
    ):
        assert f"|{box}|" in text
    assert "|120 patients analysed; cross-validation: 120 tested, " in text
    assert "|127 slides analysed|" in text


def test_every_check_of_a_leak_is_named_with_what_it_found(tmp_path: Path) -> None:
    finding = Finding("shared_sites", "note", "kfold", "40 % of the test patients ...")
    text = write(tmp_path, evaluation=BARE, leakage=LeakageReport((finding,), 127).to_json())
    assert "127 slides compared" in text
    for check in CHECKS:
        assert f'<th scope="row">{check}: ' in text
    assert text.count("<td>nothing found</td>") == len(CHECKS) - 1
    assert "<td>for your information</td><td>Cross-validation: 40 % of the test patients ...</td>" in text


def test_contributions_are_shown_where_a_model_has_several_parts(tmp_path: Path) -> None:
    parts = [
        {"part": name, "patients": 80, "deviation": estimate(0.5, 0.4, 0.6), "part_of_variance": estimate(*share)}
        for name, share in (("slides", (0.7, 0.6, 0.8)), ("clinical", (0.3, 0.2, 0.4)))
    ]
    one = {**scheme(), "parts": {"condition": "95 %", "parts": parts}}
    text = write(tmp_path, evaluation={**evaluation(), "schemes": {"kfold": one}})
    assert (
        '<th scope="row">slides</th><td>80 of 120</td><td>0.50 (0.40 to 0.60)</td><td>0.70 (0.60 to 0.80)</td>' in text
    )
    assert "Contributions of the parts of the model: slides: 0.700" in text
    one["parts"]["parts"] = parts[:1]
    assert "Contributions" not in write(tmp_path, evaluation={**evaluation(), "schemes": {"kfold": one}})


def test_methods_and_tuned_settings_are_shown_with_sensible_digits(tmp_path: Path) -> None:
    text = write(
        tmp_path, evaluation=BARE, methods=["How it was done."],
        tuned={"fold 0": {"train.learning_rate": 0.00123456789, "model.aggregator": {"kind": "clam"}}, "fold 1": {}},
    )  # fmt: skip
    assert "How it was done." in text
    assert "<td>0.00123</td>" in text
    assert "<td>as configured</td>" in text


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path) == plain_page()


def test_dollars_in_the_endpoint_are_no_formula(tmp_path: Path) -> None:
    endpoint = "cost $\\x$"
    assert endpoint in html.unescape(write(tmp_path, endpoint=endpoint))


def test_figures_show_the_strongest_other_model_and_say_which_stand_in_tables_only() -> None:
    names = ("model", "clinical", "weak", "strong", "middling")
    values = (0.7, 0.6, 0.55, 0.72, 0.65)
    metrics = {name: {"concordance": estimate(value)} for name, value in zip(names, values, strict=True)}
    drawn = drawn_models({"metrics": metrics})
    assert list(drawn.models) == ["model", "clinical", "strong"]
    assert drawn.left_out.endswith("in tables only: weak, middling.")
    assert drawn_models({"metrics": {name: metrics[name] for name in names[:3]}}).left_out == ""


def test_numbers_behind_every_figure_can_be_read() -> None:
    text, one = plain_page(), scheme()
    folded = dict(re.findall(r"<summary>Numbers: (.*?)</summary>(.*?)</details>", text, re.DOTALL))
    assert any(title.startswith("Survival by risk group, this model") for title in folded)
    net = next(body for title, body in folded.items() if title.startswith("Net benefit"))
    curve = one["decisions"][0]
    assert f"<td>{curve['everybody']['value'][0]:.3f} (" in net
    subgroups = next(body for title, body in folded.items() if title.startswith("Hospitals"))
    assert f"{one['subgroups']['rows'][0]['hazard_ratio']['value']:.2f} (" in subgroups
    assert any(title.startswith("Enrichment") for title in folded)
    assert any(title.startswith("D-calibration") for title in folded)


def test_no_p_value_of_d_calibration_stands_after_cross_validation_and_the_reason_does() -> None:
    text = plain_page()
    assert scheme()["calibration"]["model"]["d_calibration"]["p_value"] is None
    assert "p-value of D-calibration: left out" in text


def test_an_interval_without_width_is_not_shown_as_certainty() -> None:
    assert estimate_words(estimate(1.0, 1.0, 1.0)) == "1.000 (the same in every draw)"


def test_limits_that_nothing_holds_are_not_spelt_out() -> None:
    assert ratio_words(estimate(1.5, 1.2, 1.9)) == "1.50 (1.20 to 1.90)"
    assert ratio_words(estimate(30.0, 2.1, 135860962.6)) == "30.00 (2.10, no upper limit)"
