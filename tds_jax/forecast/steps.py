"""The step of a forecast: a day, or some hours of which whole numbers make a day.

Dates of a record are of a numpy type that has the step for its unit, datetime64[D] or
datetime64[6h], so that whoever has dates knows how far apart neighbours are. What code calls days
of a record are its steps; settings and flags named days are of time, see `Step.count`.
"""

import dataclasses
from typing import Self

import numpy as np

from tds_jax.errors import UserError
from tds_jax.fields import require

DAY_HOURS = 24
STEP_HOURS = tuple(hours for hours in range(1, DAY_HOURS + 1) if DAY_HOURS % hours == 0)
SETTING = "data.step_hours"
# What the flag of doors says of it.
HELP = "Hours in a step of the fields: 24 for days, or what a day is made of, such as 6."
# Of a step: how far a number of days may be from whole steps. 0.0417 days are an hour.
ROUNDED = 0.01


@dataclasses.dataclass(frozen=True)
class Step:
    """hours: one of STEP_HOURS; steps begin at 00 UTC and so many hours apart."""

    hours: int

    @classmethod
    def of(cls, days: np.ndarray) -> Self:
        """The step of dates."""
        unit, count = np.datetime_data(days.dtype)
        return cls(DAY_HOURS if unit == "D" else count)

    @property
    def is_day(self) -> bool:
        """Whether it is a day."""
        return self.hours == DAY_HOURS

    @property
    def per_day(self) -> int:
        """Steps in a day."""
        return DAY_HOURS // self.hours

    @property
    def dtype(self) -> np.dtype:
        """Of dates: when steps begin."""
        return np.dtype("datetime64[D]" if self.is_day else f"datetime64[{self.hours}h]")

    @property
    def delta(self) -> np.timedelta64:
        """Its length, in itself as the unit, so that dates stay of their type."""
        first, second = np.arange(2).astype(self.dtype)
        return second - first

    @property
    def unit(self) -> str:
        """What leads are counted in: 'days' or 'hours'."""
        return "days" if self.is_day else "hours"

    @property
    def row(self) -> str:
        """What a record is a row of: 'days' or 'steps'."""
        return "days" if self.is_day else "steps"

    def leads(self, count: int) -> np.ndarray:
        """(count,) how far ahead each lead is, in `unit`: 1, 2 … days, or 6, 12 … hours."""
        return np.arange(1, count + 1) * (1 if self.is_day else self.hours)

    def lead(self, index: int) -> str:
        """'3 d' or '18 h': the lead of an index from 0."""
        return f"{self.leads(index + 1)[-1]} {self.unit[0]}"

    def words(self, count: int) -> str:
        """'3 days' or '3 steps of 6 hours'."""
        if self.is_day:
            return f"{count} days"
        return f"{count} steps of {self.hours} hour{'s' * (self.hours > 1)}"

    def count(self, name: str, days: float) -> int:
        """Steps in so many days of time; UserError, that names the setting, unless these are whole.

        0 is 0, and -1, which settings give a meaning of its own, stays.
        """
        steps = days * self.per_day
        whole = round(steps)
        if days == -1:
            return -1
        if abs(steps - whole) > ROUNDED or (days > 0 and not whole):
            nearest = sorted({max(1, int(steps)), int(steps) + 1})
            use = " or ".join(f"{one / self.per_day:.4g}" for one in nearest)
            raise UserError(
                f"{name}={days:g} days are {steps:.4g} steps of {self.hours} hours "
                f"({SETTING}); use {use}"
            )
        return whole

    def waves(self, harmonics: int) -> int:
        """So many waves of the day, as far as the steps of one tell them apart."""
        return min(harmonics, self.per_day // 2)


DAILY = Step(DAY_HOURS)


def require_step(hours: int) -> None:
    """UserError unless whole numbers of such steps make a day."""
    require(
        hours in STEP_HOURS,
        f"{SETTING}={hours} must make up a day; use one of {', '.join(map(str, STEP_HOURS))}",
    )


def require_steps(name: str, times: np.ndarray, step: Step) -> None:
    """UserError for steps of files of which no whole number makes the step asked for."""
    if step.is_day or len(times) < 2:
        return
    own = int(np.median(np.diff(times.astype("datetime64[s]")).astype(np.int64)))
    if step.hours * 3600 % own == 0:
        return
    fits = [hours for hours in STEP_HOURS if hours * 3600 % own == 0] or [DAY_HOURS]
    raise UserError(
        f"{SETTING}={step.hours} cannot be made of steps {own / 3600:g} hours apart, as {name} has"
        f"; use {' or '.join(map(str, fits))}"
    )
