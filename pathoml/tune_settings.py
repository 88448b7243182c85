"""Settings of the search for settings; torch-free."""

from collections.abc import Mapping
from itertools import combinations, product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from pathoml.mil.settings import ModelSettings
from pathoml.settings import Settings, merge
from pathoml.train_settings import TrainSettings


class RangeSettings(Settings):
    """Numbers between two ends, both included."""

    kind: Literal["range"] = "range"
    low: float = Field(description="Lowest number.")
    high: float = Field(description="Highest number.")
    log: bool = Field(default=False, description="Whether numbers are tried evenly on a logarithmic scale.")
    whole: bool = Field(default=False, description="Whether only whole numbers are tried.")
    step: int = Field(1, ge=1, description="Distance between the whole numbers that are tried.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g}: a logarithmic scale begins above 0")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("whole: low and high have to be whole numbers")
        if self.step > 1 and (not self.whole or self.log or (self.high - self.low) % self.step):
            raise ValueError(f"step {self.step}: goes with whole: true, without log, from low to high in whole steps")
        return self

    @property
    def extremes(self) -> tuple[JsonValue, ...]:
        """Values that stand for all in a check."""
        low, high = int(self.low), int(self.high)
        return (low, low + self.step, high) if self.whole else (self.low, self.high)


class ChoicesSettings(Settings):
    """One of several values; mappings such as ``{kind: clam}`` too."""

    kind: Literal["choices"] = "choices"
    values: tuple[JsonValue, ...] = Field(min_length=2, description="What is tried.")

    @property
    def extremes(self) -> tuple[JsonValue, ...]:
        """Values that stand for all in a check."""
        return self.values


Space = Annotated[RangeSettings | ChoicesSettings, Field(discriminator="kind")]


class TuneSettings(Settings):
    """A search over settings of model and training inside each fold's training patients; test patients take no part."""

    space: dict[str, Space] = Field(
        min_length=1,
        description="Keys below model and train, such as train.learning_rate, and the values they may take.",
    )
    trials: int = Field(20, ge=1, le=10_000, description="Settings that are tried besides those of the configuration.")
    folds: int = Field(3, ge=2, le=20, description="Inner folds that a trial is judged on.")
    seed: int = Field(0, ge=0, description="Seed of inner folds and of the search.")

    @model_validator(mode="after")
    def _keys_of_model_and_train(self) -> Self:
        for key in self.space:
            if key.split(".")[0] not in {"model", "train"} or "." not in key:
                raise ValueError(f"space: {key!r} is not below model or train; write train.learning_rate, for example")
            if key in {"train.seed", "train.members"}:
                raise ValueError(f"space: {key} is not tuned: more seeds are averaged, none is picked")
        return self


def with_values(
    model: ModelSettings, train: TrainSettings, values: Mapping[str, JsonValue]
) -> tuple[ModelSettings, TrainSettings]:
    """Replace some settings.

    Parameters
    ----------
    model, train : ModelSettings, TrainSettings
        As configured.
    values : mapping of str to JSON value
        Dotted keys. A mapping of another ``kind`` replaces what stood there; else it completes it.

    Returns
    -------
    tuple of ModelSettings and TrainSettings
        With the values.

    Raises
    ------
    ValidationError
        If a value cannot be.
    """
    plain: Any = {"model": model.model_dump(mode="json"), "train": train.model_dump(mode="json")}
    for key in sorted(values, key=lambda one: one.count(".")):  # a whole before its parts
        value: Any = values[key]
        for name in reversed(key.split(".")):
            value = {name: value}
        plain = merge(plain, value)
    return ModelSettings.model_validate(plain["model"]), TrainSettings.model_validate(plain["train"])


def impossible_values(tune: TuneSettings, model: ModelSettings, train: TrainSettings) -> list[str]:
    """Find values of a search that no model could be made with, alone and in pairs.

    Parameters
    ----------
    tune : TuneSettings
        The search.
    model, train : ModelSettings, TrainSettings
        As configured.

    Returns
    -------
    list of str
        A sentence for each; empty if all is well.
    """
    keys = list(tune.space)
    pairs = list(combinations(keys, 2)) or [(keys[0], keys[0])]
    problems: dict[str, None] = {}
    for first, second in pairs:
        for values in product(tune.space[first].extremes, tune.space[second].extremes):
            try:
                with_values(model, train, dict(zip((first, second), values, strict=True)))
            except ValidationError as error:
                found = error.errors()[0]
                place = ".".join(str(part) for part in found["loc"])
                problems[f"tune.space: {first} = {values[0]!r}, {second} = {values[1]!r}: {place}: {found['msg']}"] = (
                    None
                )
    return list(problems)
