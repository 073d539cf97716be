"""Laws of totals: three kinds are told apart by their values, and none is taken for another."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tds_jax.errors import UserError
from tds_jax.forecast.days import DayTable
from tds_jax.forecast.opened import open_fields
from tests.forecast.files import LAT, LON, dataset, dates, hours, write

DAYS = 12


def rain():
    """(24 DAYS, H, W) of each hour from 2020-03-01 00 UTC on; true totals of the days."""
    rng = np.random.default_rng(3)
    amounts = rng.random((DAYS * 24, len(LAT), len(LON))) ** 6
    return amounts, amounts.reshape(DAYS, 24, len(LAT), len(LON)).sum(axis=1)


def record(kind, path, shift=0, said=True):
    """A file of sm and tp, stamped at the end of each hour: 00 UTC of the first day to the last."""
    amounts, totals = rain()
    values = amounts
    if kind != "step":
        rolled = np.roll(amounts, -shift, axis=0).reshape(DAYS, 24, len(LAT), len(LON))
        values = np.roll(rolled.cumsum(axis=1).reshape(amounts.shape), shift, axis=0)
    times = hours("2020-03-01", DAYS * 24 + 1)
    data = dataset(times, names=("sm", "tp"))
    data.tp[...] = np.concatenate([np.zeros((1, *values.shape[1:])), values])
    if said:
        data.tp.attrs["GRIB_stepType"] = "accum"
    if kind == "midnight":
        write(data[["tp"]].isel(valid_time=slice(None, None, 24)), path.with_suffix(".tp.nc"))
        data = data[["sm"]]
    write(data, path)
    return path.parent, totals


def opened(folder, *accumulated):
    settings = {"accumulated": accumulated, "land_mask": "", "downsample": 1}
    return open_fields(folder, ("sm", "tp"), "sm", **settings)


@pytest.mark.parametrize("named", [(), ("tp",), "kind"])
@pytest.mark.parametrize("kind", ["running", "step", "midnight"])
def test_a_day_is_its_total_whatever_kind_the_files_hold(tmp_path, kind, named):
    folder, totals = record(kind, tmp_path / "a.nc")
    fields = opened(folder, *((f"tp={kind}",) if named == "kind" else named))
    assert fields.kinds == {"sm": "day", "tp": kind}
    np.testing.assert_array_equal(fields.days, dates("2020-03-01", DAYS))
    # 24 values in f32, added in f64 and rounded once.
    np.testing.assert_allclose(fields.read(0, DAYS)[..., 1], totals, rtol=3e-6)
    assert len(fields.notes) == (kind != "running")


@settings(max_examples=8)
@given(st.sampled_from(["running", "step"]), st.sampled_from([1, 3, 6]), st.integers(0, 2**31))
def test_a_total_is_the_sum_of_what_fell_whatever_the_steps(kind, every, seed):
    count = 5 * 24 // every
    amounts = np.random.default_rng(seed).random((count, len(LAT), len(LON)))
    days = amounts.reshape(5, 24 // every, len(LAT), len(LON))
    values = amounts if kind == "step" else days.cumsum(axis=1).reshape(amounts.shape)
    data = dataset(hours("2020-03-01", count + 1, every), names=("sm", "tp"))
    data.tp[...] = np.concatenate([np.zeros((1, *values.shape[1:])), values])
    data.tp.attrs["GRIB_stepType"] = "accum"
    with tempfile.TemporaryDirectory() as folder:
        fields = opened(write(data, Path(folder) / "a.nc").parent, f"tp={kind}")
        found = fields.read(0, len(fields.days))[..., 1]
    np.testing.assert_array_equal(fields.days, dates("2020-03-01", 5))
    # 24 values in f32, added in f64 and rounded once.
    np.testing.assert_allclose(found, days.sum(axis=1), rtol=3e-6)


@pytest.mark.parametrize(("kind", "other"), [("running", "step"), ("step", "running")])
def test_a_kind_that_the_values_contradict_is_refused(tmp_path, kind, other):
    folder, _ = record(kind, tmp_path / "a.nc")
    with pytest.raises(UserError, match=rf"tp={other} is contradicted .* which are {kind}.*"):
        opened(folder, f"tp={other}")
    assert opened(folder, "tp=day").kinds["tp"] == "day"


def test_totals_that_start_at_another_hour_are_refused(tmp_path):
    folder, _ = record("running", tmp_path / "a.nc", shift=6)
    with pytest.raises(UserError, match="start again at another hour than 00 UTC"):
        opened(folder)


def test_running_totals_that_nobody_named_are_not_averaged(tmp_path):
    folder, _ = record("running", tmp_path / "a.nc", said=False)
    with pytest.raises(UserError, match=r"name it as accumulated: tp=running, or tp=day"):
        opened(folder)
    assert opened(folder, "tp=day").kinds["tp"] == "day"


def test_daily_totals_of_which_nothing_is_said_are_those_of_their_stamp(tmp_path):
    """As `prepare` writes them: named in the config, no step type in the file."""
    folder, totals = record("midnight", tmp_path / "a.nc", said=False)
    plain, moved = opened(folder, "tp"), opened(folder, "tp=midnight")
    np.testing.assert_allclose(moved.read(0, DAYS)[..., 1], totals, rtol=3e-6)
    np.testing.assert_array_equal(plain.read(1, DAYS)[..., 1], moved.read(0, DAYS - 1)[..., 1])
    assert plain.digest() != moved.digest()
    assert plain.origin(0, 9) != moved.origin(0, 9)


def test_what_is_no_kind_is_refused_by_name(tmp_path):
    folder, _ = record("step", tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"'tp=sum' must be tp or tp= one of running, step"):
        opened(folder, "tp=sum")
    noon = dataset(hours("2020-01-01T12", 5, 24), names=("sm", "tp"))
    (tmp_path / "noon").mkdir()
    write(noon, tmp_path / "noon" / "b.nc")
    with pytest.raises(UserError, match="needs steps at 00 UTC, but tp has one a day at 12:00"):
        opened(tmp_path / "noon", "tp=midnight")


def test_days_of_other_equal_steps_count_and_rests_of_days_do_not():
    hourly, six = hours("2020-01-01", 24 * 3), hours("2020-01-04", 8, 6)
    rest = hours("2020-01-06", 6)  # what a download that broke off leaves
    twice = hours("2020-01-07", 2, 12)
    table = DayTable.whole(np.concatenate([hourly, six, rest, twice]))
    np.testing.assert_array_equal(table.days, dates("2020-01-01", 5))
    assert table.count.tolist() == [24, 24, 24, 4, 4]
    ends = DayTable.whole(hourly + np.timedelta64(1, "h"), at_end=True)
    np.testing.assert_array_equal(ends.days, dates("2020-01-01", 3))
