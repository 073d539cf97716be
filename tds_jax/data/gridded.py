"""What files of gridded fields hold, in NetCDF, HDF5 or Zarr."""

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr

from tds_jax.data.drive import reading
from tds_jax.data.formats import is_zarr, opened
from tds_jax.data.longitudes import ATOL, columns, is_monotone, offset, unbroken
from tds_jax.data.prepared import ORIGIN
from tds_jax.data.selection import VERSIONS, Selection, further, selected
from tds_jax.errors import UserError

NAMES = {
    "time": ("valid_time", "time", "date"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}  # in any case; else a variable with that standard_name, else with these attributes
CF_ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "time": {"axis": ("T",)},
    "latitude": {
        "units": ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN")
    },
    "longitude": {
        "units": ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE")
    },
}
ENDINGS = (".nc", ".nc3", ".nc4", ".cdf", ".h5", ".hdf5", ".grib", ".grib2", ".grb", ".zarr")
GRID_ATOL = ATOL


@dataclasses.dataclass(frozen=True)
class GridFile:
    """What one file says of itself without its fields being read.

    times: (n,) datetime64[s]. lat: (H,) degrees as stored. lon: (W,) degrees, without a jump, which
    begin at the column `first` of those `stored`. axes: the file's names of the three, dims: of
    their dimensions, '' for a single time without one. inner: a second dimension of the times, the
    step of a forecast, which then runs faster than the first; else ''. attributes: by variable over
    the three axes; axes of length 1 besides are dropped. select: what is chosen of further axes,
    chosen: of which of them the file has any; merged: variables over versions, of which what is
    there counts. further: by variable that is left out, what must be chosen.
    """

    path: str
    times: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    first: int
    stored: np.ndarray
    axes: tuple[str, str, str]
    dims: tuple[str, str, str]
    inner: str
    attributes: Mapping[str, Mapping[str, Any]]
    select: Selection
    chosen: frozenset[str]
    merged: frozenset[str]
    further: Mapping[str, str]


def find_files(path: str | Path) -> list[str]:
    """The files meant by a file, a Zarr store, a folder of either, or a glob; never empty."""
    text = os.fspath(path)
    if is_zarr(text) or os.path.isfile(text):
        return [text]
    if os.path.isdir(text):
        visible = [name for name in sorted(os.listdir(text)) if not name.startswith(".")]
        inside = [os.path.join(text, name) for name in visible]
        found = [one for one in inside if one.lower().endswith(ENDINGS)]
        found = found or [one for one in inside if one.lower().endswith(".zip")]
        if not found:
            raise UserError(f"{text}: no {', '.join(ENDINGS)} in this folder; check the path")
        return found
    found = sorted(glob.glob(text))
    if not found:
        raise UserError(f"{text}: no such file, folder or pattern; check the path")
    return found


def open_dataset(path: str, select: Selection | None = None) -> xr.Dataset:
    """The file as a lazy dataset, whatever its format, decoded as CF says; UserError otherwise.

    select: see `selection.selected`.
    """
    data = opened(path)
    return selected(data, select, path) if select else data


def header(data: xr.Dataset, path: str, select: Selection | None = None) -> GridFile:
    """The times, grid and variables of a file; UserError names an axis that is missing.

    Variables of a prepared file have its attribute ORIGIN.

    data: as `open_dataset` gives it with the same `select`.
    """
    time = _time(data, path)
    lat, lon = (_axis(data, path, axis) for axis in ("latitude", "longitude"))
    outer, inner = (*map(str, time.dims), "", "")[:2]
    dims = outer, str(lat.dims[0]), str(lon.dims[0])
    if len(set(dims)) < 3:
        raise UserError(
            f"{path}: time, latitude and longitude share a dimension {dims}; "
            "write them as three dimensions, cells that are on no grid by cdo remapnn"
        )
    fields = {str(k): v for k, v in data.variables.items() if _is_field(v, (*dims, inner))}
    longitudes, first = unbroken(lon.values.astype(np.float64))
    prepared = {ORIGIN: str(data.attrs[ORIGIN])} if ORIGIN in data.attrs else {}
    return GridFile(
        path,
        _instants(time, path),
        _degrees(lat.values, lat, path),
        _degrees(longitudes, lon, path),
        first,
        lon.values.astype(np.float64),
        (str(time.name), str(lat.name), str(lon.name)),
        dims,
        inner,
        {
            name: _attributes(one) | prepared
            for name, one in fields.items()
            if not _spare(one, (*dims, inner))
        },
        select or {},
        frozenset(set(select or {}) & set(map(str, data.variables))),
        frozenset(name for name, one in fields.items() if one.sizes.get(VERSIONS, 1) > 1),
        {
            name: further(data, more)
            for name, one in fields.items()
            if (more := _spare(one, (*dims, inner)))
        },
    )


def _time(data: xr.Dataset, path: str) -> xr.DataArray:
    """The times: an axis, valid times over it and the steps of forecasts, or a single one."""
    valid = data.variables.get("valid_time")
    if valid is not None and valid.ndim == 2 and valid.dims[1] == "step":
        return data["valid_time"]
    single = axis_name(data, "time") is None and axis_name(data, "time", 0)
    return data[single] if single else _axis(data, path, "time")


def _instants(time: xr.DataArray, path: str) -> np.ndarray:
    """(n,) datetime64[s]; of calendars whose days are not all ours, the days of that name.

    A noleap or julian date of today is a date of ours. UserError for what is no time, and for
    calendars with dates that do not exist, such as February 30.
    """
    if time.dtype.kind == "M" and not np.isnat(time.values).any():
        return time.values.reshape(-1).astype("datetime64[s]")
    dates = time.values.reshape(-1)
    if dates.size and all(isinstance(date, cftime.datetime) for date in dates.flat):
        try:
            return np.array([date.isoformat() for date in dates.flat], "datetime64[s]")
        except ValueError as error:
            raise UserError(
                f"{path}: its calendar, {dates.flat[0].calendar}, has dates that do not exist "
                f"({error}); bring it onto the standard calendar (xarray's convert_calendar)"
            ) from error
    raise UserError(
        f"{path}: {time.name} is not a time; give it units such as "
        "'hours since 1970-01-01' and a calendar that CF knows"
    )


def axis_name(data: xr.Dataset, axis: str, dims: int = 1) -> str | None:
    """The variable that holds `time`, `latitude` or `longitude`; None if there is none."""
    flat = [str(name) for name, one in data.variables.items() if one.ndim == dims]
    by_name = [n for wanted in NAMES[axis] for n in flat if n.lower() == wanted]
    by_standard = [n for n in flat if data.variables[n].attrs.get("standard_name") == axis]
    by_attribute = [
        n
        for n in flat
        for key, values in CF_ATTRIBUTES[axis].items()
        if data.variables[n].attrs.get(key) in values
    ]
    return next(iter(by_name + by_standard + by_attribute), None)


def _axis(data: xr.Dataset, path: str, axis: str) -> xr.DataArray:
    name = axis_name(data, axis)
    if name is None and (wide := axis_name(data, axis, 2)):
        raise UserError(
            f"{path}: {wide} lies over {data[wide].dims}, so the grid is not of rows of equal "
            "latitude; bring it onto one (cdo remapbil, xESMF)"
        )
    if name is None:
        raise UserError(
            f"{path}: no {axis} axis (a one-dimensional variable named "
            f"{' or '.join(NAMES[axis])}); the file has {', '.join(map(str, data.variables))}; "
            "rename what it is (ncrename, xarray), or bring a grid in metres onto degrees (cdo "
            "remapbil)"
        )
    return data[name]


def _degrees(values: np.ndarray, axis: xr.DataArray, path: str) -> np.ndarray:
    values = values.astype(np.float64)
    if not (len(values) and np.isfinite(values).all() and is_monotone(values)):
        raise UserError(f"{path}: {axis.name} neither rises nor falls throughout; sort the grid")
    return values


def _is_field(variable: xr.Variable, dims: Sequence[str]) -> bool:
    return set(dims) - {""} <= set(variable.dims) and variable.dtype.kind in "fiu"


def _spare(variable: xr.Variable, dims: Sequence[str]) -> list[str]:
    """The axes of which one value must be chosen."""
    others = {str(name): n for name, n in variable.sizes.items() if name not in (*dims, VERSIONS)}
    return [name for name, size in others.items() if size > 1]


def field_values(
    array: xr.DataArray, file: GridFile, steps: slice, region: tuple[slice, slice]
) -> np.ndarray:
    """(n, h, w) f32 of a field of a file; read now."""
    dims, (rows, wanted) = file.dims, region
    if file.inner:
        return _of_forecasts(array, file, steps, region)
    spare = [n for n in array.dims if n not in dims and (n != VERSIONS or array.sizes[n] == 1)]
    array = array.isel(dict.fromkeys(spare, 0))
    array = array if dims[0] in array.dims else array.expand_dims(dims[0])
    array = array.transpose(..., *dims)[..., steps, rows, :]
    parts = [array[..., part].values for part in columns(wanted, file.first, len(file.lon))]
    values = np.array(parts[0] if len(parts) == 1 else np.concatenate(parts, -1), np.float32)
    if values.ndim == 3:
        return values
    found = values[0]
    for other in values[1:]:
        found = np.where(np.isfinite(found), found, other)
    return found


def _of_forecasts(
    array: xr.DataArray, file: GridFile, steps: slice, region: tuple[slice, slice]
) -> np.ndarray:
    """`field_values` where step k is step k % n of the forecast k // n; one of the n, or all."""
    size = array.sizes[file.inner]
    flat = dataclasses.replace(file, inner="")
    wanted = np.arange(steps.start, steps.stop, steps.step)
    outer, inner = np.divmod(wanted, size)
    alike = bool((inner == inner[0]).all())
    stride = max(steps.step // size, 1) if alike else 1
    chosen = slice(int(outer[0]), int(outer[-1]) + 1, stride)
    parts = [
        field_values(array.isel({file.inner: int(i)}), flat, chosen, region)
        for i in (inner[:1] if alike else range(size))
    ]
    if alike:
        return parts[0]
    return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])[wanted - wanted[0] + inner[0]]


def _attributes(variable: xr.Variable) -> dict[str, Any]:
    return {key: value for key, value in variable.attrs.items() if isinstance(value, str)}


def require_same_grid(first: GridFile, other: GridFile) -> None:
    """UserError unless two files lie on one grid; longitudes up to turns, wherever they begin."""
    rows = len(first.lat) == len(other.lat) and np.allclose(
        first.lat, other.lat, rtol=0, atol=GRID_ATOL
    )
    for axis, fits in {"lat": rows, "lon": offset(first.lon, other.lon) is not None}.items():
        if not fits:
            a, b = getattr(first, axis), getattr(other, axis)
            raise UserError(
                f"{other.path}: {axis} is {span(b)}, but {first.path} has {span(a)}; "
                "bring the files onto one grid"
            )


def turned_to(lon: np.ndarray, other: GridFile) -> GridFile:
    """A file on the same grid, read so that its columns are those of `lon`."""
    first = ((offset(lon, other.lon) or 0) + other.first) % len(lon)
    return dataclasses.replace(other, lon=lon, first=first)


def span(axis: np.ndarray) -> str:
    return f"{axis[0]:g}..{axis[-1]:g} ({len(axis)})"


def read_static(path: str, variable: str, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """(H, W) f32: a variable without time, such as the share of land; axes of length 1 dropped.

    The file may hold more cells than `lat`, `lon`, in another order, and longitudes from 0 to 360
    or from -180 to 180; UserError if one of the cells is not in it.
    """
    with reading(path), open_dataset(path) as data:
        if variable not in data.variables:
            found = ", ".join(map(str, data.variables))
            raise UserError(f"{path}: variable {variable!r} is missing; found {found}")
        rows, columns = (_axis(data, path, axis) for axis in ("latitude", "longitude"))
        order = str(rows.dims[0]), str(columns.dims[0])
        array = data[variable].squeeze(drop=True)
        if set(array.dims) != set(order):
            raise UserError(f"{path}: {variable} lies over {array.dims}, expected {order}")
        where = _places(rows, lat, path), _places(columns, lon, path)
        return array.transpose(*order).values[np.ix_(*where)].astype(np.float32)


def _places(axis: xr.DataArray, wanted: np.ndarray, path: str) -> np.ndarray:
    """Where on an axis the wanted degrees are, up to a whole turn."""
    apart = np.abs(axis.values.astype(np.float64) - wanted[:, None])
    apart = np.minimum(apart, np.abs(apart - 360))
    if (apart.min(axis=1) > GRID_ATOL).any():
        raise UserError(
            f"{path}: {axis.name} is {span(axis.values)}, the fields have {span(wanted)}; "
            "bring it onto their grid"
        )
    return apart.argmin(axis=1)
