"""Laws of daily fields: means, true totals, coarse grids, land, fingerprints."""

import os
import pickle

import numpy as np
import pytest

from tds_jax.errors import UserError
from tds_jax.forecast import fields as module
from tds_jax.forecast.coarse import CoarseFields, coarsen
from tds_jax.forecast.days import DAY, runs, year_fraction
from tds_jax.forecast.opened import open_fields
from tests.forecast.files import LAT, LON, ArrayFields, dataset, dates, hours, write


def opened(path, variables=("t2m",), **options):
    settings = {"accumulated": (), "land_mask": "", "downsample": 1} | options
    return open_fields(path, variables, variables[0], **settings)


def running_totals(times, rate):
    """(n, H, W) of an accumulation at a constant rate per hour, from 00 UTC, ERA5-Land's way."""
    hour = (times - times.astype("datetime64[D]")).astype("timedelta64[h]").astype(int)
    return rate * np.where(hour == 0, 24, hour)[:, None, None] * np.ones((len(LAT), len(LON)))


@pytest.mark.parametrize("step", [1, 6])
def test_a_day_is_the_mean_of_its_steps(tmp_path, step):
    data = dataset(hours("2020-01-30", 96 // step, step))
    fields = opened(write(data, tmp_path / "a.nc"))
    np.testing.assert_array_equal(fields.days, dates("2020-01-30", 4))
    wanted = data.t2m.values.reshape(4, 24 // step, 4, 3).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(fields.read(0, 4)[..., 0], wanted, rtol=1e-7)
    np.testing.assert_array_equal(fields.read(1, 3), fields.read(0, 4)[1:3])


def test_daily_data_pass_through_at_any_hour_named_accumulated_or_not(tmp_path):
    data = dataset(hours("2020-01-30T12", 5, 24))
    path = write(data, tmp_path / "a.nc")
    for accumulated in ((), ("t2m",)):
        fields = opened(path, accumulated=accumulated)
        np.testing.assert_array_equal(fields.days, dates("2020-01-30", 5))
        np.testing.assert_array_equal(fields.read(0, 5)[..., 0], data.t2m.values)


def test_a_day_that_lacks_a_step_is_no_day(tmp_path):
    data = dataset(hours("2020-01-01", 24 * 6))
    data = data.isel(valid_time=np.delete(np.arange(24 * 6), [24 * 2 + 5]))
    fields = opened(write(data, tmp_path / "a.nc"))
    np.testing.assert_array_equal(fields.days, dates("2020-01-01", 6)[[0, 1, 3, 4, 5]])
    assert runs(fields.days) == [(0, 2), (2, 5)]
    whole = [data.t2m.sel(valid_time=str(day)).values.mean(axis=0) for day in fields.days]
    np.testing.assert_allclose(fields.read(0, 5)[..., 0], whole, atol=1e-6)  # f32 sum of 24


def test_a_cell_that_lacks_a_step_is_missing_that_day_and_no_other_cell_is(tmp_path):
    data = dataset(hours("2020-01-01", 48))
    data.t2m[30, 2, 1] = np.nan
    missing = np.isnan(opened(write(data, tmp_path / "a.nc")).read(0, 2)[..., 0])
    assert np.argwhere(missing).tolist() == [[1, 2, 1]]


@pytest.mark.parametrize("said", ["named", "by attribute"])
def test_a_total_is_the_value_at_the_next_midnight_across_files(tmp_path, said):
    """At a rate of r per hour a day's total is 24 r; its mean over hours 0..23 would be 12.5 r."""
    times = hours("2020-01-30", 24 * 4)
    data = dataset(times, names=("sm", "tp"))
    data.tp[...] = running_totals(times, 2.0)
    data.tp[48] += 5.0  # 2020-02-01T00: the total of January 31
    if said == "by attribute":
        data.tp.attrs["GRIB_stepType"] = "accum"
    write(data.isel(valid_time=slice(0, 48)), tmp_path / "2020-1.nc")
    write(data.isel(valid_time=slice(48, None)), tmp_path / "2020-2.nc")
    fields = opened(tmp_path, ("sm", "tp"), accumulated=("tp",) if said == "named" else ())
    totals = fields.read(0, 4)[..., 1]
    np.testing.assert_array_equal(totals[:, 0, 0], np.float32([48, 53, 48, np.nan]))


def test_totals_before_a_missing_month_are_missing_and_not_those_of_another_day(tmp_path):
    times = np.concatenate([hours("2020-01-29", 72), hours("2020-03-01", 72)])
    data = dataset(times, names=("sm", "tp"))
    data.tp[...] = np.arange(144)[:, None, None]
    fields = opened(write(data, tmp_path / "a.nc"), ("sm", "tp"), accumulated=("tp",))
    first, second = dates("2020-01-29", 3), dates("2020-03-01", 3)
    np.testing.assert_array_equal(fields.days, np.concatenate([first, second]))
    wanted = np.float32([24, 48, np.nan, 96, 120, np.nan])
    np.testing.assert_array_equal(fields.read(0, 6)[:, 0, 0, 1], wanted)


def test_days_are_those_of_the_target_whatever_the_others_have(tmp_path):
    data = dataset(hours("2020-01-01", 96), names=("sm", "tp"))
    write(data[["sm"]].isel(valid_time=slice(24, None)), tmp_path / "a.nc")
    write(data[["tp"]].isel(valid_time=slice(0, 72)), tmp_path / "b.nc")
    fields = opened(tmp_path, ("sm", "tp"))
    np.testing.assert_array_equal(fields.days, dates("2020-01-02", 3))
    there = np.isfinite(fields.read(0, 3)).all(axis=(1, 2))
    np.testing.assert_array_equal(there, [[True, True], [True, True], [True, False]])


def test_blocks_variables_and_regions_do_not_change_values(tmp_path, monkeypatch):
    times = hours("2020-01-01", 24 * 7)
    data = dataset(times, names=("sm", "tp"))
    fields = opened(write(data, tmp_path / "a.nc"), ("sm", "tp"), accumulated=("tp",))
    whole = fields.read(0, 7)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 12 * 50)  # two days of hours
    region = slice(1, 3), slice(0, 2)
    np.testing.assert_array_equal(fields.read(0, 7), whole)
    np.testing.assert_array_equal(fields.read(2, 6, ("tp",)), whole[2:6, ..., 1:])
    np.testing.assert_array_equal(fields.read(2, 6, region=region), whole[2:6][:, *region])
    copy = pickle.loads(pickle.dumps(fields))
    np.testing.assert_array_equal(copy.read(3, 5), whole[3:5])


def test_land_is_where_the_target_is_ever_there_or_the_mask_says(tmp_path):
    data = dataset(hours("2020-01-01", 24 * 3))
    data.t2m[:, 0, :] = np.nan
    data.t2m[:48, 1, :] = np.nan
    path = write(data, tmp_path / "a.nc")
    assert opened(path).land.sum(axis=1).tolist() == [0, 3, 3, 3]
    share = dataset(hours("2020-01-01", 1), names=("lsm",)).isel(valid_time=0, drop=True)
    share.lsm[...] = np.arange(12).reshape(4, 3) / 11
    mask = f"{write(share, tmp_path / 'land.nc')}:lsm"
    assert opened(path, land_mask=mask).land.sum(axis=1).tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize("factor", [1, 2])
def test_what_the_target_is_at_sea_changes_nothing_on_the_coast(tmp_path, factor):
    data = dataset(hours("2020-01-01", 24 * 3))
    share = dataset(hours("2020-01-01", 1), names=("lsm",)).isel(valid_time=0, drop=True)
    share.lsm[...] = np.float32([[0, 1, 1]] * 4)
    mask = f"{write(share, tmp_path / 'land.nc')}:lsm"
    found = []
    for i, value in enumerate((np.nan, 0.0, 1e30)):
        data.t2m[:, :, 0] = value
        path = write(data, tmp_path / f"{i}.nc")
        found.append(opened(path, land_mask=mask, downsample=factor).read(0, 3))
    assert np.isfinite(found[0]).any()
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_coarse_values_are_means_of_what_is_there():
    values = np.arange(15.0, dtype=np.float32).reshape(1, 3, 5, 1)
    values[0, 0, 0], values[0, :2, 2:4] = np.nan, np.nan
    wanted = np.float32([[12 / 3, np.nan, 13 / 2], [21 / 2, 25 / 2, 14]])
    np.testing.assert_allclose(coarsen(values, 2)[0, ..., 0], wanted, rtol=1e-7)


def test_coarse_fields_are_coarse_in_every_part():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5, 7, 2))
    values[:, :2, :2, 0], values[:, 2, 2, 0] = np.nan, np.nan
    coarse = CoarseFields(ArrayFields(values), 2)
    whole = coarsen(values.astype(np.float32), 2)
    assert whole.shape == (4, len(coarse.lat), len(coarse.lon), 2) == (4, 3, 4, 2)
    np.testing.assert_array_equal(coarse.read(0, 4), whole)
    region = slice(1, 3), slice(2, 4)
    np.testing.assert_array_equal(coarse.read(1, 3, region=region), whole[1:3, 1:3, 2:4])
    np.testing.assert_array_equal(coarse.lat, [49.5, 47.5, 46.0])
    assert np.argwhere(~coarse.land).tolist() == [[0, 0]]


def test_the_digest_knows_the_data_and_not_their_place(tmp_path):
    data = dataset(hours("2020-01-01", 72))
    one, two = (write(data, tmp_path / f"{n}.nc") for n in "ab")
    later = write(dataset(hours("2020-01-02", 72)), tmp_path / "c.nc")
    assert opened(one).digest() == opened(two).digest()
    others = [opened(later), opened(one, downsample=2), opened(one, accumulated=("t2m",))]
    assert len({opened(one).digest(), *(other.digest() for other in others)}) == 4


def test_the_origin_changes_with_the_files_its_days_are_in(tmp_path):
    for i, first in enumerate(("2020-01-01", "2020-01-03")):
        write(dataset(hours(first, 48)), tmp_path / f"{i}.nc")
    before = [opened(tmp_path).origin(*part) for part in ((0, 2), (2, 4))]
    os.utime(tmp_path / "0.nc", (0, 0))  # touched, the same
    (tmp_path / "new").mkdir()
    write(dataset(hours("2020-01-03", 48), seed=1), tmp_path / "new" / "1.nc")
    os.replace(tmp_path / "new" / "1.nc", tmp_path / "1.nc")
    after = [opened(tmp_path).origin(*part) for part in ((0, 2), (2, 4))]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_settings_that_make_no_fields_are_refused_by_name(tmp_path):
    path = write(dataset(hours("2020-01-01", 30)), tmp_path / "a.nc")
    for options, message in (
        ({"accumulated": ("tp",)}, "data.accumulated: 'tp' is not among"),
        ({"downsample": 5}, "data.downsample=5 does not fit the grid of 4 x 3"),
        ({"downsample": 0}, "data.downsample=0"),
        ({"land_mask": "land.nc"}, "must be FILE:VARIABLE"),
    ):
        with pytest.raises(UserError, match=message):
            assert opened(path, **options).land.any()
    with pytest.raises(UserError, match=r"data\.target='x' must be one of"):
        open_fields(path, ("t2m",), "x", accumulated=(), land_mask="", downsample=1)
    write(dataset(hours("2021-01-01", 48), names=("tp",)), tmp_path / "c.nc")
    with pytest.raises(UserError, match="tp: there is no day for which both"):
        opened(tmp_path, ("t2m", "tp"))
    noon = dataset(np.delete(hours("2020-01-01", 40), [0, 24]))
    with pytest.raises(UserError, match="no day is complete"):
        opened(write(noon, tmp_path / "b.nc"), accumulated=("t2m",))


def test_year_fractions_rise_through_each_calendar_year():
    days = dates("2019-12-30", 3 + 366)
    fraction = year_fraction(days)
    assert fraction[:3].tolist() == [363 / 365, 364 / 365, 0]
    np.testing.assert_allclose(np.diff(fraction[2:-1]), 1 / 366)
    assert days[-2] + DAY == np.datetime64("2021-01-01")
    assert fraction[-1] == 0


def _mask(folder, share):
    """'FILE:VARIABLE' of a mask on the grid of the files."""
    data = dataset(hours("2020-01-01", 1), names=("lsm",)).isel(valid_time=0, drop=True)
    data.lsm[...] = np.broadcast_to(np.float32(share), data.lsm.shape)
    return f"{write(data, folder / 'mask.nc')}:lsm"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ([0, 0, 100], "is 0 to 100; it must be a share of land, 0 to 1"),
        ([0, 0, 0], "has 0 cells of land"),
        ([1, 0, 0], r"has 4 cells of land, and t2m on 3 days is there in 0 of them and in 8"),
        (np.nan, "is missing everywhere"),
    ],
)
def test_a_mask_that_cannot_be_of_the_data_is_refused(tmp_path, share, words):
    data = dataset(hours("2020-01-01", 24 * 3))
    data.t2m[:, :, 0] = np.nan  # sea in the first column
    path = write(data, tmp_path / "a.nc")
    assert opened(path, land_mask=_mask(tmp_path, [0, 1, 1])).land.sum() == 8
    more = opened(path, land_mask=_mask(tmp_path, [1, 1, 1]))
    assert more.land.sum() == 8
    assert "mask.nc:lsm: 4 cells of its land never have t2m, and count as sea" in more.notes[-1]
    with pytest.raises(UserError, match=words):
        assert opened(path, land_mask=_mask(tmp_path, share)).land.any()


def test_a_cell_that_few_days_have_is_land_too(tmp_path):
    """Swaths: days have other cells than their neighbours, one cell has a single day of 200."""
    data = dataset(hours("2020-01-01", 200, 24))
    data.t2m[::2, :, 1] = np.nan
    data.t2m[:, 0, 0] = np.nan
    data.t2m[:, 3, 2] = np.nan
    data.t2m[80, 3, 2] = 1.0  # none of those looked at first
    land = opened(write(data, tmp_path / "a.nc")).land
    assert np.argwhere(~land).tolist() == [[0, 0]]


def test_days_that_lack_steps_are_counted_and_most_days_are_not_left_out(tmp_path):
    times = hours("2020-01-01", 24 * 6)
    path = write(dataset(np.delete(times, [30, 80])), tmp_path / "a.nc")
    (line,) = opened(path).notes
    assert line == "t2m: 2 of 6 days lack steps and are left out: 2020-01-02, 2020-01-04"
    rest = np.delete(times, [k for day in range(4) for k in range(24 * day, 24 * day + 3 + day)])
    with pytest.raises(UserError, match=r"4 of 6 days lack steps .*give whole days"):
        opened(write(dataset(rest), tmp_path / "b.nc"))


def test_an_hour_is_the_step_of_that_stamp_on_every_day_that_the_target_has(tmp_path):
    data = dataset(hours("2020-01-30", 16, 6)).assign_attrs()
    data.t2m.attrs["units"] = "K"
    path = write(data.isel(valid_time=np.delete(np.arange(16), 7)), tmp_path / "a.nc")
    fields = opened(path, ("t2m", "t2m@18", "t2m@6"))
    np.testing.assert_array_equal(fields.days, dates("2020-01-30", 4)[[0, 2, 3]])
    steps = data.t2m.values.reshape(4, 4, 4, 3)[[0, 2, 3]]
    np.testing.assert_array_equal(fields.read(0, 3)[..., 1], steps[:, 3])
    np.testing.assert_array_equal(fields.read(1, 3, ("t2m@6",))[..., 0], steps[1:, 1])
    assert fields.attributes["t2m@18"]["units"] == "K"
    with pytest.raises(UserError, match="t2m@7 has no step at 07 UTC; t2m has 00, 06, 12 and 1"):
        opened(path, ("t2m", "t2m@7"))
    with pytest.raises(UserError, match="'t2m@24' must be NAME or NAME@HOUR"):
        opened(path, ("t2m", "t2m@24"))
    with pytest.raises(UserError, match="forecast 't2m'"):
        opened(path, ("t2m@6",))


def test_totals_have_no_value_at_an_hour(tmp_path):
    times = hours("2020-01-30", 72)
    data = dataset(times)
    data["t2m"] = (data.t2m.dims, running_totals(times, 0.1))
    path = write(data, tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"t2m@18 is of totals \(running\)"):
        opened(path, ("t2m", "t2m@18"), accumulated=("t2m",))
