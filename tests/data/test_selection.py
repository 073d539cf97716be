"""One of the dimensions that fields have beyond time and space."""

import numpy as np
import pytest
import xarray as xr

from tds_jax.data.grid_record import open_record
from tds_jax.data.selection import parse, selected
from tds_jax.errors import UserError
from tests.forecast.files import LAT, LON, dates, write

AXES = {
    "number": [0, 1, 2],
    "expver": ["0001", "0005"],
    "depth": np.array([0.05, 0.2], "f4"),
    "step": np.array([6, 24]).astype("timedelta64[h]").astype("timedelta64[ns]"),
    "level": None,
}


def member(name):
    """Fields over (time, name, latitude, longitude); all values are the index along `name`."""
    axis = AXES[name]
    size = 2 if axis is None else len(axis)
    times = dates("2020-01-01", 3).astype("datetime64[ns]")
    shape = (3, size, len(LAT), len(LON))
    values = np.broadcast_to(np.arange(size, dtype="f4")[:, None, None], shape)
    axes = {"time": times, "latitude": LAT, "longitude": LON}
    axes |= {} if axis is None else {name: axis}
    data = xr.Dataset({"sm": (("time", name, "latitude", "longitude"), values)}, axes)
    if name == "step":
        data = data.assign_coords(valid_time=data.time + data.step)
    return data


CHOICES = {
    "number=2": 2,
    "expver=5": 1,
    "expver=0001": 0,
    "depth=0.2": 1,
    "step=24": 1,
    "level=1": 1,
}


@pytest.mark.parametrize("choice", CHOICES)
def test_one_value_is_chosen_by_what_the_file_calls_it(choice):
    name = choice.split("=")[0]
    found = selected(member(name), parse((choice,)), "a.nc")
    assert (found.sm.values == CHOICES[choice]).all()
    assert found.sm.dims == ("time", "latitude", "longitude")
    # What was cut to that value before stays as it is, and another one is refused.
    assert selected(found, parse((choice,)), "a.nc").equals(found)
    with pytest.raises(UserError, match=f"select={name}=77, but {name} has"):
        selected(found, {name: "77"}, "a.nc")


def test_a_file_is_read_at_the_choice_at_the_time_that_is_valid(tmp_path):
    """A step of a forecast is of its valid time, a day after the time it began."""
    path = write(member("step"), tmp_path / "a.nc")
    record = open_record(path, ("sm",), select={"step": "24"})
    np.testing.assert_array_equal(record.steps["sm"].times, dates("2020-01-02", 3))
    assert (record.read("sm", 0, 3) == 1).all()
    assert record.notes == []
    with pytest.raises(UserError, match="needs valid_time"):
        selected(member("step").drop_vars("valid_time"), {"step": "24"}, "a.nc")


def test_further_dimensions_are_named_with_the_remedy(tmp_path):
    path = write(member("depth"), tmp_path / "a.nc")
    words = r"sm also lies over depth of 2 \(0.05, 0.2\); choose with --select=depth=0.05"
    with pytest.raises(UserError, match=words):
        open_record(path, ("sm",))


def test_forecasts_and_their_steps_are_one_row_of_times(tmp_path):
    """As cfgrib gives ERA5-Land: days, and hours of each."""
    n, size = 5, 6
    times = dates("2020-01-01", n).astype("datetime64[ns]")
    steps = np.arange(1, size + 1) * np.timedelta64(4 * 3600 * 10**9, "ns")
    values = np.random.default_rng(0).normal(size=(n, size, 4, 3)).astype("f4")
    axes = {"time": times, "step": steps, "latitude": LAT, "longitude": LON}
    data = xr.Dataset({"sm": (("time", "step", "latitude", "longitude"), values)}, axes)
    data = data.assign_coords(valid_time=data.time + data.step)
    record = open_record(write(data, tmp_path / "a.nc"), ("sm",))
    flat = values.reshape(-1, 4, 3)
    wanted = (times[:, None] + steps).ravel().astype("datetime64[s]")
    np.testing.assert_array_equal(record.steps["sm"].times, wanted)
    for first, last, every in ((0, 30, 1), (3, 17, 1), (5, 30, 6), (2, 29, 12), (1, 30, 7)):
        found = record.read("sm", first, last, every, (slice(1, 3), slice(0, 2)))
        np.testing.assert_array_equal(found, flat[first:last:every, 1:3, :2])


def test_a_choice_that_no_file_offers_is_said(tmp_path):
    path = write(member("number").isel(number=1, drop=True), tmp_path / "a.nc")
    record = open_record(path, ("sm",), select={"number": "1"})
    assert record.notes[-1] == "select number=1: no file has number"


def test_of_versions_the_first_that_is_there_counts(tmp_path):
    data = member("expver")
    data["sm"] = data.sm.where((data.time.dt.day == 1) == (data.expver == "0001"))
    path = write(data, tmp_path / "a.nc")
    record = open_record(path, ("sm",))
    found = record.read("sm", 0, 3)
    np.testing.assert_array_equal(found[:, 2, 1], [0, 1, 1])
    assert record.notes == ["sm: of the versions in expver the first that is there counts"]
    assert np.isnan(open_record(path, ("sm",), select={"expver": "1"}).read("sm", 1, 3)).all()


def test_a_single_step_needs_no_axis_of_time(tmp_path):
    data = member("number").isel(number=0, drop=True)
    for i in range(3):
        write(data.isel(time=i), tmp_path / f"{i}.nc")
    record = open_record(tmp_path, ("sm",))
    np.testing.assert_array_equal(record.steps["sm"].times, dates("2020-01-01", 3))
    np.testing.assert_array_equal(record.read("sm", 0, 3), data.sm)


@pytest.mark.parametrize("entry", ["number", "number=", "=1"])
def test_an_entry_that_chooses_nothing_is_refused(entry):
    with pytest.raises(UserError, match="must be DIMENSION=VALUE"):
        parse((entry,))
