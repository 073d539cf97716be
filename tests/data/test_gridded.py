"""Laws of gridded files: any format and naming, blocks over file borders, faults named."""

import pickle
import tracemalloc

import h5py
import numpy as np
import pytest
import zarr

from tds_jax.data import grid_record
from tds_jax.data.grid_record import open_record
from tds_jax.data.gridded import find_files, read_static
from tds_jax.errors import UserError
from tests.forecast.files import LAT, LON, dataset, hours, write

TIMES = hours("2020-01-31", 48)


@pytest.mark.parametrize("ending", [".nc", ".cdf", ".zarr", ".h5"])
def test_every_format_reads_the_same(tmp_path, ending):
    data = dataset(TIMES)
    if ending == ".h5":  # plain HDF5: no dimension scales
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name in ("latitude", "longitude", "t2m"):
                file[name] = data[name].values
            file["time"] = np.arange(48.0)
            file["time"].attrs["units"] = "hours since 2020-01-31"
    else:
        write(data, tmp_path / f"a{ending}")
    record = open_record(tmp_path / f"a{ending}", ("t2m",))
    assert record.shape == (4, 3)
    np.testing.assert_array_equal(record.steps["t2m"].times, TIMES)
    np.testing.assert_array_equal(record.read("t2m", 5, 20), data.t2m.values[5:20])


@pytest.mark.parametrize(
    "dims",
    [("time", "lat", "lon"), ("valid_time", "latitude", "longitude"), ("Time", "LAT", "Lon")],
)
def test_axes_go_by_any_usual_name_and_any_order(tmp_path, dims):
    data = dataset(TIMES, dims=dims)
    path = write(data.transpose(dims[2], dims[0], dims[1]).expand_dims("number"), tmp_path / "a.nc")
    record = open_record(path, ("t2m",))
    assert record.files[0].axes == dims
    np.testing.assert_array_equal(record.read("t2m", 0, 48), data.t2m.values)


def test_axes_go_by_standard_name(tmp_path):
    data = dataset(TIMES, dims=("t", "y", "x"))
    for name, standard in (("t", "time"), ("y", "latitude"), ("x", "longitude")):
        data[name].attrs["standard_name"] = standard
    record = open_record(write(data, tmp_path / "a.nc"), ("t2m",))
    assert record.files[0].axes == ("t", "y", "x")


def test_blocks_cross_file_borders_in_order_of_time_not_of_names(tmp_path):
    data = dataset(hours("2020-01-01", 60))
    for name, part in (("a", slice(40, 60)), ("b", slice(20, 40)), ("c", slice(0, 20))):
        write(data.isel(valid_time=part), tmp_path / f"{name}.nc")
    for path in (tmp_path, tmp_path / "*.nc"):
        record = open_record(path, ("t2m",))
        np.testing.assert_array_equal(record.read("t2m", 0, 60), data.t2m.values)
        np.testing.assert_array_equal(record.read("t2m", 3, 59, 7), data.t2m.values[3:59:7])
        region = slice(1, 3), slice(2, 3)
        wanted = data.t2m.values[15:45, *region]
        np.testing.assert_array_equal(record.read("t2m", 15, 45, region=region), wanted)


def test_files_may_take_turns(tmp_path):
    data = dataset(TIMES)
    for start in range(3):
        write(data.isel(valid_time=slice(start, None, 3)), tmp_path / f"{start}.nc")
    record = open_record(tmp_path, ("t2m",))
    for every in (1, 2, 3, 6):
        found = record.read("t2m", 4, 40, every)
        np.testing.assert_array_equal(found, data.t2m.values[4:40:every])


def test_variables_may_live_in_files_of_their_own(tmp_path):
    data = dataset(TIMES, names=("sm", "tp", "lsm"))
    write(data[["sm"]], tmp_path / "instant.nc")
    write(data[["tp"]].isel(valid_time=slice(1, None)), tmp_path / "accum.nc")
    write(data[["lsm"]].isel(valid_time=0, drop=True), tmp_path / "static.nc")
    record = open_record(tmp_path, ("sm", "tp"))
    np.testing.assert_array_equal(record.read("sm", 3, 9), data.sm.values[3:9])
    np.testing.assert_array_equal(record.read("tp", 3, 9), data.tp.values[4:10])
    static = read_static(str(tmp_path / "static.nc"), "lsm", LAT, LON)
    np.testing.assert_array_equal(static, data.lsm.values[0])


def test_static_fields_are_found_in_any_order_turn_and_extent(tmp_path):
    """A global mask from -180 to 180 serves a region from 0 to 360."""
    lat, lon = np.arange(-90.0, 91, 10), np.arange(-180.0, 180, 20)
    mask = dataset(TIMES[:1], lat=lat, lon=lon, names=("lsm",)).isel(valid_time=0, drop=True)
    path = str(write(mask, tmp_path / "mask.nc"))
    rows, columns = np.array([60.0, 50, 40]), np.array([320.0, 340, 360 - 1e-6, 380])
    wanted = mask.lsm.sel(latitude=rows, longitude=[-40.0, -20, 0, 20]).values
    np.testing.assert_array_equal(read_static(path, "lsm", rows, columns), wanted)
    for wrong in (rows + 1, np.array([50.0, 55.0])):
        with pytest.raises(UserError, match=r"latitude is -90\.\.90"):
            read_static(path, "lsm", wrong, columns)


def test_packed_missing_and_infinite_values_become_nan(tmp_path):
    data = dataset(TIMES)
    data.t2m[2, 1, 1], data.t2m[3, 0, 0] = np.nan, np.inf
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -9999}
    finite = data.where(np.isfinite(data.t2m))
    finite.to_netcdf(tmp_path / "packed.nc", engine="h5netcdf", encoding={"t2m": packing})
    write(data, tmp_path / "plain.nc")
    packed, plain = (open_record(tmp_path / f"{n}.nc", ("t2m",)) for n in ("packed", "plain"))
    first, second = packed.read("t2m", 0, 6), plain.read("t2m", 0, 6)
    assert np.isnan(first).sum() == np.isnan(second).sum() == 2
    np.testing.assert_allclose(first, second, atol=0.0051)  # half a unit of the packing


def test_a_pickle_holds_no_file_and_reads_again(tmp_path):
    record = open_record(write(dataset(TIMES), tmp_path / "a.nc"), ("t2m",))
    before = record.read("t2m", 0, 3)
    copy = pickle.loads(pickle.dumps(record))
    assert copy._open._per_process == {}
    np.testing.assert_array_equal(copy.read("t2m", 0, 3), before)


def test_no_more_files_are_open_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_record, "MAX_OPEN_FILES", 2)
    data = dataset(hours("2020-01-01", 50))
    for i in range(5):
        write(data.isel(valid_time=slice(10 * i, 10 * i + 10)), tmp_path / f"{i}.nc")
    record = open_record(tmp_path, ("t2m",))
    for i in range(50):
        np.testing.assert_array_equal(record.read("t2m", i, i + 1)[0], data.t2m.values[i])
        assert len(record._open.held()) <= 2


def test_reading_a_step_does_not_read_the_record(tmp_path):
    grid = np.arange(64.0)
    data = dataset(hours("2020-01-01", 600), lat=grid, lon=grid)  # 600 × 64 × 64 × 4 B = 9.8 MB
    path = write(data, tmp_path / "a.nc")
    open_record(path, ("t2m",)).read("t2m", 0, 1)  # what libraries load once
    tracemalloc.start()
    try:
        open_record(path, ("t2m",)).read("t2m", 300, 301)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6


def _unsorted(data):
    return data.isel(valid_time=[0, 2, 1, 3])


def _repeated(data):
    return data.isel(valid_time=[0, 1, 1, 2])


FAULTS = {
    "latitude neither rises nor falls": lambda d: d.isel(latitude=[0, 2, 1]),
    "no time axis": lambda d: d.isel(valid_time=0, drop=True),
    "no latitude axis .*; rename what it is": lambda d: d.rename(latitude="row"),
    "is not a time": lambda d: d.assign_coords(valid_time=np.arange(48.0)),
    "runs backwards at step 2": _unsorted,
    "repeats at step 2": _repeated,
    "does not lie over time": lambda d: d.assign(t2m=d.t2m.isel(latitude=0, drop=True)),
    "'t2m' is missing; found .*other": lambda d: d.rename(t2m="other"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_file_with_a_fault_is_refused_by_name(tmp_path, message):
    path = write(FAULTS[message](dataset(TIMES)), tmp_path / "faulty.nc")
    with pytest.raises(UserError, match=message) as caught:
        open_record(path, ("t2m",))
    assert "\n" not in str(caught.value)


def _metres(data):
    data.t2m.attrs["units"] = "m"
    return data


CLASHES = {
    "times occur twice, the first 2020-02-01T12:00:00 in .*a.nc and in .*b.nc": lambda d: d,
    "b.nc: lat is 51..49": lambda d: d.isel(latitude=slice(1, None)),
    "b.nc: lon is 5.5..7.5": lambda d: d.assign_coords(longitude=d.longitude + 0.5),
    "t2m is in 'K' in .*a.nc, but in 'm'": _metres,
}


@pytest.mark.parametrize("message", CLASHES)
def test_files_that_do_not_fit_together_are_refused_by_name(tmp_path, message):
    first = dataset(TIMES)
    first.t2m.attrs["units"] = "K"
    write(first, tmp_path / "a.nc")
    write(CLASHES[message](dataset(hours("2020-02-01T12", 48))), tmp_path / "b.nc")
    with pytest.raises(UserError, match=message):
        open_record(tmp_path, ("t2m",))


def test_paths_without_data_are_refused_by_name(tmp_path):
    (tmp_path / "text.nc").write_text("no data at all")
    for path, message in (
        (tmp_path / "nothing.nc", "no such file, folder or pattern"),
        (tmp_path / "*.zarr", "no such file, folder or pattern"),
        (tmp_path / "text.nc", "cannot be opened"),
    ):
        with pytest.raises(UserError, match=message):
            open_record(path, ("t2m",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.nc"):
        open_record(tmp_path / "empty", ("t2m",))


def test_hidden_twins_of_another_system_are_no_files(tmp_path):
    write(dataset(TIMES), tmp_path / "a.nc")
    (tmp_path / "._a.nc").write_bytes(b"Mac OS X")
    assert find_files(tmp_path) == [str(tmp_path / "a.nc")]


def test_a_truncated_file_is_refused_by_name(tmp_path):
    path = write(dataset(hours("2020-01-01", 600)), tmp_path / "a.nc")
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(UserError, match=r"a\.nc"):
        open_record(path, ("t2m",)).read("t2m", 0, 600)


def test_fields_in_units_of_time_stay_numbers(tmp_path):
    data = dataset(TIMES)
    data.t2m.attrs["units"] = "days"
    record = open_record(write(data, tmp_path / "a.nc"), ("t2m",))
    np.testing.assert_array_equal(record.read("t2m", 0, 2), data.t2m.values[:2])


@pytest.mark.parametrize("calendar", ["noleap", "julian", "standard"])
def test_dates_of_other_calendars_are_those_of_their_names(tmp_path, calendar):
    data = dataset(TIMES[:4])
    path = tmp_path / "a.nc"
    data.to_netcdf(path, engine="h5netcdf")
    with h5py.File(path, "r+") as file:
        file["valid_time"][...] = [58, 59, 60, 61]  # February 28 is day 58 of a year
        file["valid_time"].attrs.update(units="days since 2020-01-01", calendar=calendar)
    times = open_record(path, ("t2m",)).steps["t2m"].times.astype("datetime64[D]").astype(str)
    leap = [] if calendar == "noleap" else ["2020-02-29"]
    assert times.tolist() == ["2020-02-28", *leap, "2020-03-01", "2020-03-02", "2020-03-03"][:4]


def test_a_calendar_of_dates_that_do_not_exist_is_refused_by_name(tmp_path):
    path = write(dataset(TIMES[:2]), tmp_path / "a.nc")
    with h5py.File(path, "r+") as file:
        file["valid_time"][...] = [58, 59]
        file["valid_time"].attrs.update(units="days since 2020-01-01", calendar="360_day")
    with pytest.raises(UserError, match=r"360_day, has dates that do not exist .*convert_calendar"):
        open_record(path, ("t2m",))


def test_axes_go_by_the_attributes_that_cf_gives_them(tmp_path):
    data = dataset(TIMES, dims=("initial_time0_hours", "g0_lat_1", "X"))
    data.initial_time0_hours.attrs["axis"] = "T"
    data.g0_lat_1.attrs["units"], data.X.attrs["units"] = "degrees_north", "degreesE"
    record = open_record(write(data, tmp_path / "a.nc"), ("t2m",))
    assert record.files[0].axes == ("initial_time0_hours", "g0_lat_1", "X")


def _months(folder, count=4):
    """Files of two days, the second first."""
    data = dataset(hours("2020-01-01", 48 * count))
    for i in range(count):
        write(data.isel(valid_time=slice(48 * i, 48 * i + 48)), folder / f"{i}.nc")
    return data


def _text_time(path):
    texts = [f"2020-01-05 {hour:02}:00" for hour in range(4)]
    write(dataset(TIMES[:4]).assign_coords(valid_time=texts), path)


def _dangling(path):
    path.unlink()
    path.symlink_to("nowhere.nc")


def _latin(path):
    with h5py.File(path, "r+") as file:
        file["t2m"].attrs["units"] = np.bytes_("°C".encode("latin-1"))


BAD = {
    "is not a time": _text_time,
    "the link leads nowhere|cannot be read": _dangling,
    "cannot be opened": lambda path: path.write_bytes(b"\0" * 4096),
    "runs backwards": lambda path: write(_unsorted(dataset(hours("2020-01-05", 4))), path),
}


@pytest.mark.parametrize("words", BAD)
def test_one_bad_file_is_left_out_by_name_and_the_rest_is_read(tmp_path, words):
    data = _months(tmp_path)
    BAD[words](tmp_path / "2.nc")
    record = open_record(tmp_path, ("t2m",))
    (line,) = record.unusable.values()
    assert line.startswith(str(tmp_path / "2.nc"))
    assert any(word in line for word in words.split("|"))
    assert len(record.steps["t2m"].times) == 48 * 3
    np.testing.assert_array_equal(record.read("t2m", 96, 144), data.t2m.values[144:])


def test_an_attribute_in_another_encoding_spoils_no_file(tmp_path):
    data = _months(tmp_path)
    _latin(tmp_path / "2.nc")
    record = open_record(tmp_path, ("t2m",))
    assert record.unusable == {}
    np.testing.assert_array_equal(record.read("t2m", 90, 120), data.t2m.values[90:120])


def test_a_record_half_of_which_is_unusable_is_refused(tmp_path):
    _months(tmp_path)
    for i in (0, 3):
        (tmp_path / f"{i}.nc").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"0\.nc: cannot be opened .*\(2 of 4 files are unusable"):
        open_record(tmp_path, ("t2m",))


def test_steps_that_are_damaged_are_missing_and_said_once(tmp_path, capsys):
    data = dataset(hours("2020-01-01", 40))
    packed = {"t2m": {"zlib": True, "chunksizes": (10, 4, 3)}}
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=packed)
    with h5py.File(tmp_path / "a.nc") as file:
        chunk = file["t2m"].id.get_chunk_info(2)
    whole = bytearray((tmp_path / "a.nc").read_bytes())
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "a.nc").write_bytes(whole)
    record = open_record(tmp_path / "a.nc", ("t2m",))
    wanted = data.t2m.values.copy()
    wanted[20:30] = np.nan
    for region in ((slice(None), slice(None)), (slice(1, 3), slice(0, 1))):
        found = record.read("t2m", 3, 40, 2, region)
        np.testing.assert_array_equal(found, wanted[3:40:2][:, *region])
    said = capsys.readouterr().err
    assert said.count(" of t2m, and maybe others, cannot be read") == 1
    assert "step 22 of t2m" in said  # the first of those that are looked at when it is opened
    assert len(record.unusable) == 1


@pytest.mark.parametrize("layout", [2, 3])
def test_zeros_of_a_plain_zarr_array_are_zeros(tmp_path, layout):
    """zarr's own fill value is 0; one that marks what is missing in packed fields still does."""
    rain = np.random.default_rng(0).random((48, 4, 3)).astype("f4") - 0.5
    rain = np.maximum(rain, 0)
    data = dataset(TIMES)
    data.t2m[3, 2, 1] = 0.0
    data.to_zarr(
        tmp_path / "a.zarr",
        zarr_format=layout,
        consolidated=False,
        encoding={"t2m": {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": 0}},
    )
    group = zarr.open_group(tmp_path / "a.zarr", mode="a")
    names = {"dimension_names": data.t2m.dims} if layout == 3 else {}
    array = group.create_array("tp", data=rain, fill_value=0, **names)
    array.attrs["_ARRAY_DIMENSIONS"] = list(data.t2m.dims)
    record = open_record(tmp_path / "a.zarr", ("t2m", "tp"))
    np.testing.assert_array_equal(record.read("tp", 0, 48), rain)
    packed = np.round(data.t2m.values / 1e-3) == 0
    np.testing.assert_array_equal(np.isnan(record.read("t2m", 0, 48)), packed)


def test_steps_that_several_files_hold_alike_count_once(tmp_path):
    """The second file is packed into 16 bits: equal up to the rounding of that."""
    data = dataset(hours("2020-02-01", 40))
    write(data.isel(valid_time=slice(0, 30)), tmp_path / "a.nc")
    scale = 0.001
    packed = {"t2m": {"dtype": "i2", "scale_factor": scale, "_FillValue": -32767}}
    data.isel(valid_time=slice(24, 40)).to_netcdf(
        tmp_path / "b.nc", engine="h5netcdf", encoding=packed
    )
    record = open_record(tmp_path, ("t2m",))
    assert record.notes == [
        "t2m: 6 times are in several files with the same values, the first 2020-02-02T00:00:00; "
        "they count once"
    ]
    found = record.read("t2m", 0, 40)
    np.testing.assert_array_equal(found[:30], data.t2m[:30])
    np.testing.assert_allclose(found[30:], data.t2m[30:], atol=0.501 * scale)
    record.close()
    data.t2m[27, 2, 1] += 3 * scale
    write(data.isel(valid_time=slice(24, 40)), tmp_path / "b.nc")
    with pytest.raises(UserError, match="on 2020-02-02T03:00:00 their values differ"):
        open_record(tmp_path, ("t2m",))


def test_marks_of_missing_values_that_no_attribute_names_are_missing(tmp_path, capsys):
    """One the first look shows, the other only where it is read."""
    data = dataset(hours("2020-02-01", 100))
    data.t2m[:, 0, 1] = -9999
    data.t2m[50, 3, 2] = 1e20
    write(data, tmp_path / "a.nc")
    record = open_record(tmp_path, ("t2m",))
    assert record.notes == [
        "t2m: -9999 stands for what is missing in 8 of 96 cells on 8 steps looked at"
    ]
    found = record.read("t2m", 0, 100)
    wanted = data.t2m.where(np.abs(data.t2m) < 9000)
    np.testing.assert_array_equal(found, wanted)
    assert np.isnan(found).sum() == 101
