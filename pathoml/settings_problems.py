"""What pydantic finds wrong with a settings file, as file, line, key, and what to do."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pathoml.errors import ConfigError, Problem
from pathoml.settings import Settings
from pathoml.yaml_source import KeyPath, YamlSource, read_yaml

_KIND_IF_NONE = "classical"
"""The only form that may be meant without saying so: of `tissue`."""
_Kind = TypeVar("_Kind", bound=Settings)


def read_settings(path: Path, kind: type[_Kind]) -> _Kind:
    """Read a file that holds one settings object.

    Parameters
    ----------
    path : Path
        A YAML file; paths in it start from its folder.
    kind : type
        Which settings it holds.

    Returns
    -------
    Settings
        Of that class.

    Raises
    ------
    ConfigError
        With every problem found, each with file and line.
    """
    source = read_yaml(path)
    try:
        return kind.model_validate(source.data, context={"folder": path.parent})
    except ValidationError as error:
        problems = problems_of(error, source, kind)
        raise ConfigError(f"{path.name}: {len(problems)} problem(s)", problems) from error


def problems_of(error: ValidationError, source: YamlSource, root: type[Settings]) -> list[Problem]:
    """Put what pydantic found into words, in the order of the file.

    Parameters
    ----------
    error : ValidationError
        What it found.
    source : YamlSource
        Where each key stands.
    root : type
        The settings class of the whole file.

    Returns
    -------
    list of Problem
        Each with file and line.
    """
    said = error.errors()
    return sorted((_problem(one, source, root) for one in said if not _follows(one, said)), key=_place)


def _follows(details: ErrorDetails, said: Sequence[ErrorDetails]) -> bool:
    """Tell whether a list counts as too short only since one of its items, of which more is said, could not be read."""
    place = details["loc"]
    return details["type"] == "too_short" and any(
        len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in said
    )


def _problem(details: ErrorDetails, source: YamlSource, root: type[Settings]) -> Problem:
    path = tuple(_real_path(details["loc"], source.data))
    if details["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path = (*path, "kind")
    dotted = ".".join(str(part) for part in path)
    message = _message(details, path, source.data, root)
    if not path:  # said of the whole, and by its own words of what: "encoder: kind imported ..."
        message = message.removeprefix("value error, ")
        return Problem(source.where((message.partition(":")[0],)), message)
    return Problem(source.where(path), f"{dotted}: {message}")


def _place(problem: Problem) -> tuple[str, int]:
    """Sort problems by file, then line."""
    file_name, _, line = problem.where.rpartition(":")
    return file_name, int(line) if line.isdigit() else 0


def _real_path(loc: tuple[int | str, ...], data: Any) -> Iterator[int | str]:
    """Leave out the union tags that pydantic puts into its paths and that stand in no file."""
    for position, part in enumerate(loc):
        is_key = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if is_key:
            data = data[part]
            yield part
        elif not (isinstance(data, dict) and part == data.get("kind", _KIND_IF_NONE)) or position == len(loc) - 1:
            data = None
            yield part


def _message(details: ErrorDetails, path: KeyPath, data: Any, root: type[Settings]) -> str:
    kind, context, found = details["type"], details.get("ctx", {}), details["input"]
    if kind == "missing":
        return "missing; give it a value"
    if kind == "extra_forbidden":
        return f"unknown key{_known_here(path, data, root)}"
    if kind == "union_tag_invalid":
        expected = [name.strip(" '") for name in context["expected_tags"].split(",")]
        return f"'{context['tag']}' is not one of {', '.join(expected)}{_suggestion(str(context['tag']), expected)}"
    if kind == "union_tag_not_found":
        return "missing; it says which of several forms is meant"
    message = details["msg"][0].lower() + details["msg"][1:]
    return message if isinstance(found, (dict, list)) else f"{message}, found {found!r}"


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f"; did you mean '{close[0]}'?" if close else ""


def _known_here(path: KeyPath, data: Any, root: type[Settings]) -> str:
    """Name the key that was meant, or those that may stand in its place."""
    settings = _settings_at(path[:-1], data, root)
    known = sorted(settings.model_fields) if settings is not None else []
    word = str(path[-1])
    close = _suggestion(word, known)
    if close:
        return close
    holding = [name for name in known if word.rstrip("s") in name]
    if holding:
        return f"; did you mean '{holding[0]}'?"
    return f"; known here: {', '.join(known)}" if known else ""


def _settings_at(path: KeyPath, data: Any, root: type[Settings]) -> type[Settings] | None:
    """Return the settings class whose keys stand at a path; of several forms the one that `kind` names."""
    annotation: Any = root
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            field = annotation.model_fields.get(str(part))
            annotation = None if field is None else field.annotation
        else:
            annotation = next((inner for inner in get_args(annotation) if inner is not Ellipsis), None)
        held = isinstance(data, dict) and part in data
        listed = isinstance(data, list) and isinstance(part, int) and part < len(data)
        data = data[part] if held or listed else None
        annotation = _form_of(annotation, data)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _form_of(annotation: Any, data: Any) -> Any:
    """Return the one of several forms that the data are of, or the annotation as it is."""
    forms = [one for one in _flat(annotation) if isinstance(one, type) and issubclass(one, Settings)]
    kind = data.get("kind", _KIND_IF_NONE) if isinstance(data, dict) else None
    chosen = [one for one in forms if "kind" not in one.model_fields or one.model_fields["kind"].default == kind]
    return chosen[0] if isinstance(data, dict) and chosen else annotation


def _flat(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _flat(inner)
