"""Writes gridded fields as CF NetCDF or Zarr, a block at a time; they appear only when whole."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import zarr

from tds_jax.data.formats import is_zarr
from tds_jax.data.whole_file import whole_file, whole_folder
from tds_jax.errors import UserError

EPOCH = "1970-01-01"
CONVENTIONS = {"Conventions": "CF-1.8"}
STORE = ".zarr"
AXES: dict[str, dict[str, str]] = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}

Axes = Mapping[str, tuple[np.ndarray, Mapping[str, Any]]]


class GridWriter:
    """A file or store that is being written; `writer[name][start:stop] = block`."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getitem__(self, name: str) -> Any:
        return self._target[name]

    def about(self, attributes: Mapping[str, Any]) -> None:
        """Attributes of the whole."""
        self._target.attrs.update(attributes)

    def values(
        self, name: str, dims: Sequence[str], data: np.ndarray, described: Mapping[str, Any]
    ) -> None:
        """Adds a variable that is whole already."""
        raise NotImplementedError

    def field(
        self,
        name: str,
        sizes: Mapping[str, int],
        chunks: Sequence[int],
        described: Mapping[str, Any],
        compression: str | None,
    ) -> None:
        """Adds a variable of f32, NaN until it is written."""
        raise NotImplementedError


class _NetCDF(GridWriter):
    def __init__(self, file: h5netcdf.File, axes: Axes) -> None:
        super().__init__(file)
        file.dimensions = {name: len(values) for name, (values, _) in axes.items()}

    def values(
        self, name: str, dims: Sequence[str], data: np.ndarray, described: Mapping[str, Any]
    ) -> None:
        self._target.create_variable(name, tuple(dims), data=data).attrs.update(described)

    def field(
        self,
        name: str,
        sizes: Mapping[str, int],
        chunks: Sequence[int],
        described: Mapping[str, Any],
        compression: str | None,
    ) -> None:
        options = {"chunks": tuple(chunks), "compression": compression}
        made = self._target.create_variable(
            name, tuple(sizes), "f4", **options, fillvalue=np.float32(np.nan)
        )
        made.attrs.update(described)


class _Zarr(GridWriter):
    """Format 2, which all readers know; always compressed."""

    def values(
        self, name: str, dims: Sequence[str], data: np.ndarray, described: Mapping[str, Any]
    ) -> None:
        # Without a fill value: readers take one of 0 for what is missing.
        made = self._target.create_array(name, data=data, chunks=data.shape, fill_value=None)
        made.attrs.update({"_ARRAY_DIMENSIONS": list(dims), **described})

    def field(
        self,
        name: str,
        sizes: Mapping[str, int],
        chunks: Sequence[int],
        described: Mapping[str, Any],
        compression: str | None,
    ) -> None:
        del compression
        shape = tuple(sizes.values())
        made = self._target.create_array(
            name, shape=shape, dtype="f4", chunks=tuple(chunks), fill_value=np.nan
        )
        made.attrs.update({"_ARRAY_DIMENSIONS": list(sizes), **described})


@contextlib.contextmanager
def grid_file(
    path: str | Path,
    coordinates: Axes,
    variables: Mapping[str, Mapping[str, Any]],
    chunks: Sequence[int],
    attributes: dict[str, Any],
    compression: str | None = None,
) -> Iterator[GridWriter]:
    """A new file to be filled by `writer[name][start:stop] = block`; NaN is the fill value.

    path: a Zarr store if it ends in '.zarr', else NetCDF. coordinates: the dimensions in order,
    each with its values and attributes. variables: f32 over all of them, with attributes. chunks:
    cells per chunk along each dimension, cut to its size. attributes: of the file. What was there
    stays until the block ends without an error; a killed writer leaves a temporary of `whole_file`.
    """
    sizes = {name: len(values) for name, (values, _) in coordinates.items()}
    with _new(Path(path), coordinates) as writer:
        for name, (values, described) in coordinates.items():
            writer.values(name, (name,), values, described)
        size = [min(n, whole) for n, whole in zip(chunks, sizes.values(), strict=True)]
        for name, described in variables.items():
            writer.field(name, sizes, size, described, compression)
        writer.about(CONVENTIONS | attributes)
        yield writer


@contextlib.contextmanager
def _new(path: Path, coordinates: Axes) -> Iterator[GridWriter]:
    if path.suffix == STORE:
        with whole_folder(path) as temporary:
            group = zarr.open_group(temporary, mode="w", zarr_format=2)
            yield _Zarr(group)
            zarr.consolidate_metadata(group.store)
    else:
        with whole_file(path) as temporary, h5netcdf.File(temporary, "w") as file:
            yield _NetCDF(file, coordinates)


def require_place(source: Path, target: Path) -> None:
    """UserError where a file or store would replace something else, or the input itself."""
    if source.resolve() == target.resolve():
        raise UserError(f"--output={target} is the input itself; choose another file")
    store = target.suffix == STORE
    if target.is_dir() and not (store and (is_zarr(str(target)) or not any(target.iterdir()))):
        raise UserError(f"--output={target} is a folder; name a file")
    if store and target.is_file():
        raise UserError(f"--output={target} is a file; a store needs another name")


def time_axis(times: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Values and attributes of an axis of datetime64 times, in whole seconds since EPOCH."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    named = {"standard_name": "time", "units": f"seconds since {EPOCH}", "axis": "T"}
    return seconds, {**named, "calendar": "proleptic_gregorian"}
