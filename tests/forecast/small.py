"""A small forecast run on small daily files, shared by the tests of the task and of the doors."""

import numpy as np
import xarray as xr

from configs import forecast_soil_moisture
from tds_jax import config as configuration
from tds_jax import tasks
from tds_jax.forecast.task import ForecastTask
from tests.forecast.files import dates

SETTINGS = {
    "model.name": "cnn3d_lstm_micro",
    "model.hidden": 4,
    "model.lstm_hidden": 3,
    "model.groups": 2,
    "model.dropout": 0.0,
    "model.extra_inputs": (),
    "model.local_days": 0,
    "data.variables": ("swvl1", "tp"),
    "data.accumulated": (),
    "data.input_days": 4,
    "data.lead_days": 3,
    "data.split_ratio": (0.6, 0.2, 0.2),
    "optim.batch_size": 4,
    "optim.warmup_steps": 0,
    "optim.schedule": "constant",
    "eval.batch_size": 4,
}
LAT, LON = 60.0 - np.arange(5.0), np.arange(6.0)
SEA = np.zeros((5, 6), bool)
SEA[:2, :2] = True
SEA[4, 5] = True


def record(count=400, first="2019-01-01", seed=0):
    """Daily swvl1 and tp over 5 x 6 cells: a season, weather with a memory of days, NaN at sea."""
    rng = np.random.default_rng(seed)
    days = dates(first, count)
    season = 0.08 * np.cos(2 * np.pi * np.arange(count) / 365)[:, None, None]
    weather = np.zeros((count, 5, 6))
    for t in range(1, count):
        weather[t] = 0.8 * weather[t - 1] + rng.normal(0, 0.02, (5, 6))
    swvl1 = np.where(SEA, np.nan, 0.3 + season + weather).astype("f4")
    tp = np.where(SEA, np.nan, rng.random((count, 5, 6)) * 1e-2).astype("f4")
    dims = ("time", "lat", "lon")
    fields = {"swvl1": (dims, swvl1, {"units": "m**3 m**-3", "long_name": "Soil water"})}
    fields["tp"] = (dims, tp, {"units": "m"})
    return xr.Dataset(fields, {"time": days.astype("datetime64[ns]"), "lat": LAT, "lon": LON})


def write_record(path, gap=(), **options):
    """A NetCDF file of `record`; gap: days [first, last) that are left out.

    Of the classic format, whose reads take a quarter of those of HDF5: a window of a small grid is
    read in next to no time. `files.write` makes HDF5 of what tests of files read.
    """
    data = record(**options)
    if gap:
        kept = np.setdiff1d(np.arange(data.sizes["time"]), np.arange(*gap))
        data = data.isel(time=kept)
    data.to_netcdf(path, engine="scipy")
    return path


def small_config(path, tmp_path, **changes):
    """The soil moisture config, shrunk; changes are named group__field."""
    values = forecast_soil_moisture.get_config()
    values.data.path, values.data.cache_dir = str(path), str(tmp_path / "cache")
    named = {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in {**SETTINGS, **named}.items():
        group, field = name.split(".")
        values[group][field] = value
    return configuration.resolve(values.to_dict(), tasks.groups("forecast"))


def small_task(path, tmp_path, **changes):
    return ForecastTask(small_config(path, tmp_path, **changes))


def batch_of(source, indices):
    """Examples as a batch, with random key data."""
    examples = [source.example(i, None) | {"key": np.uint32([i, 1])} for i in indices]
    return {name: np.stack([one[name] for one in examples]) for name in examples[0]}
