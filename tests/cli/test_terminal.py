"""Tables on narrow terminals, how far an extraction is with and without a terminal, and how long things take in words."""

import re
from dataclasses import replace

import pytest

from pathoml.cli.terminal import show_progress, show_table
from pathoml.encoders.registry import TABLE_HEADER, encoder_records, table_rows
from pathoml.extract.status import ExtractStatus
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


STATUS = ExtractStatus(
    slides=10, done=6, kept=1, failed=1, skipped=0, tiles=9_000, seconds=75.0, tiles_per_s=120.0, device_busy_share=0.953,
    encoding_s=70.0, seconds_left=130.0,
)  # fmt: skip


def test_where_nobody_watches_plain_lines_say_how_far_an_extraction_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pathoml.cli.terminal._LINE_EVERY_S", 0.0)
    with show_progress() as (listen, watch):
        for done in range(9):
            listen("extract", done, 8)
        watch(STATUS)
        watch(replace(STATUS, failed=0, seconds_left=-1.0))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines[:5]] == [f"extract: {done} of 8" for done in (0, 2, 4, 6, 8)]
    assert lines[5:] == [
        "extract: 8 of 10 slides, 120 tiles/s, encoder busy 95%, 1 failed, 2 min left",
        "extract: 7 of 10 slides, 120 tiles/s, encoder busy 95%",
    ]


def test_on_a_terminal_a_bar_shows_slides_pace_failures_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with show_progress() as (listen, watch):
        listen("extract", 8, 10)
        watch(STATUS)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    for part in ("extract", "8/10", "left:", "120 tiles/s, encoder busy 95%, 1 failed"):
        assert part in said
