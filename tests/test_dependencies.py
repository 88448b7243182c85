"""What the package imports is what it says it needs."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONAL = {
    "ray": "pathoml/extract/ray_engine.py",
    "optuna": "pathoml/tuning.py",
    "mlflow": "pathoml/tracking.py",
    "opacus": "pathoml/federated/accountant.py",
    "psutil": "pathoml/federated/flare",
    "nvflare": "pathoml/federated/flare",
    "anywidget": "pathoml/viewer/inline.py",
    "traitlets": "pathoml/viewer/inline.py",
}
"""Packages of extras, and where they are used: one file, or a folder of which nothing is imported with pathoml."""
LOADED_BY_FLARE = {"controller.py", "executor.py", "rejoining.py", "launcher.py"}
"""Modules that FLARE finds by the name of their class: it is there already when they are imported."""

SERVER = {"starlette", "uvicorn", "anyio"}
"""Of the extra `viewer`: used at the top of the modules that answer the browser, which nothing else loads at its top."""
SERVER_MODULES = {"guard", "app", "serving"}


def imported() -> set[str]:
    names: set[str] = set()
    for path in (ROOT / "pathoml").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return {name for name in names if name not in sys.stdlib_module_names and name != "pathoml"}


def test_what_only_an_extra_brings_is_imported_inside_the_one_function_that_says_what_to_install():
    for name, home in OPTIONAL.items():
        for path in (ROOT / "pathoml").rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if re.search(rf"^\s*(import|from) {name}\b", text, flags=re.MULTILINE):
                assert path.is_relative_to(ROOT / home), path
                at_the_top = re.search(rf"^(import|from) {name}\b", text, flags=re.MULTILINE)
                assert path.name in LOADED_BY_FLARE or not at_the_top, path


def test_every_import_belongs_to_a_package_named_in_the_dependencies():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = {re.split(r"[<>=!\[ ]", one)[0].lower().replace("_", "-") for one in settings["project"]["dependencies"]}
    homes = importlib.metadata.packages_distributions()
    strangers = [
        name
        for name in sorted(imported() - set(OPTIONAL) - SERVER)
        if not {home.lower().replace("_", "-") for home in homes.get(name, [])} & declared
    ]
    assert strangers == []


def test_the_viewers_server_is_loaded_by_its_own_modules_alone():
    for path in (ROOT / "pathoml").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        own = path.parent.name == "viewer" and path.stem in SERVER_MODULES
        if re.search(rf"^\s*(import|from) ({'|'.join(SERVER)})\b", text, flags=re.MULTILINE):
            assert own, path
        if not own:
            loads = rf"^from pathoml\.viewer(\.| import )({'|'.join(SERVER_MODULES)})\b"
            assert not re.search(loads, text, flags=re.MULTILINE), path
