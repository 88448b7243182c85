"""What was spent stays spent."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pathoml.errors import FederationError, RefusalCode, RefusedError
from pathoml.federated.accountant import Release, epsilon_of
from pathoml.federated.privacy_ledger import Budget, PrivacyLedger

pytest.importorskip("opacus", reason="opacus is not installed: pip install 'pathoml[federated]'")

DELTA = 1e-3
STEP = Release(0.1, 1.5, 10)
PLAN = Budget("plan-a", 4.0, DELTA)


def test_spending_adds_up_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "privacy.json"
    for number in range(1, 4):
        ledger = PrivacyLedger(path, PLAN)
        ledger.spend(STEP, "training")
        expected = epsilon_of([Release(0.1, 1.5, 10 * number)], DELTA)
        assert ledger.plan_epsilon == pytest.approx(expected)
        assert PrivacyLedger(path, PLAN).plan_epsilon == pytest.approx(expected)
    ledger.spend(Release(1.0, 30.0, 1), "validation loss")
    assert PrivacyLedger(path, PLAN).plan_epsilon > expected
    rows = json.loads(path.read_text())["releases"]
    assert [(row["purpose"], row["times"]) for row in rows] == [("training", 30), ("validation loss", 1)]


def second_steps(path: Path) -> int:
    rows = json.loads(path.read_text())["releases"]
    return sum(row["times"] for row in rows if row["plan"] == "b")


def taken(path: Path) -> int:
    return json.loads(path.read_text())["releases"][0]["times"] if path.exists() else 0


def test_a_step_over_the_budget_is_refused_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    ledger = PrivacyLedger(path, PLAN)
    while epsilon_of([Release(0.1, 1.5, 10 + taken(path))], DELTA) <= 4:
        ledger.spend(STEP, "training")
    before = path.read_bytes()
    with pytest.raises(
        RefusedError, match=r"the plan's privacy budget: the next step would bring epsilon to 4\.\d+"
    ) as caught:
        ledger.spend(STEP, "training")
    assert caught.value.code == RefusalCode.LIMIT_OF_SITE
    assert path.read_bytes() == before
    assert 3 < PrivacyLedger(path, PLAN).plan_epsilon <= 4
    with pytest.raises(RefusedError, match="the step was not taken"):
        PrivacyLedger(path, PLAN).spend(STEP, "training")


def test_the_site_limits_all_plans_together(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    site = {"epsilon": 3.0, "delta": DELTA, "site_epsilon": 3.0}
    first = PrivacyLedger(path, Budget("a", **site))
    for _ in range(3):
        first.spend(STEP, "training")
    second = PrivacyLedger(path, Budget("b", **site))
    assert second.plan_epsilon == 0
    assert second.site_epsilon == pytest.approx(first.plan_epsilon)
    while epsilon_of([Release(0.1, 1.5, 40 + second_steps(path))], DELTA) <= 3:
        second.spend(STEP, "training")
    with pytest.raises(RefusedError, match="the site's privacy budget"):
        second.spend(STEP, "training")
    assert second.plan_epsilon < 3, "the plan itself had some left"
    assert first.plan_epsilon < PrivacyLedger(path, Budget("a", **site)).site_epsilon <= 3


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    cheap, wide = Release(0.01, 20.0, 1), Budget("plan-a", 50.0, DELTA)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(PrivacyLedger(path, wide).spend, cheap, "training") for _ in range(40)]:
            done.result()
    assert json.loads(path.read_text())["releases"][0]["times"] == 40


def test_an_older_copy_put_back_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    ledger = PrivacyLedger(path, PLAN)
    ledger.spend(STEP, "training")
    older = path.read_bytes()
    ledger.spend(STEP, "training")
    path.write_bytes(older)
    with pytest.raises(RefusedError, match="says less than it said before"):
        ledger.spend(STEP, "training")
    path.unlink()
    with pytest.raises(RefusedError, match="says less than it said before"):
        ledger.spend(STEP, "training")
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a privacy ledger"),
        ("[]", "cannot be read as a privacy ledger"),
        (
            '{"format": "pathoml-privacy-ledger", "format_version": 2, "releases": []}',
            "not a privacy ledger of version 1",
        ),
        ('{"format": "pathoml-privacy-ledger", "format_version": 1, "releases": [{"plan": "a"}]}', "do not delete it"),
    ],
)
def test_a_damaged_ledger_stops_everything(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "privacy.json"
    path.write_text(content)
    with pytest.raises(FederationError, match=message):
        PrivacyLedger(path, PLAN)
    assert path.read_text() == content
