"""Files of gridded fields as lazy datasets, whatever their format."""

import importlib.util
import os
import re
import warnings
import zipfile
from typing import Any

import h5py
import numpy as np
import xarray as xr

from tds_jax.data.drive import blame_the_drive
from tds_jax.data.heaps import require_ends
from tds_jax.errors import UserError, some
from tds_jax.news import only_news

ZARR_MARKERS = ("zarr.json", ".zgroup", ".zmetadata")
HDF5, CLASSIC = b"\x89HDF", (b"CDF\x01", b"CDF\x02")
# First bytes -> xarray's engine, the package it needs, and what to do without that.
BY_PACKAGE = {
    b"CDF\x05": ("netcdf4", "netCDF4", "CDF-5: pip install netCDF4, or nccopy -k nc4 IN OUT"),
    b"GRIB": ("cfgrib", "cfgrib", "GRIB: pip install 'tds_jax[grib]', or cdo -f nc4 copy IN OUT"),
}
ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"


def is_zarr(path: str) -> bool:
    """Whether the path is a Zarr group in a folder."""
    return any(os.path.exists(os.path.join(path, marker)) for marker in ZARR_MARKERS)


def opened(path: str) -> xr.Dataset:
    """The file as a lazy dataset, decoded as CF says; UserError says what to do otherwise.

    Fields in the one group of an HDF5 file that has any are the file's.
    """
    try:
        return _opened(path)
    except UserError:  # a bad file is bad twice; of a drive that fails, HDF5 does not always tell
        return _opened(path)


def _opened(path: str) -> xr.Dataset:
    only_news()
    engine, options = _engine(path)
    try:
        data = _dataset(path, engine, options)
        if engine == "h5netcdf" and not any(one.ndim > 1 for one in data.variables.values()):
            data = _of_group(path, data, options)
        zero = [name for name, one in data.variables.items() if _is_filled_with_zero(one)]
        if engine == "zarr" and zero:
            data = data.assign(_dataset(path, engine, options, False)[zero].data_vars)
        return data
    except UserError:
        raise
    except Exception as error:  # a foreign file may fail anywhere in any library
        blame_the_drive(error, path)
        text = " ".join(str(error).split())[:200] or type(error).__name__
        if engine == "scipy" and isinstance(error, ValueError):
            text = f"damaged, or shorter than its header says: {text}"
        raise UserError(f"{path}: cannot be opened ({text}); {_remedy(error, path)}") from error


def _dataset(path: str, engine: str | None, options: Any, mask: bool = True) -> xr.Dataset:
    with warnings.catch_warnings():
        # Of "hours since 1-1-1": read as the first year, and printed for every file.
        warnings.filterwarnings("ignore", "Ambiguous reference date", xr.SerializationWarning)
        return xr.open_dataset(
            path,
            engine=engine,
            cache=False,
            decode_timedelta=False,
            mask_and_scale=mask,
            backend_kwargs=options,
        )


def _of_group(path: str, outer: xr.Dataset, options: dict[str, Any]) -> xr.Dataset:
    """The group that holds fields, with axes of the root; the root's where there is none."""
    found: list[str] = []

    def note(name: str, one: Any) -> None:
        group = name.rpartition("/")[0]
        if isinstance(one, h5py.Dataset) and one.ndim > 1 and group not in found:
            found.append(group)

    with h5py.File(path) as file:
        file.visititems(note)
    if not found:
        return outer
    if len(found) > 1:
        raise UserError(
            f"{path}: has fields in {len(found)} groups ({some(found)}); write those of one group "
            "into a file of their own, as ncks -G : -g GROUP IN OUT does"
        )
    inner = _dataset(path, "h5netcdf", options | {"group": found[0]})
    more = [name for name in outer.variables if name not in inner.variables]
    return inner.assign_coords({name: outer[name] for name in more})


def _is_filled_with_zero(variable: xr.Variable) -> bool:
    """Whether an array of floats is 0 where nothing was written: zarr's default, not a mark of what
    is missing, which for floats is NaN or far from all values."""
    said = variable.encoding
    plain = not {"scale_factor", "add_offset", "missing_value"} & set(said)
    return plain and said.get("_FillValue") == 0 and np.dtype(said.get("dtype", "i4")).kind == "f"


def _remedy(error: Exception, path: str) -> str:
    """What would help: only damage is cured by another copy."""
    if os.path.islink(path) and not os.path.exists(path):
        return "the link leads nowhere"
    if isinstance(error, PermissionError):
        return "ask for the right to read it"
    if re.search(r"\block", str(error).lower()) or isinstance(error, BlockingIOError):
        return "another program is writing it; wait, or set HDF5_USE_FILE_LOCKING=FALSE"
    return "check or copy the file"


def _engine(path: str) -> tuple[str | None, dict[str, Any]]:
    """xarray's engine for a file by its first bytes; None lets xarray choose."""
    if is_zarr(path):
        from tds_jax.data import blosc  # only here: it brings a library of codecs

        blosc.use()
        return "zarr", {"consolidated": False}  # a local folder lists itself fast enough
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        blame_the_drive(error, path)
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if start == HDF5:
        require_ends(path)
        return "h5netcdf", {"phony_dims": "sort"}  # HDF5 without dimension scales opens too
    if start in BY_PACKAGE:
        return _by_package(path, *BY_PACKAGE[start])
    if start == ZIP:
        raise UserError(f"{path}: is a zip archive of {_inside(path)}; unzip it, give its folder")
    if start[:2] == GZIP:
        raise UserError(f"{path}: is compressed as a whole; gunzip it")
    return ("scipy", {}) if start in CLASSIC else (None, {})


def _by_package(path: str, engine: str, package: str, words: str) -> tuple[str, dict[str, Any]]:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{path}: is {words}")
    return engine, {"indexpath": ""} if engine == "cfgrib" else {}  # no file beside the user's


def _inside(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return some(archive.namelist()) or "nothing"
    except (zipfile.BadZipFile, OSError) as error:
        blame_the_drive(error, path)
        return f"which no list can be read ({error})"
