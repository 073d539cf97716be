"""Laws of the generated record: water is kept, files are ERA5-Land's, all of it repeats."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from tds_jax.data.generated import cached, synthesize
from tds_jax.errors import UserError
from tds_jax.forecast import baselines, weather
from tds_jax.forecast.days import runs, year_fraction
from tds_jax.forecast.opened import open_fields
from tds_jax.forecast.synthetic import (
    ACCUMULATED,
    DEPTH,
    SATURATION,
    SPIN_UP,
    VARIABLES,
    Simulation,
    grid,
    land,
    simulate,
)
from tds_jax.forecast.windows import ForecastWindows, WindowSpec, window_starts
from tests.forecast import oracle
from tests.forecast.files import ArrayFields

SMALL = Simulation(
    start="2019-12", months=3, missing_month="2020-01", height=6, width=8, land=0.6, seed=3
)

LONGER = Simulation(months=9, height=10, width=14, land=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("data") / "small", SMALL)


def opened(folder):
    return open_fields(
        folder, tuple(VARIABLES), "swvl1", accumulated=(), land_mask="", downsample=1
    )


def test_files_have_the_layout_of_era5_land(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "2019-12.nc",
        "2020-02.nc",
        "land.nc",
        "simulation.json",
    ]
    lat, lon = grid(SMALL)
    with xr.open_dataset(folder / "2020-02.nc", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"valid_time": 29 * 24, "latitude": 6, "longitude": 8}
        assert (np.diff(data.latitude) < 0).all()
        np.testing.assert_array_equal(data.longitude, lon)
        np.testing.assert_array_equal(data.latitude, lat)
        assert set(data.data_vars) == set(VARIABLES)
        for name in VARIABLES:
            kind = "accum" if name in ACCUMULATED else "instant"
            assert data[name].attrs["GRIB_stepType"] == kind
            assert data[name].attrs["units"] == VARIABLES[name]["units"]
            there = np.isfinite(data[name].values)
            np.testing.assert_array_equal(there, np.broadcast_to(land(SMALL), there.shape))
    assert land(SMALL).sum() == round(0.6 * 48)


def test_totals_run_from_midnight_and_soil_stays_between_dry_and_saturated(folder):
    with xr.open_dataset(folder / "2019-12.nc", engine="h5netcdf") as data:
        ground = land(SMALL)
        rain = data.tp.values[:, ground].reshape(31, 24, -1)
        assert (np.diff(rain[:, 1:], axis=1) >= 0).all()
        assert (rain[1:, 0] >= rain[:-1, 23]).all()  # at midnight still the day before's
        assert (rain[:, 1] <= rain[:, 0] + 0.05).all()
        assert rain.max() > 0
        soil = data.swvl1.values[:, ground]
        assert 0.05 < soil.min() < soil.max() < SATURATION + 1e-6  # f32


def test_daily_totals_close_the_water_balance_and_daily_means_do_not(folder):
    """Soil at two midnights differs by what the day between brought and took."""
    with xr.open_dataset(folder / "2019-12.nc", engine="h5netcdf") as data:
        ground = land(SMALL)
        midnights = data.swvl1.values[::24, ground].astype(np.float64)
        hourly = {n: data[n].values[:, ground].reshape(31, 24, -1) for n in ACCUMULATED}
    fields = opened(folder).read(0, 30)[:, ground].astype(np.float64)
    total = dict(zip(VARIABLES, np.moveaxis(fields, -1, 0), strict=True))
    change = np.diff(midnights, axis=0) * DEPTH
    closed = total["tp"] + total["e"] - total["ro"] - change
    assert np.abs(closed).max() < 1e-8  # f32 of soil: .07 m × .4 × 6e-8 × 2 = 3e-9 m
    means = {name: values.mean(axis=1)[:30] for name, values in hourly.items()}
    assert np.abs(means["tp"] + means["e"] - means["ro"] - change).max() > 1e-3


def test_a_missing_month_is_a_gap_and_the_day_before_it_has_no_total(folder):
    fields = opened(folder)
    assert runs(fields.days) == [(0, 31), (31, 60)]
    there = np.isfinite(fields.read(29, 33)[:, land(SMALL)]).all(axis=1)
    last = [name not in ACCUMULATED for name in VARIABLES]
    wanted = [[True] * 7, last, [True] * 7, [True] * 7]
    np.testing.assert_array_equal(there, wanted)


def test_windows_hold_the_days_that_followed_and_a_planted_one_over_the_gap_does_not(folder):
    """Against the simulation itself, which knows the month that no file has."""
    fields, ground, spec = opened(folder), land(SMALL), WindowSpec(6, 4)
    soil = np.stack([day["swvl1"].mean(axis=0) for _, day in simulate(SMALL)])[:, ground]
    everything = range(len(fields.days))

    def wrong(starts):
        source = ForecastWindows(fields, spec, starts)
        examples = [(start, source.example(i, None)) for i, start in enumerate(starts)]
        return [
            int(start)
            for start, e in examples
            if not np.allclose(
                np.concatenate([e["fields"][..., 0], e["target"]])[:, ground],
                soil[(fields.days[start] - fields.days[0]).astype(int) :][:10],
                atol=1e-6,
            )
        ]

    assert wrong(window_starts(fields.days, spec, everything, 0)) == []
    assert wrong(np.arange(51)) == list(range(22, 31))  # those that begin before February


@pytest.fixture(scope="module")
def months():
    """Daily means of nine months of land, and the soil of every midnight."""
    names, means, soil = ("swvl1", "tp", "u10", "d2m"), [], []
    for _, day in simulate(LONGER):
        means.append(np.stack([day[name].mean(axis=0) for name in names], axis=-1))
        soil.append(day["swvl1"][0].astype(np.float64))
    return ArrayFields(np.stack(means), first_day(LONGER) + np.arange(len(means))), soil


def test_soil_remembers_for_days_and_rain_does_not(months):
    values = months[0].values - months[0].values.mean(axis=0)

    def memory(channel, lag):
        x = values[..., channel]
        return (x[:-lag] * x[lag:]).sum() / np.square(x).sum()

    assert memory(0, 1) > 0.7
    assert memory(0, 3) > 0.2
    assert memory(1, 3) < 0.2


def test_wind_carries_moisture_and_time_takes_from_it():
    """A wind of whole cells: an hour later the same map, so many columns and rows further."""
    now = next(weather.weather((8, 9), np.random.default_rng(0)))
    after = dataclasses.replace(now, wind=complex(2, 1)).expected()
    kept = np.exp(-1 / weather.HOURS)
    # Transforms in f64 of 16 x 18 numbers of about 1.
    np.testing.assert_allclose(after.moisture[1:, 2:], kept * now.moisture[:-1, :-2], atol=1e-13)
    assert np.abs(after.moisture - kept * now.moisture).max() > 0.1


def test_linear_maps_stay_far_behind_the_law_that_made_the_soil(months):
    """Their mean square errors, one to three days ahead, are twice those of the law itself, which
    knows the wind; persistence, damped or not, is no better than they."""
    (fields, soil), leads = months, 3
    days = fields.days
    fitted = baselines.fit(fields, range(200), leads, 1, periodic=False)
    starts = range(200, len(days) - leads, 2)
    found = baselines.forecasts(fitted, two_days_before(fields, starts, leads), 0, periodic=False)
    air = every_midnight(LONGER, len(days))
    found["law"] = [oracle.forecast(soil[i], air[i], days[i], leads) for i in starts]
    truth = np.stack([fields.values[i : i + leads, ..., 0] for i in starts])
    error = {name: np.square(np.asarray(maps) - truth).mean() for name, maps in found.items()}
    others = min(each for name, each in error.items() if name != "law")
    assert others > 2 * error["law"], error
    assert error["linear"] < error["persistence"]


def every_midnight(simulation, count):
    """The air at 00 UTC of each day of the record."""
    rng = np.random.default_rng((simulation.seed, 1))
    hours = weather.weather((simulation.height, simulation.width), rng)
    return list(itertools.islice(hours, 24 * SPIN_UP, 24 * (SPIN_UP + count), 24))


def first_day(simulation):
    return simulation.calendar()[0].astype("datetime64[D]")


def two_days_before(fields, starts, leads):
    """Windows of two days before each start and those after, as tasks hand them to baselines."""
    values = np.stack([fields.values[i - 2 : i] for i in starts])
    phase = np.stack([year_fraction(fields.days[i - 2 : i + leads]) for i in starts])
    batch = {"fields": values, "present": np.ones_like(values), "phase": phase}
    return {name: jnp.asarray(value, jnp.float32) for name, value in batch.items()}


def test_the_record_depends_on_its_parameters_alone():
    one, two = (next(simulate(SMALL))[1]["swvl1"] for _ in range(2))
    other = next(simulate(dataclasses.replace(SMALL, seed=4)))[1]["swvl1"]
    np.testing.assert_array_equal(one, two)
    assert (np.nan_to_num(one) != np.nan_to_num(other)).any()


def test_the_cache_builds_once_per_parameters(tmp_path):
    calls = []
    tiny = dataclasses.replace(SMALL, months=2, missing_month="")
    first = cached(tmp_path, tiny, lambda done, total: calls.append((done, total)))
    assert cached(tmp_path, tiny, lambda done, total: pytest.fail("built again")) == first
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"months": 0}, "months=0 is too small"),
        ({"land": 0.0}, "land=0.0 must be above 0"),
        ({"start": "spring"}, "'spring' must look like"),
        ({"missing_month": "2031-01"}, "2031-01 is not between"),
    ],
)
def test_impossible_simulations_are_refused_by_name_and_value(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change)
