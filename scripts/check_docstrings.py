"""Validate the numpydoc docstring of every public object of pathoml, as it is at run time.

numpydoc's own command reads source text and takes dataclass fields and properties for mistakes; this asks the objects.
"""

import importlib
import inspect
import pkgutil
import sys
import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Literal, get_args, get_origin

from numpydoc.validate import validate
from pydantic.fields import FieldInfo

import pathoml
from pathoml.settings import Settings

# The help of a command is its documentation.
NOT_DOCUMENTED_BY_NUMPYDOC = ("pathoml.cli", "pathoml.__main__")


def public_objects() -> Iterator[tuple[str, object]]:
    """Give every public class, function and method defined in pathoml with its dotted name."""
    for found in pkgutil.walk_packages(pathoml.__path__, "pathoml."):
        if found.name.startswith(NOT_DOCUMENTED_BY_NUMPYDOC) or any(
            part.startswith("_") for part in found.name.split(".")
        ):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != found.name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{found.name}.{name}", value
            if inspect.isclass(value):
                yield from ((f"{found.name}.{name}.{member}", getattr(value, member)) for member in own_methods(value))


def own_methods(owner: type) -> Iterator[str]:
    """Give the public methods that a class adds; those that it overrides are documented in the base."""
    for name, value in vars(owner).items():
        overrides = any(hasattr(base, name) for base in owner.__mro__[1:])
        if inspect.isfunction(value) and not name.startswith("_") and not overrides:
            yield name


def problems_of(name: str, value: object, checks: set[str]) -> Iterator[str]:
    """Give what is wrong with one docstring."""
    if inspect.isclass(value) and issubclass(value, Settings):
        # The fields of settings carry their description where they stand, for the JSON schema.
        yield from (
            f"field {key} has no description" for key, field in value.model_fields.items() if needs_description(field)
        )
        checks = checks - {"PR01"}
    if inspect.isclass(value) and "__init__" not in vars(value) and issubclass(value, (Exception, Enum)):
        checks = checks - {"PR01"}
    if inspect.isclass(value) and is_protocol(value):
        checks = checks - {"PR01"}
    yield from (f"{code} {text}" for code, text in validate(name)["errors"] if code in checks)


def is_protocol(value: type) -> bool:
    """Tell whether a class only describes what others have; nobody makes one."""
    return bool(getattr(value, "_is_protocol", False))


def needs_description(field: FieldInfo) -> bool:
    """Tell whether a settings field lacks the sentence it needs; tags and nested sections explain themselves."""
    nested = any(
        inspect.isclass(part) and issubclass(part, Settings) for part in (field.annotation, *get_args(field.annotation))
    )
    is_tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    return field.description is None and not nested and not is_tag


def main() -> int:
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["numpydoc_validation"]
    checks = set(settings["checks"])
    failures = 0
    for name, value in public_objects():
        errors = list(problems_of(name, value, checks))
        failures += len(errors)
        for error in errors:
            print(f"{name}: {error}")
    print(f"docstrings: {failures} failure(s)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
