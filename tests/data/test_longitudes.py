"""Longitudes up to a turn."""

import numpy as np
import pytest
import xarray as xr

from tds_jax.data.grid_record import open_record
from tds_jax.data.longitudes import beginning, columns, is_global, offset, unbroken
from tds_jax.errors import UserError
from tests.forecast.files import LAT, dates, write

GLOBE = np.arange(0.0, 360, 10)
BOX = np.arange(-4.0, 4, 0.5)

BROKEN = {
    "over 0, as cut": (BOX % 360, BOX),
    "over 0, sorted": (np.sort(BOX % 360), BOX),
    "over the date line, as cut": ((BOX + 360) % 360 - 180, BOX + 180),
    "over the date line, sorted": (np.sort((BOX + 360) % 360 - 180), BOX + 180),
    "westward": (np.sort(BOX % 360)[::-1], BOX[::-1]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_box_over_the_seam_has_neighbours_beside_each_other(name):
    stored, wanted = BROKEN[name]
    lon, first = unbroken(stored)
    np.testing.assert_array_equal(lon, wanted)
    np.testing.assert_array_equal(np.roll(stored, -first) % 360, wanted % 360)


@pytest.mark.parametrize(
    "stored", [GLOBE, GLOBE - 180, GLOBE[::-1], BOX, np.r_[BOX, BOX + 50], np.array([5.0, 7, 6, 8])]
)
def test_all_others_stay_as_they_are(stored):
    """Two boxes apart, and columns in no order, among them."""
    lon, first = unbroken(stored)
    assert lon is stored
    assert first == 0


def test_only_what_goes_around_is_global():
    assert is_global(GLOBE)
    assert is_global((GLOBE - 180)[::-1])
    assert not is_global(GLOBE[:-1])
    assert not is_global(np.r_[GLOBE, 360.0])
    assert not is_global(BOX)


def test_axes_are_equal_up_to_turns_wherever_they_begin():
    assert offset(GLOBE, GLOBE - 180) == 18
    assert offset(BOX, BOX + 360) == 0
    assert offset(BOX, BOX + 0.25) is None
    assert offset(BOX, BOX[:-1]) is None
    assert offset(BOX, BOX[::-1]) is None
    lon, first = beginning(GLOBE - 180, 0.0)
    np.testing.assert_array_equal(lon, GLOBE)
    assert first == 18
    np.testing.assert_array_equal(beginning(BOX + 360, -4.0)[0], BOX)
    np.testing.assert_array_equal(beginning(BOX, 0.0)[0], BOX)  # a box is not torn


@pytest.mark.parametrize("wanted", [slice(0, 36), slice(3, 9), slice(15, 20), slice(30, 36)])
def test_columns_of_a_turned_axis_are_one_or_two_slices_of_the_file(wanted):
    for first in (0, 18, 35):
        found = np.concatenate([GLOBE[part] for part in columns(wanted, first, 36)])
        np.testing.assert_array_equal(found, np.roll(GLOBE, -first)[wanted])


def test_records_of_either_convention_are_the_same(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 4, 36)).astype("f4")
    days = dates("2020-01-01", 4).astype("datetime64[ns]")
    dims = ("time", "latitude", "longitude")
    data = xr.Dataset({"z": (dims, values)}, {"time": days, "latitude": LAT, "longitude": GLOBE})
    write(data.isel(time=slice(0, 2)), tmp_path / "a.nc")
    other = data.assign_coords(longitude=(GLOBE + 180) % 360 - 180).sortby("longitude")
    write(other.isel(time=slice(2, 4)), tmp_path / "b.nc")
    record = open_record(tmp_path, ("z",))
    np.testing.assert_array_equal(record.read("z", 0, 4), values)
    region = slice(1, 3), slice(16, 21)
    np.testing.assert_array_equal(record.read("z", 0, 4, 1, region), values[:, *region])
    assert record.notes == ["longitude -180..170 (36) is read as 0..350 (36) in 1 of 2 files"]
    alone = open_record(tmp_path / "b.nc", ("z",), west=0.0)
    np.testing.assert_array_equal(alone.read("z", 0, 2), values[2:])
    np.testing.assert_array_equal(alone.files[0].lon, GLOBE)
    box = data.isel(longitude=[34, 35, 0, 1])
    over = open_record(write(box, tmp_path / "d.nc"), ("z",))
    np.testing.assert_array_equal(over.files[0].lon, [-20, -10, 0, 10])
    np.testing.assert_array_equal(over.read("z", 0, 4), values[..., [34, 35, 0, 1]])
    unsorted = data.isel(longitude=[0, 2, 1])
    with pytest.raises(UserError, match="longitude neither rises nor falls"):
        open_record(write(unsorted, tmp_path / "c.nc"), ("z",))
