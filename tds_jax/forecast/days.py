"""Which steps of files make each day of a record, or each finer step, and arithmetic of them."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from tds_jax.forecast.steps import DAILY, Step

DAY = np.timedelta64(1, "D")
FEWEST_STEPS = 4  # of a day among days of other steps: fewer may be what is left of it


@dataclasses.dataclass(frozen=True)
class DayTable:
    """Which steps make each day: first .. first + count, averaged or added; count 0 is missing.

    days: of the type of their step, see `forecast.steps`. before: the step whose total is taken off
    what the day's holds, -1 for none.
    """

    days: np.ndarray
    first: np.ndarray
    count: np.ndarray
    before: np.ndarray

    @staticmethod
    def of(days: np.ndarray, first: np.ndarray, count: np.ndarray) -> "DayTable":
        """One that takes nothing off."""
        return DayTable(days, first, count, np.full_like(first, -1))

    @staticmethod
    def whole(times: np.ndarray, at_end: bool = False, step: Step = DAILY) -> "DayTable":
        """Days with as many steps as most have, and those that other equal steps cover.

        at_end: a step counts to the day in which it ends, so 00 UTC to the day before.
        """
        every = DayTable.every(times, at_end, step)
        complete = every.count == usual_count(every.count)
        for i in np.flatnonzero(~complete & (every.count >= FEWEST_STEPS)):
            complete[i] = _covers(times[every.first[i] :][: every.count[i]], step)
        return DayTable.of(every.days[complete], every.first[complete], every.count[complete])

    @staticmethod
    def every(times: np.ndarray, at_end: bool = False, step: Step = DAILY) -> "DayTable":
        """All days with a step, whole or not."""
        at = times - np.timedelta64(1, "s") if at_end else times
        return DayTable.of(*np.unique(at.astype(step.dtype), return_index=True, return_counts=True))

    @staticmethod
    def running(times: np.ndarray, step: Step = DAILY) -> "DayTable":
        """Days whose following midnight is there: the step that holds their total.

        A finer step is what its end holds more than its beginning, of which both must be there; at
        00 UTC totals begin anew.
        """
        dates = times.astype(step.dtype)
        ends = np.flatnonzero(times == dates.astype(times.dtype))
        begin = dates[ends] - step.delta
        midnight = begin == begin.astype("datetime64[D]")
        place = np.minimum(np.searchsorted(times, begin), len(times) - 1)
        known = midnight | (times[place] == begin)
        before = np.where(midnight, -1, place)[known]
        return DayTable(begin[known], ends[known], np.ones_like(ends[known]), before)

    def at(self, days: np.ndarray) -> "DayTable":
        """The table of other days, count 0 where this one has none."""
        place = np.minimum(np.searchsorted(self.days, days), len(self.days) - 1)
        found = self.days[place] == days
        first = np.where(found, self.first[place], 0)
        before = np.where(found, self.before[place], -1)
        return DayTable(days, first, self.count[place] * found, before)

    def taken_off(self) -> "DayTable":
        """The table of the totals to take off, count 0 where there is nothing to."""
        there = self.before >= 0
        return DayTable.of(self.days, np.maximum(self.before, 0), there.astype(np.int64))

    def blocks(self, start: int, stop: int, most: int) -> Iterator["Block"]:
        """The days of [start, stop) that are there, about `most` steps at a time, none cut.

        The steps of a block follow each other, or are single ones at equal distances.
        """
        i = start
        while i < stop:
            count = int(self.count[i])
            first = self.first[i : min(stop, i + max(most // max(count, 1), 1))]
            every = int(first[1] - first[0]) if len(first) > 1 and count == 1 else count
            alike = self.count[i : i + len(first)] == count
            alike[1:] &= np.diff(first) == every
            days = len(first) if alike.all() else int(np.argmin(alike))
            if count:
                yield Block(i, days, int(first[0]), count, max(every, 1))
            i += days


@dataclasses.dataclass(frozen=True)
class Block:
    """`days` days from index `day` on, each of `count` steps, `every` steps apart."""

    day: int
    days: int
    first: int
    count: int
    every: int


def _covers(times: np.ndarray, step: Step) -> bool:
    """Whether times are equally far apart and make up a step."""
    apart = np.diff(times)
    return bool((apart == apart[0]).all() and apart[0] * len(times) == step.delta)


def usual_count(count: np.ndarray) -> int:
    """The number of steps that most days have; of several, the smallest."""
    return int(np.bincount(count).argmax())


def is_finer(times: np.ndarray) -> bool:
    """Whether most days have more than one step."""
    return usual_count(np.unique(times.astype("datetime64[D]"), return_counts=True)[1]) > 1


def runs(days: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of the stretches of consecutive days."""
    breaks = np.flatnonzero(np.diff(days) != Step.of(days).delta) + 1
    return list(itertools.pairwise([0, *breaks.tolist(), len(days)])) if len(days) else []


RHYTHMS = {"weekly": (7, 7), "monthly": (28, 31), "yearly": (365, 366)}  # days, both included


def gap_lines(days: np.ndarray) -> list[str]:
    """A line for each gap between days; one for all where most days are apart."""
    step = Step.of(days)
    usual = float(np.median(np.diff(days) / DAY)) if len(days) > 2 else 1.0
    if usual > 1:
        word = next((f" ({name})" for name, (a, b) in RHYTHMS.items() if a <= usual <= b), "")
        return [
            f"{len(days)} days from {days[0]} to {days[-1]} stand {usual:g} days apart{word}: what "
            "is forecast here are days in a row; give daily fields"
        ]
    edges = [
        (days[stop - 1], days[start]) for (_, stop), (start, _) in itertools.pairwise(runs(days))
    ]
    return [
        f"{step.words(int((after - before) / step.delta) - 1)} missing between {before} and {after}"
        for before, after in edges
    ]


def phases(days: np.ndarray) -> np.ndarray:
    """(N,) `year_fraction`; of steps finer than a day (N, 2), beside it `day_fraction`."""
    year = year_fraction(days)
    return year if Step.of(days).is_day else np.stack([year, day_fraction(days)], axis=-1)


def day_fraction(days: np.ndarray) -> np.ndarray:
    """Share of its day that has passed when a step begins, f64 in [0, 1)."""
    return (days - days.astype("datetime64[D]")) / DAY


def year_fraction(days: np.ndarray) -> np.ndarray:
    """Share of its calendar year that has passed when a day begins, f64 in [0, 1)."""
    years = days.astype("datetime64[Y]")
    first, following = (y.astype("datetime64[D]") for y in (years, years + 1))
    return (days - first) / (following - first)
