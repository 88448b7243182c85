"""The predictions table: what is written is what is read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathoml.errors import InputError
from pathoml.predictions import Predictions, join_predictions, read_predictions, write_predictions


def predictions(rows: int = 4, *, known: bool = True) -> Predictions:
    rng = np.random.default_rng(0)
    outcome = {"time_days": rng.exponential(300, rows), "event": np.arange(rows) % 2}
    if not known:
        outcome = {"time_days": np.full(rows, np.nan), "event": pd.array([pd.NA] * rows, dtype="Int64")}
    table = pd.DataFrame(
        {
            "model": "model", "scheme": "kfold", "fold": "05", "role": "test",
            "patient_id": ["NA", "05", "E2", "null", "1e3", "=1+1"][:rows], "site": "", "endpoint": "time, \"to\" death",
            "repeat": 0, "seed": 3, **outcome, "risk": rng.normal(size=rows) / 3, "risk_group": ["low", "high"] * (rows // 2),
        }
    )  # fmt: skip
    return Predictions(table, np.array([0.1, 365.25, 1e4 / 3]), rng.random((rows, 3)))


def test_reading_gives_back_every_bit_of_what_was_written(tmp_path: Path) -> None:
    written = predictions()
    write_predictions(tmp_path / "p.csv", written)
    found = read_predictions(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(found.table, written.table, check_exact=True)
    np.testing.assert_array_equal(found.survival, written.survival)
    np.testing.assert_array_equal(found.curve_days, written.curve_days)


def test_curves_that_were_not_kept_stay_empty(tmp_path: Path) -> None:
    written = predictions()
    written.survival[[0, 2]] = np.nan
    write_predictions(tmp_path / "p.csv", written)
    assert ",,," in (tmp_path / "p.csv").read_text().splitlines()[1]
    np.testing.assert_array_equal(read_predictions(tmp_path / "p.csv").survival, written.survival)


def test_patients_without_outcome_stay_without_outcome(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", predictions(known=False))
    found = read_predictions(tmp_path / "p.csv").table
    assert found["event"].isna().all()
    assert found["time_days"].isna().all()


def test_every_row_says_research_use_only(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", predictions())
    lines = (tmp_path / "p.csv").read_text().splitlines()[1:]
    assert len(lines) == 4
    assert all(line.endswith("research use only") for line in lines)


def test_selecting_keeps_rows_and_curves_together() -> None:
    everything = predictions()
    chosen = everything.select(risk_group="high", patient_id="05")
    assert chosen.table["patient_id"].tolist() == ["05"]
    np.testing.assert_array_equal(chosen.survival, everything.survival[[1]])


def test_joining_what_was_divided_gives_the_whole() -> None:
    everything = predictions()
    low, high = everything.select(risk_group="low"), everything.select(risk_group="high")
    joined = join_predictions([low, high])
    assert joined.table["patient_id"].tolist() == ["NA", "E2", "05", "null"]
    np.testing.assert_array_equal(joined.survival, everything.survival[[0, 2, 1, 3]])


def test_different_grids_and_nothing_cannot_be_joined() -> None:
    one = predictions()
    with pytest.raises(InputError, match="on the same survival grid"):
        join_predictions([one, Predictions(one.table, one.curve_days + 1, one.survival)])
    with pytest.raises(InputError, match="must be given"):
        join_predictions([])


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no predictions there; run 'pathoml train' first"):
        read_predictions(tmp_path / "p.csv")


def test_a_foreign_table_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", predictions())
    text = (tmp_path / "p.csv").read_text().replace("risk_group", "group", 1)
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=r"no column\(s\) risk_group; it was not written by pathoml"):
        read_predictions(tmp_path / "p.csv")
