"""One YAML file -> one frozen settings tree, or every mistake in it at once."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pathoml.artefacts import QualitySettings
from pathoml.cohort import CohortSettings, SlidesSettings
from pathoml.encoders.settings import EncoderSettings, ImportedSettings, Lite0Settings
from pathoml.errors import ConfigError, Problem
from pathoml.evaluate_settings import EvaluateSettings
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.mil.settings import ModelSettings
from pathoml.provenance import settings_digest
from pathoml.settings import NOT_IN_HASH, ConfigPath, Settings, merge
from pathoml.splits import SplitsSettings
from pathoml.stain_settings import NoStainSettings, StainSettings
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings, TissueSettingsField
from pathoml.train_settings import TrackingSettings, TrainSettings
from pathoml.tune_settings import TuneSettings, impossible_values
from pathoml.yaml_source import KeyPath, YamlSource, read_scalar, read_yaml

_MAX_EXTENDS = 8
_KIND_IF_NONE = "classical"
"""The only form that may be meant without saying so: of `tissue`."""
_OF_EXTRACTION = ("tissue", "quality", "tiling", "stain", "extract")


class Config(Settings):
    """A whole study."""

    name: str = Field(min_length=1, description="Name of the study, printed in the report.")
    output: ConfigPath = Field(description="Folder for everything that the study produces.")
    data: ConfigPath | None = Field(
        None,
        description="Folder from which paths of what is read start: tables, folds, manifest, gene groups; default: this file's.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run.", json_schema_extra=NOT_IN_HASH
    )
    cohort: CohortSettings
    slides: SlidesSettings | None = Field(None, description="Leave out for a model on the clinical table alone.")
    tissue: TissueSettingsField = ClassicalTissueSettings()
    quality: QualitySettings = QualitySettings()
    tiling: TilingSettings = TilingSettings()
    stain: StainSettings = NoStainSettings()
    encoder: EncoderSettings = Lite0Settings()
    extract: ExtractSettings = ExtractSettings()
    splits: SplitsSettings = SplitsSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    tune: TuneSettings | None = Field(None, description="Leave out to train with the settings as they stand.")
    tracking: TrackingSettings = Field(TrackingSettings(), json_schema_extra=NOT_IN_HASH)
    evaluate: EvaluateSettings = EvaluateSettings()
    heatmap: HeatmapSettings = HeatmapSettings()

    @model_validator(mode="after")
    def _search_that_can_be(self) -> Self:
        problems = [] if self.tune is None else impossible_values(self.tune, self.model, self.train)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ValueError(problems[0] + more)
        return self

    @model_validator(mode="after")
    def _trained_if_it_has_slides(self) -> Self:
        if self.slides is not None and self.train.max_epochs == 0:
            raise ValueError(
                "train.max_epochs: 0 is for a model on the table alone; with slides there is something to train"
            )
        return self

    @model_validator(mode="after")
    def _nothing_that_would_do_nothing(self) -> Self:
        """Refuse settings of an extraction that never happens, unless they are what they are by default."""
        if not isinstance(self.encoder, ImportedSettings):
            return self
        if self.slides is None:
            raise ValueError("encoder: kind imported needs the section slides, whose bags it takes")
        idle = [name for name in _OF_EXTRACTION if getattr(self, name) != Config.model_fields[name].default]
        if idle:
            raise ValueError(
                f"encoder: kind imported takes bags as they are; leave out {', '.join(idle)}, which make bags"
            )
        return self

    @property
    def recipe(self) -> Recipe:
        """The part that decides what bags hold."""
        return Recipe(self.tissue, self.tiling, self.encoder, self.extract, self.quality, self.stain)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the result; no paths, no device."""
        return settings_digest(self)


@dataclass(frozen=True)
class ConfigReading:
    """A configuration as far as it can be read.

    Parameters
    ----------
    config : Config or None
        The whole; None if anything is wrong with it.
    sections : mapping of str to Any
        The top-level values that are right by themselves, defaults included.
    problems : tuple of Problem
        What is wrong, by file and line.
    source : YamlSource
        Where each key stands.
    """

    config: Config | None
    sections: Mapping[str, Any]
    problems: tuple[Problem, ...]
    source: YamlSource


def examine_config(path: Path, overrides: Sequence[str] = ()) -> ConfigReading:
    """Read a configuration and, if something is wrong with it, what of it can be used all the same.

    Parameters
    ----------
    path : Path
        A YAML file, as for `load_config`.
    overrides : sequence of str, optional
        As for `load_config`.

    Returns
    -------
    ConfigReading
        Whole or in part.

    Raises
    ------
    ConfigError
        If the file is not YAML at all.
    """
    source = _override(_merged(path, depth=0), overrides)
    context = _context(path.parent, source.data)
    try:
        config = Config.model_validate(source.data, context=context)
    except ValidationError as error:
        problems = sorted((_problem(details, source) for details in error.errors()), key=_place)
        return ConfigReading(None, _valid_sections(source.data, context), tuple(problems), source)
    return ConfigReading(config, {name: getattr(config, name) for name in Config.model_fields}, (), source)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, merge and check a configuration.

    Parameters
    ----------
    path : Path
        A YAML file. Its key ``extends`` may list others, whose mappings it completes; paths in any of them start from
        this file's folder.
    overrides : sequence of str, optional
        ``key.subkey=value``, with the value as YAML would read it.

    Returns
    -------
    Config
        Frozen, all paths absolute.

    Raises
    ------
    ConfigError
        With every problem found, each with file and line.

    Examples
    --------
    >>> load_config(Path("study.yaml"), ["train.max_epochs=50"])  # doctest: +SKIP
    """
    reading = examine_config(path, overrides)
    if reading.config is None:
        raise ConfigError(f"{path.name}: {len(reading.problems)} problem(s)", reading.problems)
    return reading.config


def _context(folder: Path, data: Mapping[str, Any]) -> dict[str, Path]:
    """Return where paths start from."""
    given = data.get("data")
    return {"folder": folder, "data": Path(given)} if isinstance(given, str) else {"folder": folder}


def _valid_sections(data: Mapping[str, Any], context: dict[str, Path]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        if name not in data:
            if not field.is_required():
                sections[name] = field.get_default()
            continue
        try:
            sections[name] = TypeAdapter(field.rebuild_annotation()).validate_python(data[name], context=context)
        except ValidationError:
            continue  # listed already, with the rest of the configuration
    return sections


def _merged(path: Path, depth: int) -> YamlSource:
    if depth > _MAX_EXTENDS:
        raise ConfigError(f"{path.name}: more than {_MAX_EXTENDS} files extend one another; is there a circle?")
    source = read_yaml(path)
    data = dict(source.data)
    bases = data.pop("extends", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{source.where(('extends',))}: extends: expected a list of files, for example [base.yaml]")
    below: Any = {}
    lines: dict[KeyPath, str] = {}
    for base in bases:
        other = _merged(path.parent / base, depth + 1)
        below = merge(below, other.data)
        lines.update(other.lines)
    lines.update(source.lines)
    return YamlSource(merge(below, data), lines)


def _override(source: YamlSource, overrides: Sequence[str]) -> YamlSource:
    data, lines = source.data, dict(source.lines)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override}: expected key.subkey=value")
        path = tuple(key.strip().split("."))
        value = read_scalar(text)
        for name in reversed(path):
            value = {name: value}
        data = merge(data, value)
        lines[path] = f"--set {key.strip()}"
    return YamlSource(data, lines)


def _problem(details: ErrorDetails, source: YamlSource) -> Problem:
    path = tuple(_real_path(details["loc"], source.data))
    if details["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path = (*path, "kind")
    dotted = ".".join(str(part) for part in path)
    message = _message(details, path, source.data)
    if not path:  # said of the whole configuration, and by its own words of what
        return Problem(source.where(("encoder",)), message.removeprefix("value error, "))
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


def _message(details: ErrorDetails, path: KeyPath, data: Any) -> str:
    kind, context, found = details["type"], details.get("ctx", {}), details["input"]
    if kind == "missing":
        return "missing; give it a value"
    if kind == "extra_forbidden":
        return f"unknown key{_known_here(path, data)}"
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


def _known_here(path: KeyPath, data: Any) -> str:
    """Name the key that was meant, or those that may stand in its place."""
    settings = _settings_at(path[:-1], data)
    known = sorted(settings.model_fields) if settings is not None else []
    word = str(path[-1])
    close = _suggestion(word, known)
    if close:
        return close
    holding = [name for name in known if word.rstrip("s") in name]
    if holding:
        return f"; did you mean '{holding[0]}'?"
    return f"; known here: {', '.join(known)}" if known else ""


def _settings_at(path: KeyPath, data: Any) -> type[Settings] | None:
    """Return the settings class whose keys stand at a path; of several forms the one that `kind` names."""
    annotation: Any = Config
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
