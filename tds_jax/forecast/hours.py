"""Hours of a day beside its mean: 'air@18' is the value of air at 18 UTC.

A day's mean is old news at its end: of what comes next, its last steps say more.
"""

from collections.abc import Sequence

import numpy as np

from tds_jax.errors import UserError, some
from tds_jax.fields import require
from tds_jax.forecast.days import DAY, DayTable
from tds_jax.forecast.steps import SETTING, Step

AT = "@"
HOUR = np.timedelta64(1, "h")


def base_of(name: str) -> str:
    """The variable of the files: 'air' of 'air@18' and of 'air'."""
    return name.partition(AT)[0]


def hour_of(name: str) -> int | None:
    """18 of 'air@18', None of 'air'; UserError for what is no hour."""
    base, at, hour = name.partition(AT)
    if not at:
        return None
    require(
        bool(base) and hour.isdecimal() and int(hour) < 24,
        f"data.variables: {name!r} must be NAME or NAME@HOUR, such as air@18 for 18 UTC",
    )
    return int(hour)


def require_no_hours(names: Sequence[str], step: Step) -> None:
    """UserError for hours of days where steps are finer: these are no part of a step."""
    for name in names:
        require(
            step.is_day or hour_of(name) is None,
            f"data.variables: {name} is an hour of a day, but {SETTING}={step.hours} has every "
            f"step of it; use {base_of(name)}",
        )


def hour_table(name: str, times: np.ndarray, hour: int) -> DayTable:
    """The step at this hour of each day that has it; UserError where none has."""
    dates = times.astype("datetime64[D]")
    first = np.flatnonzero(times == (dates.astype(times.dtype) + hour * HOUR))
    if not len(first):
        hours = np.unique((times - dates) % DAY // HOUR).astype(int)
        raise UserError(
            f"data.variables: {name} has no step at {hour:02d} UTC; {base_of(name)} has "
            f"{some([f'{one:02d}' for one in hours])}"
        )
    return DayTable.of(dates[first], first, np.ones_like(first))


def require_value(name: str, kind: str) -> None:
    """UserError for an hour of a total, which is no value of that hour."""
    require(
        kind == "day",
        f"data.variables: {name} is of totals ({kind}), which have no value at an hour; use "
        f"{base_of(name)}",
    )
