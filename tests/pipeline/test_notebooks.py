"""Every notebook is short, says what it asks, and is stored without outputs; that each runs is tested among the slow tests."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_short_stripped_and_says_what_it_asks(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 15
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    first = "".join(cells[0]["source"])
    for part in ("**Question:**", "**Data:**", "**Run time:**", "Research use only"):
        assert part in first
