"""Laws of preparation: the same values, each file once, nothing half-written is trusted."""

import os
import shutil
import subprocess
import tracemalloc

import h5py
import numpy as np
import pytest
import xarray as xr

from tds_jax.data.whole_file import temporary_of
from tds_jax.errors import UserError
from tds_jax.forecast import prepare as module
from tds_jax.forecast.fields import DailyFields
from tds_jax.forecast.opened import open_fields
from tds_jax.forecast.prepare import Prepare
from tests.forecast.files import dataset, hours, write


def quiet(done, total):
    pass


def opened(path, names=("sm", "tp"), **options):
    settings = {"accumulated": ("tp",), "land_mask": "", "downsample": 1} | options
    return open_fields(path, names, "sm", **settings)


def month(folder, first, days):
    """A file of hours, with sea in one corner."""
    data = dataset(hours(first, 24 * days), names=("sm", "tp"), seed=int(first[5:7]))
    data.sm[:, :2, :2] = np.nan
    data.sm.attrs["units"], data.sm.attrs["long_name"] = "m3 m-3", "Soil moisture"
    return write(data, folder / f"{first}.nc")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """January, February and April, prepared by months."""
    monkeypatch.setattr(module, "FILE_BYTES", 1)
    (tmp_path / "hourly").mkdir()
    for first, days in (("2020-01-01", 31), ("2020-02-01", 29), ("2020-04-01", 30)):
        month(tmp_path / "hourly", first, days)
    return tmp_path / "hourly"


JOB = Prepare(("sm", "tp"), accumulated=("tp",))
FILES = ["2020-01.nc", "2020-02.nc", "2020-04.nc"]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_prepared_days_are_the_days_of_the_source(source, tmp_path, factor, compression):
    job = Prepare(JOB.variables, "", ("tp",), "", factor, compression)
    assert job.run(source, tmp_path / "daily", quiet) == (3, 0, [])
    names = sorted(path.name for path in (tmp_path / "daily").iterdir())
    assert names == [*FILES, "land.nc", "prepared.json"]
    wanted, found = opened(source, downsample=factor), opened(tmp_path / "daily")
    np.testing.assert_array_equal(found.days, wanted.days)
    count = len(wanted.days)
    np.testing.assert_array_equal(found.read(0, count), wanted.read(0, count))
    np.testing.assert_array_equal(found.land, wanted.land)
    np.testing.assert_allclose(found.lat, wanted.lat)
    assert found.attributes["sm"]["long_name"] == "Soil moisture"
    masked = opened(tmp_path / "daily", land_mask=f"{tmp_path / 'daily' / 'land.nc'}:lsm")
    np.testing.assert_array_equal(masked.land, wanted.land)


def test_an_output_that_ends_so_is_one_zarr_store(tmp_path):
    folder, store = tmp_path / "hourly", tmp_path / "daily.zarr"
    folder.mkdir()
    month(folder, "2020-01-01", 9)
    assert JOB.run(folder, store, quiet) == (1, 0, [])
    wanted, found = opened(folder), opened(store)
    np.testing.assert_array_equal(found.read(0, 9), wanted.read(0, 9))
    np.testing.assert_array_equal(opened(store, land_mask=f"{store}:lsm").land, wanted.land)
    assert JOB.run(folder, store, quiet) == (0, 1, [])
    month(folder, "2020-01-10", 2)
    assert JOB.run(folder, store, quiet) == (1, 0, [])
    assert len(opened(store).days) == 11
    assert Prepare(("sm",)).run(folder, store, quiet) == (1, 0, [])
    write(dataset(hours("2020-01-01", 24)), tmp_path / "other.zarr")
    with pytest.raises(UserError, match=r"other\.zarr is not of prepare"):
        JOB.run(folder, tmp_path / "other.zarr", quiet)


def test_others_can_read_what_was_prepared(source, tmp_path):
    JOB.run(source, tmp_path / "daily", quiet)
    with xr.open_dataset(tmp_path / "daily" / "2020-02.nc", engine="h5netcdf") as data:
        assert data.sm.dims == ("time", "latitude", "longitude")
        assert data.sm.attrs["units"] == "m3 m-3"
        assert data.time.values[[0, -1]].astype("datetime64[D]").astype(str).tolist() == [
            "2020-02-01",
            "2020-02-29",
        ]


def test_a_killed_preparation_goes_on_and_trusts_no_half_file(source, tmp_path, monkeypatch):
    target, read, calls = tmp_path / "daily", DailyFields.read, []
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)  # a day at a time

    def dies(self, start, stop, *rest, **more):
        calls.append(start)
        if start == 40:
            raise KeyboardInterrupt
        return read(self, start, stop, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(DailyFields, "read", dies)
        with pytest.raises(KeyboardInterrupt):
            JOB.run(source, target, quiet)
    assert sorted(path.name for path in target.iterdir()) == ["2020-01.nc", "prepared.json"]
    killed = subprocess.Popen(["true"])
    killed.wait()
    leftover = temporary_of(target / "2020-02.nc", killed.pid)
    leftover.write_bytes(b"what a kill -9 would have left")
    before = (target / "2020-01.nc").stat().st_mtime_ns
    assert JOB.run(source, target, quiet) == (2, 1, [])
    assert (target / "2020-01.nc").stat().st_mtime_ns == before
    count = len(opened(source).days)
    np.testing.assert_array_equal(opened(target).read(0, count), opened(source).read(0, count))
    assert not list(target.glob("*.tmp"))


def test_only_what_changed_or_came_new_is_written(source, tmp_path):
    target = tmp_path / "daily"
    JOB.run(source, target, quiet)
    assert JOB.run(source, target, quiet) == (0, 3, [])
    file = source / "2020-04-01.nc"
    os.utime(file, (0, 0))
    assert JOB.run(source, target, quiet) == (0, 3, [])  # touched, the same
    other = shutil.copy(file, tmp_path)
    with h5py.File(other, "r+") as data:  # other soil, as large and as old
        data["sm"][...] = data["sm"][...] / 2
    os.replace(other, file)
    os.utime(file, (0, 0))
    assert JOB.run(source, target, quiet) == (1, 2, [])
    np.testing.assert_array_equal(opened(target).read(0, 89), opened(source).read(0, 89))
    month(source, "2020-05-01", 31)  # gives April 30 its total, too
    assert JOB.run(source, target, quiet) == (2, 2, [])
    assert np.isfinite(opened(target).read(89, 90)[..., 1]).all()


def test_a_mask_that_moved_is_written_anew_and_months_of_another_record_are_refused(
    source, tmp_path
):
    target = tmp_path / "daily"
    JOB.run(source, target, quiet)
    with h5py.File(target / "land.nc", "r+") as land:
        land["lsm"][...] = 1
        land.attrs["prepared_from"] = "another mask"
    JOB.run(source, target, quiet)
    np.testing.assert_array_equal(opened(target).land, opened(source).land)
    with xr.open_dataset(target / "land.nc", engine="h5netcdf") as land:
        np.testing.assert_array_equal(land.lsm.values > 0.5, opened(source).land)
    (source / "2020-04-01.nc").unlink()
    with pytest.raises(UserError, match=r"holds 2020-04.nc, which --input does not lead to"):
        JOB.run(source, target, quiet)


def test_a_folder_of_something_else_is_refused(source, tmp_path):
    target = tmp_path / "daily"
    JOB.run(source, target, quiet)
    with pytest.raises(UserError, match="prepared in another way"):
        Prepare(("sm",)).run(source, target, quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    for wrong in (tmp_path / "mine", source):
        with pytest.raises(UserError, match="--output"):
            JOB.run(source, wrong, quiet)
    with pytest.raises(UserError, match="--variables is empty; name one"):
        Prepare(()).run(source, target, quiet)
    with pytest.raises(UserError, match=r"--variables: sm@18 of a day .*--step_hours=6"):
        Prepare(("sm", "sm@18")).run(source, target, quiet)
    with pytest.raises(UserError, match="--compression='zip' must be"):
        Prepare(("sm",), compression="zip").run(source, target, quiet)


def test_progress_counts_days(source, tmp_path):
    seen = []
    JOB.run(source, tmp_path / "daily", lambda done, total: seen.append((done, total)))
    assert seen == [(0, 90), (31, 90), (60, 90), (90, 90)]


def test_memory_does_not_grow_with_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 2**18)
    grid = np.arange(64.0)
    for i in range(2):  # 200 × 64 × 64 × 4 B = 3.3 MB each
        data = dataset(hours(f"202{i}-01-01", 200, 24), lat=grid, lon=grid, names=("sm",))
        write(data, tmp_path / f"{i}.nc")
    job = Prepare(("sm",))
    job.run(tmp_path / "0.nc", tmp_path / "first", quiet)  # what libraries load once
    tracemalloc.start()
    try:
        job.run(tmp_path, tmp_path / "daily", quiet)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5e6


@pytest.mark.parametrize("kind", ["step", "running"])
@pytest.mark.parametrize("hours_of_step", [24, 6])
@pytest.mark.parametrize("told", [True, False])
def test_prepared_totals_stay_in_their_step(tmp_path, kind, hours_of_step, told):
    """Of whatever kind the source was, and whether or not the run still calls them so."""
    data = dataset(hours("2020-01-01", 24 * 9 + 1), names=("sm", "tp"))
    rain = np.abs(data.tp.values)
    rain[0] = 0
    if kind == "running":
        for hour in range(1, len(rain)):
            rain[hour] += rain[hour - 1] if hour % 24 != 1 else 0
    data.tp[...] = rain
    write(data, tmp_path / "a.nc")
    named = (f"tp={kind}",)
    job = Prepare(("sm", "tp"), accumulated=named, step_hours=hours_of_step)
    for end in ("daily", "daily.zarr"):
        job.run(tmp_path / "a.nc", tmp_path / end, quiet)
        for step in {hours_of_step, 24}:
            wanted = opened(tmp_path / "a.nc", accumulated=named, step_hours=step)
            found = opened(tmp_path / end, accumulated=named if told else (), step_hours=step)
            np.testing.assert_array_equal(found.days[:9], wanted.days[:9])
            np.testing.assert_allclose(found.read(0, 9), wanted.read(0, 9), rtol=1e-5)


def test_totals_that_begin_at_their_stamps_are_those_of_its_day(tmp_path):
    data = dataset(hours("2020-01-01", 48), names=("sm", "tp"))
    write(data, tmp_path / "a.nc")
    found = opened(tmp_path / "a.nc", accumulated=("tp=begin",))
    wanted = data.tp.values.reshape(2, 24, *data.tp.shape[1:]).sum(axis=1)
    np.testing.assert_allclose(found.read(0, 2)[..., 1], wanted, rtol=1e-5)
    assert found.left_out == []
