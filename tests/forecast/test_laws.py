"""Laws of days: whatever steps a record has, a day is all of its own steps or it is not there."""

import calendar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tds_jax.forecast.days import DayTable, runs, usual_count, year_fraction

DAY = np.timedelta64(1, "D")
FIRST = np.datetime64("2020-02-27", "s")


@st.composite
def records(draw):
    """(stamps, hours of a step): days of steps of 1 to 12 hours, with holes."""
    step, days = draw(st.sampled_from([1, 2, 3, 4, 6, 12])), draw(st.integers(1, 8))
    every = FIRST + np.arange(days * 24 // step) * np.timedelta64(step, "h")
    holes = draw(st.lists(st.integers(0, len(every) - 1), max_size=4))
    return np.delete(every, holes), step


@given(records(), st.booleans())
def test_a_days_steps_are_its_own_whole_and_no_other_days(record, at_end):
    times, step = record
    if not len(times):
        return
    table = DayTable.whole(times, at_end)
    most = usual_count(DayTable.every(times, at_end).count)
    for day, first, count in zip(table.days, table.first, table.count, strict=True):
        stamps = times[first : first + count]
        into = stamps - day - np.timedelta64(int(at_end), "s")
        assert ((into >= np.timedelta64(0, "s")) & (into < DAY)).all()
        assert count in (most, 24 // step)
    everything = DayTable.every(times, at_end)
    assert everything.count.sum() == len(times)
    assert set(table.days) <= set(everything.days)


@given(records(), st.integers(1, 30))
def test_blocks_hold_every_step_of_every_day_once(record, most):
    times, _ = record
    if not len(times):
        return
    table = DayTable.every(times)
    seen = np.zeros(len(times), int)
    for block in table.blocks(0, len(table.days), most):
        for day in range(block.days):
            start = block.first + day * block.every
            assert start == table.first[block.day + day]
            seen[start : start + block.count] += 1
    assert (seen == 1).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20, unique=True))
def test_runs_are_the_longest_stretches_without_a_gap(numbers):
    days = FIRST.astype("datetime64[D]") + np.sort(numbers)
    found = runs(days)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(len(days)))
    for start, stop in found:
        assert (np.diff(days[start:stop]) == DAY).all()
    assert all(days[start] - days[start - 1] > DAY for start, _ in found[1:])


@given(st.integers(-15_000, 40_000))
def test_the_share_of_a_year_rises_by_a_day_and_starts_anew(number):
    days = np.datetime64(number, "D") + np.arange(2)
    share = year_fraction(days)
    assert (share >= 0).all()
    assert (share < 1).all()
    if str(days[1]).endswith("-01-01"):
        assert share[1] == 0
    else:
        length = 366 if calendar.isleap(int(str(days[0]).split("-")[0])) else 365
        np.testing.assert_allclose(share[1] - share[0], 1 / length, rtol=1e-12)
