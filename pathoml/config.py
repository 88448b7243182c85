"""One YAML file -> one frozen settings tree, or every mistake in it at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from pathoml.artefacts import QualitySettings
from pathoml.baseline_settings import BaselineSettings
from pathoml.cohort import CohortSettings, SlidesSettings
from pathoml.encoders.settings import EncoderSettings, ImportedSettings, Lite0Settings
from pathoml.errors import ConfigError, Problem
from pathoml.evaluate_settings import EvaluateSettings
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.heatmap_settings import HeatmapSettings
from pathoml.mil.settings import ModelSettings
from pathoml.provenance import settings_digest
from pathoml.settings import NOT_IN_HASH, ConfigPath, Settings, merge
from pathoml.settings_problems import problems_of
from pathoml.splits import SplitsSettings
from pathoml.stain_settings import NoStainSettings, StainSettings
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings, TissueSettingsField
from pathoml.train_settings import TrackingSettings, TrainSettings
from pathoml.tune_settings import TuneSettings, impossible_values
from pathoml.yaml_source import KeyPath, YamlSource, read_scalar, read_yaml

_MAX_EXTENDS = 8
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
    baselines: BaselineSettings = BaselineSettings()
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
        problems = problems_of(error, source, Config)
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
