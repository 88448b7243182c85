"""Who is eligible: rules on columns of the clinical table or the manifest, each with the reason that the flow table gives."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from pathoml.settings import Settings
from pathoml.tables import is_missing, parse_numbers
from pathoml.units import BoolArray, FloatArray

_DATE_REMEDY = "is not a date; write it as 2019-03-31"


class _Rule(Settings):
    column: str = Field(description="Column that decides.")
    missing: Literal["leave_out", "keep", "refuse"] = Field(
        "leave_out", description="What becomes of rows whose cell is missing; refuse makes them an error."
    )
    reason: str | None = Field(None, description="What the flow table says of those left out; none: the rule itself.")


class AllowedRule(_Rule):
    """Only these words are eligible, such as FFPE, or H&E."""

    kind: Literal["allowed"] = "allowed"
    values: tuple[str, ...] = Field(min_length=1, description="Words as the column writes them.")


class ExcludedRule(_Rule):
    """These words are not eligible, such as frozen, or after treatment."""

    kind: Literal["excluded"] = "excluded"
    values: tuple[str, ...] = Field(min_length=1, description="Words as the column writes them.")


class RangeRule(_Rule):
    """Only numbers in a range are eligible, such as age, or days from diagnosis to the specimen."""

    kind: Literal["range"] = "range"
    at_least: float | None = Field(None, description="Smallest number; none for no limit.")
    at_most: float | None = Field(None, description="Largest number; none for no limit.")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        _require_range(self.at_least, self.at_most)
        return self


class DateRule(_Rule):
    """Only dates in a range about time zero are eligible, such as specimens taken before treatment began."""

    kind: Literal["date"] = "date"
    zero: str | None = Field(
        None, description="Column of the same table with the date that is counted from; none: cohort.time_zero.column."
    )
    at_least: float | None = Field(None, description="Fewest days after it, negative for before; none for no limit.")
    at_most: float | None = Field(None, description="Most days after it, negative for before; none for no limit.")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        _require_range(self.at_least, self.at_most)
        return self


Rule = Annotated[AllowedRule | ExcludedRule | RangeRule | DateRule, Field(discriminator="kind")]


class Judgement(NamedTuple):
    """What a rule says of the rows of a table.

    Parameters
    ----------
    keep : ndarray of bool, shape (rows,)
        Eligible, as far as the cell says.
    missing : ndarray of bool, shape (rows,)
        Whose cell is missing.
    unreadable : ndarray of bool, shape (rows,)
        Whose cell is neither missing nor what the rule needs.
    remedy : str
        What is wrong with those that cannot be read.
    reason : str
        Why the others are left out.
    """

    keep: BoolArray
    missing: BoolArray
    unreadable: BoolArray
    remedy: str
    reason: str


def judge(rule: Rule, table: pd.DataFrame, zero: "pd.Series[str] | None") -> Judgement:
    """Ask a rule about every row.

    Parameters
    ----------
    rule : AllowedRule, ExcludedRule, RangeRule or DateRule
        The rule.
    table : DataFrame
        Text cells; has the rule's columns.
    zero : Series of str or None
        For rules on dates without a column of their own: the date of time zero of each row.

    Returns
    -------
    Judgement
        Of all rows.
    """
    cells = table[rule.column]
    missing = is_missing(cells)
    readable = np.ones(len(table), dtype=bool)
    remedy = ""
    if isinstance(rule, AllowedRule):
        keep, words = cells.isin(rule.values).to_numpy(), f"{rule.column} is not {' or '.join(rule.values)}"
    elif isinstance(rule, ExcludedRule):
        keep, words = ~cells.isin(rule.values).to_numpy(), f"{rule.column} is {' or '.join(rule.values)}"
    elif isinstance(rule, RangeRule):
        numbers, _ = parse_numbers(cells)
        keep, words = _within(numbers, rule), f"{rule.column} is not {_range_words(rule)}"
        readable, remedy = ~np.isnan(numbers), "is not a number"
    else:
        start = table[rule.zero] if rule.zero is not None else zero
        begin, day = parse_dates(start if start is not None else pd.Series([""] * len(table))), parse_dates(cells)
        readable, remedy = ~np.isnan(day), _DATE_REMEDY
        missing = missing | np.isnan(begin)
        keep, words = _within(day - begin, rule), f"{rule.column} is not {_range_words(rule)} days after time zero"
    return Judgement(keep, missing, ~readable & ~missing, remedy, rule.reason or words)


def parse_dates(cells: "pd.Series[str]") -> FloatArray:
    """Read dates as days.

    Parameters
    ----------
    cells : Series of str
        ISO dates.

    Returns
    -------
    ndarray of float64
        Days since 1970; NaN where there is no date of the form 2019-03-31.
    """
    shaped = cells.where(cells.str.fullmatch(r"\d{4}-\d{2}-\d{2}"), "")
    dates = pd.to_datetime(shaped, format="%Y-%m-%d", errors="coerce").to_numpy(dtype="datetime64[D]")
    days = dates.astype(np.int64).astype(np.float64)
    days[np.isnat(dates)] = np.nan
    return days


def rule_columns(rules: Sequence[Rule]) -> list[str]:
    """Return the columns that rules need.

    Parameters
    ----------
    rules : sequence of Rule
        Any.

    Returns
    -------
    list of str
        Each once.
    """
    zeros = [rule.zero for rule in rules if isinstance(rule, DateRule) and rule.zero is not None]
    return list(dict.fromkeys([*(rule.column for rule in rules), *zeros]))


def _within(numbers: FloatArray, rule: RangeRule | DateRule) -> BoolArray:
    low = -np.inf if rule.at_least is None else rule.at_least
    high = np.inf if rule.at_most is None else rule.at_most
    inside: BoolArray = (numbers >= low) & (numbers <= high)
    return inside


def _range_words(rule: RangeRule | DateRule) -> str:
    if rule.at_least is None:
        return f"at most {rule.at_most:g}"
    return f"at least {rule.at_least:g}" if rule.at_most is None else f"{rule.at_least:g} to {rule.at_most:g}"


def _require_range(low: float | None, high: float | None) -> None:
    if low is None and high is None:
        raise ValueError("a rule without at_least and at_most leaves nobody out; give one of them")
    if low is not None and high is not None and low > high:
        raise ValueError(f"at_least ({low:g}) is larger than at_most ({high:g})")
