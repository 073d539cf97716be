"""Small gridded files and fields for tests, written the way users have them."""

import numpy as np
import xarray as xr

LAT, LON = np.array([52.0, 51.0, 50.0, 49.0]), np.array([5.0, 6.0, 7.0])


def hours(first, count, step=1):
    """`count` times from a date on, `step` hours apart."""
    return np.datetime64(first, "h") + step * np.arange(count)


def dates(first, count):
    """`count` days."""
    return np.datetime64(first, "D") + np.arange(count)


def dataset(
    times, lat=LAT, lon=LON, names=("t2m",), seed=0, dims=("valid_time", "latitude", "longitude")
):
    """Random fields over times and a grid."""
    rng = np.random.default_rng(seed)
    shape = len(times), len(lat), len(lon)
    fields = {n: (dims, rng.normal(size=shape).astype(np.float32)) for n in names}
    axes = dict(zip(dims, (times.astype("datetime64[ns]"), lat, lon), strict=True))
    return xr.Dataset(fields, axes)


def write(data, path):
    """The dataset as a file of the format its ending says."""
    if path.suffix == ".zarr":
        data.to_zarr(path, consolidated=False)
    else:
        data.to_netcdf(path, engine="scipy" if path.suffix == ".cdf" else "h5netcdf")
    return path


class ArrayFields:
    """`Fields` from an array (N, H, W, C) with NaN; the first variable is the target."""

    def __init__(self, values, days=None):
        self.values = values.astype(np.float32)
        count, height, width, channels = values.shape
        self.variables = tuple(f"v{i}" for i in range(channels))
        self.target, self.attributes = "v0", {name: {} for name in self.variables}
        self.targets = ("v0",)
        self.lat, self.lon = 50.0 - np.arange(height), 5.0 + np.arange(width)
        self.axes = ("latitude", "longitude")
        self.days = dates("2020-01-01", count) if days is None else days
        self.land = np.isfinite(values[..., 0]).any(axis=0)

    paths = ()

    def aimed(self, target):
        assert target == self.target
        return self

    def digest(self):
        return repr(self.variables)

    def read(self, start, stop, variables=(), region=(slice(None), slice(None))):
        channels = [self.variables.index(name) for name in variables or self.variables]
        return self.values[start:stop][:, *region][..., channels]
