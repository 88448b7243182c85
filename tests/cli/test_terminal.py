"""Tables on narrow terminals, and how long things take in words."""

import pytest

from pathoml.cli.terminal import show_table
from pathoml.encoders.registry import TABLE_HEADER, encoder_records, table_rows
from pathoml.pipeline.planning import duration_words


def shown(
    rows: list[tuple[str, ...]], header: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    show_table("Title", rows, header=header)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    return lines


@pytest.mark.parametrize("columns", [80, 100, 132, 200])
def test_no_word_of_the_table_of_encoders_is_broken(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {word for line in shown(table_rows(), TABLE_HEADER, columns, monkeypatch, capsys) for word in line.split()}
    expected = {word for row in (TABLE_HEADER, *table_rows()) for cell in row for word in cell.split()}
    assert expected <= words
    assert {record.name for record in encoder_records()} <= words


def test_where_words_do_not_fit_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown([("a", "x" * 50)], ("one", "two"), 30, monkeypatch, capsys)
    assert sum(line.count("x") for line in lines) == 50


@pytest.mark.parametrize("rows", [[], [("a", "b")]])
def test_tables_without_header_or_rows_are_shown(
    rows: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(rows, (), 80, monkeypatch, capsys)[0] == "Title"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (75, "75 s"), (100, "2 min"), (5_400, "90 min"), (7_200, "2.0 h"), (86_400, "24.0 h"), (4e5, "4.6 days")],
)  # fmt: skip
def test_how_long_it_takes_is_said_in_the_unit_that_suits_it(seconds: float, said: str) -> None:
    assert duration_words(seconds) == said
