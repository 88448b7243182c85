"""What is allowed in the outcome columns and seldom meant: another unit than the column's name says, events the wrong way round."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathoml.cohort import CohortSettings, read_cohort
from tests.counts import NULL_TABLES


def follow_up(patients: int = 300, seed: int = 0) -> pd.DataFrame:
    """Deaths and losses of a study in months, censored at the latest when it ends."""
    rng = np.random.default_rng(seed)
    death = rng.exponential(90.0, patients)
    seen = np.minimum(rng.uniform(1.0, 60.0, patients), rng.exponential(150.0, patients))
    return pd.DataFrame(
        {
            "case": [f"p{number}" for number in range(patients)],
            "time": np.minimum(death, seen).round(2),
            "dead": (death <= seen).astype(int),
        }
    )


def warnings(folder: Path, table: pd.DataFrame, **changes: Any) -> str:
    table.to_csv(folder / "cohort.csv", index=False)
    values: dict[str, Any] = {"patient_id": "case", "time": "time", "time_unit": "months", "event": "dead", **changes}
    cohort = read_cohort(CohortSettings(table=folder / "cohort.csv", **values))
    return "\n".join(map(str, cohort.warnings))


@pytest.mark.parametrize(
    ("name", "unit", "doubted"),
    [
        ("survival_months", "days", True),
        ("OS_MONTHS", "days", True),
        ("os.days", "months", True),
        ("followUpYears", "months", True),
        ("survival_months", "months", False),
        ("OS", "days", False),
        ("days_or_months", "months", False),  # two units: it cannot be told
        ("monday", "months", False),
        ("OSMonths", "days", True),
        ("pfs_2year", "days", False),  # a number beside it says when
        ("fu_after_day_30", "months", False),
    ],
)
def test_a_column_that_names_another_unit_is_doubted(tmp_path: Path, name: str, unit: str, doubted: bool) -> None:
    found = warnings(tmp_path, follow_up().rename(columns={"time": name}), time=name, time_unit=unit)
    assert ("its name speaks of" in found) is doubted
    if doubted:
        assert f"time_unit is {unit}" in found


def test_events_the_wrong_way_round_are_mostly_doubted_whatever_the_column_is_called(tmp_path: Path) -> None:
    found, wrongly = 0, 0
    for seed in range(NULL_TABLES):
        table = follow_up(500, seed)
        wrongly += "the right way round" in warnings(tmp_path, table)
        found += "the right way round" in warnings(tmp_path, table.assign(dead=1 - table["dead"]))
    assert wrongly == 0
    assert found >= 0.7 * NULL_TABLES


@pytest.mark.parametrize(
    ("dying", "lost"),
    [(90.0, (1.0, 600.0)), (30.0, None), (40.0, None)],
    ids=["most died before the end", "lost at random, 80 % died", "lost at random, 75 % died"],
)
def test_studies_in_which_most_died_are_seldom_doubted(
    tmp_path: Path, dying: float, lost: tuple[float, float] | None
) -> None:
    doubted = 0
    for seed in range(NULL_TABLES):
        rng = np.random.default_rng(seed)
        death = rng.exponential(dying, 300)
        seen = rng.uniform(*lost, 300) if lost else rng.exponential(120.0, 300)
        table = pd.DataFrame(
            {"case": [f"p{one}" for one in range(300)], "time": np.minimum(death, seen).round(2) + 0.01}
        )
        doubted += "the right way round" in warnings(tmp_path, table.assign(dead=(death <= seen).astype(int)))
    assert doubted <= 0.05 * NULL_TABLES
    everyone = follow_up().assign(dead=1)
    assert "the right way round" not in warnings(tmp_path, everyone)


def test_the_advice_turns_the_codes_of_the_table_itself(tmp_path: Path) -> None:
    table = follow_up(500).rename(columns={"dead": "censored"})
    table["censored"] = np.where(table["censored"] == 1, "1", "x")
    found = warnings(tmp_path, table, event="censored", event_codes={"x": 0, "1": 1})
    assert "set cohort.event_codes: {'x': 1, '1': 0}" in found


@pytest.mark.parametrize("unit", ["days", "months"])
def test_a_length_of_follow_up_that_no_study_has_is_doubted(tmp_path: Path, unit: str) -> None:
    """Months taken for days, and days taken for months, in a column whose name says nothing."""
    table = follow_up().rename(columns={"time": "t"})
    found = warnings(tmp_path, table, time="t", time_unit=unit)
    assert ("the right time_unit" in found) is (unit == "days")
    in_days = table.assign(t=(table["t"] * 30.4).round())
    found = warnings(tmp_path, in_days, time="t", time_unit=unit)
    assert ("the right time_unit" in found) is (unit != "days")
    assert (" years; is " in found) is (unit != "days")
