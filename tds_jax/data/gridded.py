"""Gridded fields in NetCDF, HDF5 and Zarr: which steps there are, and blocks of them on demand."""

import collections
import dataclasses
import glob
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tds_jax.errors import UserError

NAMES = {
    "time": ("valid_time", "time", "date"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}  # in any case; else a variable with that standard_name
ENDINGS = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".zarr")
ZARR_MARKERS = ("zarr.json", ".zgroup", ".zmetadata")
GRID_ATOL = 1e-4  # degrees; single and double precision axes of one grid differ by less
MAX_OPEN_FILES = 16  # per process; a header of a few MB at most for each

Region = tuple[slice, slice]  # of rows (latitude) and columns (longitude)
WHOLE: Region = (slice(None), slice(None))


@dataclasses.dataclass(frozen=True)
class GridFile:
    """What one file says of itself without its fields being read.

    times: (n,) datetime64[s]. lat: (H,), lon: (W,) degrees as stored. dims: the file's names of the
    three axes. attributes: by variable over the three axes; axes of length 1 besides are dropped.
    """

    path: str
    times: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    dims: tuple[str, str, str]
    attributes: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one variable in order of time: times (n,) datetime64[s], and where each is."""

    times: np.ndarray
    file: np.ndarray
    offset: np.ndarray


def find_files(path: str | Path) -> list[str]:
    """The files meant by a file, a Zarr store, a folder of either, or a glob; never empty."""
    text = os.fspath(path)
    if is_zarr(text) or os.path.isfile(text):
        return [text]
    if os.path.isdir(text):
        inside = [os.path.join(text, name) for name in sorted(os.listdir(text))]
        found = [one for one in inside if one.lower().endswith(ENDINGS)]
        if not found:
            raise UserError(f"{text}: no {', '.join(ENDINGS)} in this folder; check the path")
        return found
    found = sorted(glob.glob(text))
    if not found:
        raise UserError(f"{text}: no such file, folder or pattern; check the path")
    return found


def is_zarr(path: str) -> bool:
    """Whether the path is a Zarr group in a folder."""
    return any(os.path.exists(os.path.join(path, marker)) for marker in ZARR_MARKERS)


def open_dataset(path: str) -> xr.Dataset:
    """The file as a lazy dataset, whatever its format, decoded as CF says; UserError otherwise."""
    engine, options = _engine(path)
    try:
        return xr.open_dataset(
            path, engine=engine, cache=False, decode_timedelta=False, backend_kwargs=options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: cannot be opened ({text}); check or copy the file") from error


def _engine(path: str) -> tuple[str | None, dict[str, Any]]:
    """xarray's engine for a file by its first bytes; None lets xarray choose."""
    if is_zarr(path):
        return "zarr", {}
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if start == b"\x89HDF\r\n\x1a\n":
        return "h5netcdf", {"phony_dims": "sort"}  # HDF5 without dimension scales opens too
    return ("scipy", {}) if start[:4] in (b"CDF\x01", b"CDF\x02") else (None, {})


def header(data: xr.Dataset, path: str) -> GridFile:
    """The times, grid and variables of a file; UserError names an axis that is missing."""
    time, lat, lon = (_axis(data, path, axis) for axis in NAMES)
    dims = str(time.dims[0]), str(lat.dims[0]), str(lon.dims[0])
    if len(set(dims)) < 3:
        raise UserError(
            f"{path}: time, latitude and longitude share a dimension {dims}; "
            "write them as three dimensions"
        )
    if time.dtype.kind != "M" or np.isnat(time.values).any():
        raise UserError(
            f"{path}: {time.name} is not a time; give it units such as "
            "'hours since 1970-01-01' and the standard calendar"
        )
    return GridFile(
        path,
        time.values.astype("datetime64[s]"),
        _degrees(lat, path),
        _degrees(lon, path),
        dims,
        {str(k): _attributes(v) for k, v in data.variables.items() if _is_field(v, dims)},
    )


def _axis(data: xr.Dataset, path: str, axis: str) -> xr.DataArray:
    flat = [str(name) for name, one in data.variables.items() if one.ndim == 1]
    by_name = [n for wanted in NAMES[axis] for n in flat if n.lower() == wanted]
    by_standard = [n for n in flat if data.variables[n].attrs.get("standard_name") == axis]
    if not by_name + by_standard:
        raise UserError(
            f"{path}: no {axis} axis (a one-dimensional variable named "
            f"{' or '.join(NAMES[axis])}); the file has {', '.join(map(str, data.variables))}"
        )
    return data[(by_name + by_standard)[0]]


def _degrees(axis: xr.DataArray, path: str) -> np.ndarray:
    values = axis.values.astype(np.float64)
    steps = np.diff(values)
    if not (len(values) and np.isfinite(values).all() and (all(steps > 0) or all(steps < 0))):
        raise UserError(f"{path}: {axis.name} neither rises nor falls throughout; sort the grid")
    return values


def _is_field(variable: xr.Variable, dims: Sequence[str]) -> bool:
    others = [n for n, size in zip(variable.dims, variable.shape, strict=True) if n not in dims]
    spare = all(variable.sizes[n] == 1 for n in others)
    return set(dims) <= set(variable.dims) and spare and variable.dtype.kind in "fiu"


def _attributes(variable: xr.Variable) -> dict[str, Any]:
    return {key: value for key, value in variable.attrs.items() if isinstance(value, str)}


def require_same_grid(first: GridFile, other: GridFile) -> None:
    """UserError unless two files lie on one grid."""
    for axis in ("lat", "lon"):
        a, b = getattr(first, axis), getattr(other, axis)
        if len(a) != len(b) or not np.allclose(a, b, rtol=0, atol=GRID_ATOL):
            raise UserError(
                f"{other.path}: {axis} is {_span(b)}, but {first.path} has {_span(a)}; "
                "bring the files onto one grid"
            )


def _span(axis: np.ndarray) -> str:
    return f"{axis[0]:g}..{axis[-1]:g} ({len(axis)})"


def join_steps(files: Sequence[GridFile], variable: str) -> Steps:
    """The steps of a variable over all files that have it.

    UserError when times run backwards inside a file, or the same time occurs twice.
    """
    chosen = [i for i, one in enumerate(files) if variable in one.attributes and len(one.times)]
    for i in chosen:
        require_sorted(files[i])
    chosen.sort(key=lambda i: files[i].times[0])
    steps = Steps(
        np.concatenate([files[i].times for i in chosen]),
        np.repeat(chosen, [len(files[i].times) for i in chosen]),
        np.concatenate([np.arange(len(files[i].times)) for i in chosen]),
    )
    order = np.argsort(steps.times, kind="stable")  # files may interleave
    steps = Steps(steps.times[order], steps.file[order], steps.offset[order])
    same = np.flatnonzero(steps.times[1:] == steps.times[:-1])
    if len(same):
        one, two = (files[steps.file[same[0] + k]].path for k in (0, 1))
        raise UserError(
            f"{variable}: {len(same)} times occur twice, the first {steps.times[same[0]]} in "
            f"{one} and in {two}; leave one of them out"
        )
    return steps


def require_sorted(file: GridFile) -> None:
    """UserError unless times rise strictly within a file."""
    wrong = np.flatnonzero(np.diff(file.times) <= np.timedelta64(0, "s"))
    if len(wrong):
        at = int(wrong[0]) + 1
        repeats = file.times[at] == file.times[at - 1]
        raise UserError(
            f"{file.path}: time {'repeats' if repeats else 'runs backwards'} at step {at} "
            f"({file.times[at - 1]}, {file.times[at]}); sort the steps and drop duplicates"
        )


class _Open:
    """The open datasets of one process, least recently used first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.datasets: collections.OrderedDict[str, xr.Dataset] = collections.OrderedDict()


class GridRecord:
    """Fields over many files, read in blocks of steps; picklable, files open when first read.

    files: on one grid. Handles are keyed by process id and never travel with a pickle.
    """

    def __init__(self, files: Sequence[GridFile], variables: Iterable[str]) -> None:
        for other in files[1:]:
            require_same_grid(files[0], other)
        self.files = tuple(files)
        self.steps = {name: join_steps(files, name) for name in variables}
        self._per_process: dict[int, _Open] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_per_process": {}}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return len(self.files[0].lat), len(self.files[0].lon)

    def read(self, variable: str, start: int, stop: int, region: Region = WHOLE) -> np.ndarray:
        """Steps [start, stop) of a variable: (n, h, w) f32, NaN where missing or infinite."""
        steps, parts = self.steps[variable], []
        while start < stop:
            file, offset = steps.file[start], int(steps.offset[start])
            together = (steps.file[start:stop] == file) & (
                steps.offset[start:stop] == offset + np.arange(stop - start)
            )
            n = stop - start if together.all() else int(np.argmin(together))
            parts.append(self._read_file(self.files[file], variable, offset, offset + n, region))
            start += n
        block = parts[0] if len(parts) == 1 else np.concatenate(parts)
        block[~np.isfinite(block)] = np.nan
        return block

    def close(self) -> None:
        """Closes this process's files; the next read opens them again."""
        held = self._held()
        with held.lock:
            while held.datasets:
                held.datasets.popitem()[1].close()

    def _held(self) -> _Open:
        return self._per_process.setdefault(os.getpid(), _Open())

    def _read_file(
        self, file: GridFile, variable: str, start: int, stop: int, region: Region
    ) -> np.ndarray:
        held = self._held()
        # One lock from look-up to read: no other thread may close the file in between.
        with held.lock:
            if file.path not in held.datasets:
                while len(held.datasets) >= MAX_OPEN_FILES:
                    held.datasets.popitem(last=False)[1].close()
                held.datasets[file.path] = open_dataset(file.path)
            held.datasets.move_to_end(file.path)
            array = held.datasets[file.path][variable]
            spare = {name: 0 for name in array.dims if name not in file.dims}
            where = dict(zip(file.dims, (slice(start, stop), *region), strict=True))
            try:
                block = array.isel(where | spare).transpose(*file.dims).values
            except (OSError, RuntimeError) as error:
                raise UserError(
                    f"{file.path}: steps {start} to {stop} of {variable} cannot be read "
                    f"({error}); copy the file again"
                ) from error
        return np.array(block, np.float32)


def open_record(
    path: str | Path,
    variables: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> GridRecord:
    """The record of `variables` over every file that `path` names (see `find_files`).

    Files without any of the variables are left out; a variable may live in files of its own.
    UserError names a variable that no file has, with those found.
    """
    names = find_files(path)
    files, inside = [], set()
    for done, name in enumerate(names, start=1):
        with open_dataset(name) as data:
            inside |= {str(key) for key in data.variables}
            if set(variables) & set(data.variables):
                files.append(header(data, name))
        if progress:
            progress(done, len(names))
    fields = {name for one in files for name in one.attributes}
    for variable in variables:
        if variable not in fields:
            what = "does not lie over time, latitude and longitude"
            raise UserError(
                f"{path}: variable {variable!r} {what if variable in inside else 'is missing'}; "
                f"found {', '.join(sorted(inside))}"
            )
    return GridRecord(files, variables)


def read_static(path: str, variable: str, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """(H, W) f32: a variable without time, such as the share of land; axes of length 1 dropped.

    UserError unless the file is on the grid `lat`, `lon`.
    """
    with open_dataset(path) as data:
        if variable not in data.variables:
            found = ", ".join(map(str, data.variables))
            raise UserError(f"{path}: variable {variable!r} is missing; found {found}")
        rows, columns = (_axis(data, path, axis) for axis in ("latitude", "longitude"))
        order = str(rows.dims[0]), str(columns.dims[0])
        array = data[variable].squeeze(drop=True)
        if set(array.dims) != set(order):
            raise UserError(f"{path}: {variable} lies over {array.dims}, expected {order}")
        none, dims = np.zeros(0), ("", *order)
        here = GridFile(path, none, rows.values, columns.values, dims, {})
        require_same_grid(GridFile("the record", none, lat, lon, dims, {}), here)
        return array.transpose(*order).values.astype(np.float32)
