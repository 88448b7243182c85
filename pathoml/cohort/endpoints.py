"""Endpoints: columns, unit, coding with causes, and from when until when time counts."""

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from pathoml.settings import Settings
from pathoml.units import DAYS_PER_UNIT, BoolArray, FloatArray, IntArray

TimeUnit = Literal["days", "weeks", "months", "years"]


class EndpointSettings(Settings):
    """What one endpoint is, in columns of the clinical table."""

    time: str = Field(description="Column with the follow-up time.")
    time_unit: TimeUnit = Field(description="Unit of that column, of entry and of the limits below.")
    event: str = Field(description="Column that says whether the event was seen.")
    event_codes: dict[str, int] = Field(
        default={"0": 0, "1": 1},
        description="What stands in the event column -> 0 censored, 1 the event, 2, 3, ... competing events.",
    )
    causes: dict[int, str] = Field(
        default={}, description="Names of the codes from 1 on, such as {1: cancer death, 2: other death}."
    )
    censor_after: float | None = Field(
        None, gt=0, description="Follow-up that goes on for longer is censored then; counted from where time starts."
    )
    landmark: float = Field(
        0.0,
        ge=0,
        description="Time starts then: patients followed for no longer, or with the event before, are left out.",
    )
    entry: str | None = Field(
        None, description="Column with the time at which a patient came under observation (delayed entry)."
    )
    entry_is: Literal["time_zero", "landmark"] = Field(
        "time_zero",
        description="With entry: time counts from each patient's entry; or from the landmark, for those who had entered by then.",
    )
    missing: Literal["refuse", "leave_out"] = Field(
        "refuse", description="Whether a missing time or event is an error, or leaves the patient out."
    )

    @property
    def days_per_unit(self) -> float:
        """Days of one unit."""
        return DAYS_PER_UNIT[self.time_unit]


class Counted(NamedTuple):
    """Follow-up from where time starts.

    Parameters
    ----------
    time_days : ndarray of float64, shape (patients,)
        Of all patients; of those left out without meaning.
    cause : ndarray of int64, shape (patients,)
        0 censored, 1 the event, 2, ... competing events.
    left_out : list of (str, ndarray of bool)
        Reasons, in order, and whom each leaves out that none before did.
    """

    time_days: FloatArray
    cause: IntArray
    left_out: list[tuple[str, BoolArray]]


def count_time(
    settings: EndpointSettings, time_days: FloatArray, cause: IntArray, entry_days: FloatArray | None
) -> Counted:
    """Count time from where it starts until where it ends.

    Parameters
    ----------
    settings : EndpointSettings
        Landmark, meaning of the entry, administrative censoring.
    time_days : ndarray of float64, shape (patients,)
        Follow-up from time zero.
    cause : ndarray of int64, shape (patients,)
        0 censored, 1 the event, 2, ... competing events.
    entry_days : ndarray of float64, shape (patients,), or None
        When each came under observation.

    Returns
    -------
    Counted
        Left truncation is gone: all who are kept were under observation when time starts.
    """
    unit, landmark = settings.time_unit, settings.landmark * settings.days_per_unit
    kept = np.ones(len(time_days), dtype=bool)
    left_out: list[tuple[str, BoolArray]] = []
    start = np.full(len(time_days), landmark)

    def leave_out(reason: str, who: BoolArray) -> None:
        own = who & kept
        kept[own] = False
        if own.any():
            left_out.append((reason, own))

    if entry_days is not None and settings.entry_is == "landmark":
        leave_out(f"came under observation after the landmark of {settings.landmark:g} {unit}", entry_days > landmark)
    elif entry_days is not None:
        leave_out("came under observation when follow-up was over", entry_days >= np.maximum(time_days, 1e-9))
        start = start + entry_days
    if settings.landmark:
        leave_out(f"not followed beyond the landmark of {settings.landmark:g} {unit}", time_days <= start)
    time_days = np.where(kept, time_days - start, time_days)
    if settings.censor_after is not None:
        end = settings.censor_after * settings.days_per_unit
        cause = np.where(time_days > end, 0, cause)
        time_days = np.minimum(time_days, end)
    return Counted(time_days, cause, left_out)
