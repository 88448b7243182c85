"""Every notebook is short, says what it asks, and is stored without outputs; that each runs is tested among the slow tests."""

import ast
import importlib
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_imports_names_that_exist(path: Path) -> None:
    code = "\n".join(
        "".join(cell["source"])
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    )
    asked = [
        (node.module, name.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pathoml")
        for name in node.names
    ]
    assert asked
    missing = [f"{module}.{name}" for module, name in asked if not hasattr(importlib.import_module(module), name)]
    assert not missing
