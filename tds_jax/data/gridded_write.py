"""Writes gridded fields as CF NetCDF, a block at a time; a file appears only when whole."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np

from tds_jax.data.whole_file import whole_file

EPOCH = "1970-01-01"
AXES: dict[str, dict[str, str]] = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}


@contextlib.contextmanager
def grid_file(
    path: str | Path,
    coordinates: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]],
    variables: Mapping[str, Mapping[str, Any]],
    chunks: Sequence[int],
    attributes: Mapping[str, Any],
    compression: str | None = None,
) -> Iterator[h5netcdf.File]:
    """A new file to be filled by `file[name][start:stop] = block`; NaN is the fill value.

    coordinates: the dimensions in order, each with its values and attributes. variables: f32 over
    all of them, with attributes. chunks: cells per chunk along each dimension, cut to its size.
    attributes: of the file. What was there stays until the block ends without an error; a killed
    writer leaves a temporary of `whole_file`.
    """
    with whole_file(path) as temporary, h5netcdf.File(temporary, "w") as file:
        file.dimensions = {name: len(values) for name, (values, _) in coordinates.items()}
        for name, (values, described) in coordinates.items():
            file.create_variable(name, (name,), data=values).attrs.update(described)
        size = tuple(min(n, len(c[0])) for n, c in zip(chunks, coordinates.values(), strict=True))
        for name, described in variables.items():
            file.create_variable(
                name,
                tuple(coordinates),
                "f4",
                chunks=size,
                compression=compression,
                fillvalue=np.float32(np.nan),
            ).attrs.update(described)
        file.attrs.update({"Conventions": "CF-1.8", **attributes})
        yield file


def time_axis(times: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Values and attributes of an axis of datetime64 times, in whole seconds since EPOCH."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    named = {"standard_name": "time", "units": f"seconds since {EPOCH}", "axis": "T"}
    return seconds, {**named, "calendar": "proleptic_gregorian"}
