"""Which steps make a day of a variable: means, and totals of the four kinds that files hold."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tds_jax.data.grid_record import GridRecord
from tds_jax.data.prepared import ORIGIN
from tds_jax.errors import UserError, some
from tds_jax.fields import require
from tds_jax.forecast.days import DayTable, is_finer
from tds_jax.forecast.steps import DAILY, SETTING, Step

KINDS = {
    "running": "totals that run from 00 UTC; a day is the value at 00 UTC of the next",
    "step": "totals of the step that ends at each stamp; a day is their sum",
    "begin": "totals of the step that begins at each stamp; a day is their sum",
    "midnight": "totals of a day, stamped at the midnight that ends it",
    "day": "no totals of ours to make: a day is the mean of its steps, or its one value",
}
# What the flag of doors says.
HELP = (
    "Totals, as tp or tp=running, step, begin, midnight, day, unless their attributes say so; see "
    "the forecast README."
)
SUMMED = ("step", "begin")  # kinds whose steps are added
BY_STAMP = ("day", "begin")  # kinds whose steps count for the day of their stamp
TOTAL = "total_of"  # attribute of a total in prepared files, and what it says there
OF_STEP = "the step that begins at time"
HOUR = np.timedelta64(1, "h")
DETECT = ""  # asked for as an accumulation, of a kind to be found
STEP_TYPES = ("GRIB_stepType", "stepType", "step_type")
PROBES = 8  # days looked at
# Of cells and hours after the first: share that fall. A total from 00 UTC falls where packing or
# dew makes it (evaporation changes sign), one of each step about half the time.
FALLING = 0.2
STARTING = 0.5  # share of totals that fall in the hour in which they begin anew
# Of the day's total, what is left in its first step where nobody said "accumulated".
LEFT = 0.5


class Growth(NamedTuple):
    """How |values| change within days: shares that fall after 00 UTC, in other hours, and in the
    worst of those; first: first step / last step of a day, of their means. probed: hours seen."""

    reset: float
    inside: float
    worst: float
    first: float
    probed: int


def asked_kinds(accumulated: Sequence[str], variables: Sequence[str]) -> dict[str, str]:
    """name -> kind of data.accumulated, whose entries are 'tp' (detected) or 'tp=step'."""
    found = {}
    for entry in accumulated:
        name, _, kind = entry.partition("=")
        require(name in variables, f"data.accumulated: {name!r} is not among {tuple(variables)}")
        require(
            kind == DETECT or kind in KINDS,
            f"data.accumulated: {entry!r} must be {name} or {name}= one of {', '.join(KINDS)}",
        )
        found[name] = kind
    return found


def settle(record: GridRecord, name: str, attributes: Mapping[str, Any], asked: str | None) -> str:
    """The kind of a variable, as asked, as its attributes say and as its values tell.

    asked: None where nobody named it. UserError where values contradict what was asked, or look
    like running totals and nobody called them totals. Totals of prepared files are of the step that
    begins at each stamp, whatever kind they were made of.
    """
    times = record.steps[name].times
    said = any(attributes.get(key) == "accum" for key in STEP_TYPES)
    if asked == "day":
        return asked
    if TOTAL in attributes or (ORIGIN in attributes and (said or asked is not None)):
        return "begin" if is_finer(times) else "day"
    if not is_finer(times):
        return _daily(name, times, said, asked)
    if asked is None and not said:
        _require_no_total(name, _growth(record, name))
        return "day"
    found = _finer(name, _growth(record, name))
    if asked and found and found != ("step" if asked == "begin" else asked):
        raise UserError(
            f"data.accumulated: {name}={asked} is contradicted by the values, which are {found}: "
            f"{KINDS[found]}; use {name}={found}, or {name}=day for means"
        )
    # Nothing grew on the days looked at: what ERA5-Land does, as ever.
    return asked or found or "running"


def day_table(name: str, times: np.ndarray, kind: str, step: Step = DAILY) -> DayTable:
    """The steps of each day, or finer step, of a variable of this kind; UserError for totals of a
    day where a finer step is asked for, and for none."""
    require(
        step.is_day or kind != "midnight",
        f"{SETTING}={step.hours}: {name} holds {KINDS['midnight']}; use {DAILY.hours}",
    )
    if kind in ("running", "midnight"):
        table = DayTable.running(times, step)
    else:
        table = DayTable.whole(times, kind == "step", step)
    if not len(table.days):
        what = "day" if step.is_day else f"step of {step.hours} hours"
        raise UserError(
            f"{name}: no {what} is complete between {times[0]} and {times[-1]}; an accumulation "
            "needs 00 UTC of the next day"
        )
    return table


def left_out(name: str, times: np.ndarray, kind: str, table: DayTable) -> list[str]:
    """A line on days of which only some steps are there; UserError if those are most days."""
    step = Step.of(table.days)
    every = DayTable.every(times, kind not in BY_STAMP, step)
    days = every.days[every.count > 1]
    lost = np.setdiff1d(days, table.days)
    if not len(lost):
        return []
    what = "days lack" if step.is_day else f"steps of {step.hours} hours lack some of theirs"
    lack = f"{what} steps" if step.is_day else what
    line = f"{name}: {len(lost)} of {len(days)} {lack} and are left out: {some(list(lost))}"
    if 2 * len(lost) > len(days) > 2:
        raise UserError(f"{line}; give whole {'days' if step.is_day else 'steps'}")
    return [line]


def _daily(name: str, times: np.ndarray, said: bool, asked: str | None) -> str:
    """Of steps a day apart. GRIB stamps a total at its end; a plain name says nothing of that."""
    at_midnight = bool((times == times.astype("datetime64[D]")).all())
    if asked in ("running", "step", "midnight") and not at_midnight:
        raise UserError(
            f"data.accumulated: {name}={asked} needs steps at 00 UTC, but {name} has one a day at "
            f"{str(times[0])[11:16]}; use {name}=day"
        )
    return "midnight" if at_midnight and (asked or said) else "day"


def _finer(name: str, growth: Growth) -> str:
    """'running' or 'step'; '' where nothing can be told. UserError if they start at other hours."""
    if not growth.probed:
        return ""
    if growth.inside >= FALLING:
        return "step"
    if growth.worst > STARTING > growth.reset:
        raise UserError(
            f"{name}: its totals start again at another hour than 00 UTC ({growth.worst:.0%} of "
            f"them fall there, {growth.reset:.0%} after 00 UTC); make them totals of each step"
        )
    return "running"


def _require_no_total(name: str, growth: Growth) -> None:
    if not growth.probed or growth.inside > FALLING / 4 or growth.reset < 1 - STARTING / 4:
        return
    if growth.first < LEFT:
        raise UserError(
            f"{name}: {growth.reset:.0%} of its values fall after 00 UTC and hardly any in other "
            f"hours, as totals do that run from there; name it as accumulated: {name}=running, or "
            f"{name}=day if means are meant"
        )


def _growth(record: GridRecord, name: str) -> Growth:
    times = record.steps[name].times
    table = DayTable.whole(times, at_end=True)
    several = np.flatnonzero((table.count > 1) & (table.first > 0))
    several = several[times[table.first[several] - 1] == table.days[several]]
    chosen = np.linspace(0, len(several) - 1, min(PROBES, len(several))).astype(int)
    fell, stood, ends, start = np.zeros(25), np.zeros(25), np.zeros(2), 0
    for i in several[chosen]:
        first, count = int(table.first[i]), int(table.count[i])
        size = np.abs(record.read(name, first - 1, first + count))
        hour = ((times[first : first + count] - table.days[i]) / HOUR).astype(int)
        before = size[:-1] > 0
        # A thousandth: what packing into 16 bits may take from a total that stays.
        np.add.at(fell, hour, (before & (size[1:] < 0.999 * size[:-1])).sum(axis=(1, 2)))
        np.add.at(stood, hour, before.sum(axis=(1, 2)))
        ends += np.nansum(size[1]), np.nansum(size[-1])
        start = hour[0]
    if not stood.any() or not ends[1]:
        return Growth(0, 0, 0, 0, 0)
    others = np.delete(np.arange(25), start)
    shares = fell[others] / np.maximum(stood[others], 1)
    inside = fell[others].sum() / max(stood[others].sum(), 1)
    reset = fell[start] / max(stood[start], 1)
    return Growth(reset, inside, shares.max(), ends[0] / ends[1], int((stood > 0).sum()))
