"""Row ranges of compound HDF5 datasets, read through a bounded set of lazily opened handles."""

import dataclasses
import importlib
import importlib.util
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import h5py
import numpy as np

from tds_jax.data.drive import blame_the_drive
from tds_jax.data.heaps import require_ends
from tds_jax.data.open_files import OpenFiles
from tds_jax.data.stored_rows import (
    SHARED_BYTES,
    Block,
    ContiguousRows,
    HDF5Rows,
    Place,
    Rows,
    Wanted,
    contiguous_place,
    stretches,
)
from tds_jax.data.unreadable import naming, opening
from tds_jax.errors import UserError

PLAIN = 128  # of the 1024 descriptors that systems give a process


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a compound row: its name, its per-row shape and its dtype as stored."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about one dataset without reading its rows.

    rows: number of rows. fields: by name. attributes: of the group, numbers and strings only.
    row_bytes: of a row as stored. storage: 'contiguous', or the chunks and their compression.
    """

    rows: int
    fields: dict[str, Field]
    attributes: dict[str, float | str]
    row_bytes: int
    storage: str

    def width(self, path: str, field: str) -> int:
        """Length of a vector field; UserError when it is missing, no vector or not numeric."""
        if field not in self.fields:
            raise UserError(
                f"{path}: field {field!r} is missing, the rows have {sorted(self.fields)}; "
                f"rename the field or leave the file out"
            )
        found = self.fields[field]
        if len(found.shape) != 1 or found.dtype.kind not in "fiu":
            raise UserError(
                f"{path}: field {field!r} has row shape {found.shape} and type {found.dtype}, "
                f"expected a vector of numbers; write it as float32 of shape (n,)"
            )
        return found.shape[0]


class RowFiles:
    """Opens files on first use and reads row ranges from them; safe in threads and workers.

    max_open_files: files that HDF5 holds open per process, the least recently used is closed first;
    of those whose rows are contiguous, which take a descriptor and no memory, PLAIN are.
    chunk_cache_bytes: HDF5's rdcc_nbytes, per open file; a process therefore holds at most
    max_open_files * chunk_cache_bytes of decompressed chunks. chunk_cache_preemption: HDF5's
    rdcc_w0 in [0, 1]; 1 evicts fully read chunks first.

    Where contiguous rows lie is remembered for every file ever read, so that HDF5 opens it once:
    0.2 ms, as long as five windows take to read.
    """

    def __init__(
        self, max_open_files: int, chunk_cache_bytes: int, chunk_cache_preemption: float
    ) -> None:
        if max_open_files < 1:
            raise UserError(
                f"data.max_open_files={max_open_files} must be at least 1; 16 is a good start"
            )
        if chunk_cache_bytes < 0:
            raise UserError(f"data.chunk_cache_bytes={chunk_cache_bytes} must not be negative")
        if not 0 <= chunk_cache_preemption <= 1:
            raise UserError(
                f"data.chunk_cache_preemption={chunk_cache_preemption} must be between 0 and 1"
            )
        self.max_open_files = max_open_files
        self.chunk_cache_bytes = chunk_cache_bytes
        self.chunk_cache_preemption = chunk_cache_preemption
        self._open: OpenFiles[Rows] = OpenFiles(max_open_files, _close)
        self._plain: OpenFiles[Rows] = OpenFiles(max(max_open_files, PLAIN), _close)
        self._places: dict[tuple[str, str, str], Place] = {}
        self._dtypes: dict[np.dtype, np.dtype] = {}  # files share one, of a kilobyte

    def __repr__(self) -> str:
        return f"RowFiles(max_open_files={self.max_open_files})"

    @property
    def open_files(self) -> int:
        """Number of handles this process holds."""
        return len(self._open.held()) + len(self._plain.held())

    def close(self) -> None:
        """Closes this process's handles; the next read opens them again."""
        self._open.close()
        self._plain.close()

    def header(self, path: str, group: str, dataset: str) -> Header:
        """Rows, fields and group attributes of `group/dataset`; UserError names what is wrong."""
        with opening(path):
            require_ends(path)
        with self._open_hdf5(path) as file, naming(path):
            found = _find(file, path, group, dataset)
            names = found.dtype.names or ()
            kinds = [(name, found.dtype[name]) for name in names]
            fields = {name: Field(name, kind.shape, kind.base) for name, kind in kinds}
            attributes, row_bytes = attributes_of(found.parent), found.dtype.itemsize
            return Header(found.shape[0], fields, attributes, row_bytes, _storage(found))

    def rows(
        self, path: str, group: str, dataset: str, start: int, stop: int, fields: Sequence[str]
    ) -> list[np.ndarray]:
        """Rows [start, stop) of each field, cast to float32: arrays (stop - start, ...).

        Whatever the stored type (f4, f8, integers), layout or filter. Doubles beyond the float32
        range become infinite.
        """
        block = self._read(path, group, dataset, start, stop)
        with np.errstate(over="ignore"):
            return [block[name].astype(np.float32) for name in fields]

    def raw(self, path: str, group: str, dataset: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as one structured array with the stored types."""
        return self._read(path, group, dataset, start, stop)

    def windows(
        self,
        group: str,
        dataset: str,
        places: Sequence[tuple[str, int, int]],
        length: int,
        wanted: Sequence[Wanted],
    ) -> None:
        """Rows [start, start + length) of each (path, start, n) into the n-th place of `wanted`.

        As `rows`, but read file by file in rising order: for all of a batch's windows a file is
        opened, and a chunk that they share unpacked, once. UserError where a file has fewer rows.
        """
        block = Block(length, wanted)
        with np.errstate(over="ignore"):
            for path, inside in itertools.groupby(sorted(places), key=lambda place: place[0]):
                starts = [(start, number) for _, start, number in inside]
                with self._rows(path, group, dataset) as found:
                    most = SHARED_BYTES // found.dtype.itemsize
                    for part in stretches(starts, length, found.chunk, most):
                        first, rows = part[0][0], part[-1][0] + length - part[0][0]
                        _fill(found, path, f"{group}/{dataset}", first, block.of(found.dtype, rows))
                        block.share([(start - first, number) for start, number in part])

    def _read(self, path: str, group: str, dataset: str, start: int, stop: int) -> np.ndarray:
        with self._rows(path, group, dataset) as found:  # HDF5 runs one call at a time anyway
            first, last, _ = slice(start, stop).indices(found.rows)
            block = np.empty(max(last - first, 0), found.dtype)
            _fill(found, path, f"{group}/{dataset}", first, block)
            return block

    def _rows(self, path: str, group: str, dataset: str) -> AbstractContextManager[Rows]:
        key = path, group, dataset
        again = key in self._places and key not in self._open.held()
        files = self._plain if again else self._open
        return files.using(key, lambda: self._known(*key) or self._found(*key))

    def _known(self, path: str, group: str, dataset: str) -> Rows | None:
        """Rows of a file whose place is remembered, and that has not changed since."""
        if (place := self._places.get((path, group, dataset))) is None:
            return None
        with opening(path):
            found = ContiguousRows(path, place)
        if found.unchanged:
            return found
        found.close()
        del self._places[path, group, dataset]
        return None

    def _found(self, path: str, group: str, dataset: str) -> Rows:
        file = self._open_hdf5(path)
        try:
            with naming(path):
                found = _find(file, path, group, dataset)
                place = contiguous_place(path, found)
        except (UserError, OSError):
            file.close()
            raise
        if place is None:
            return HDF5Rows(found)
        file.close()
        place = place._replace(dtype=self._dtypes.setdefault(place.dtype, place.dtype))
        self._places[path, group, dataset] = place
        with opening(path):
            return ContiguousRows(path, place)

    def _open_hdf5(self, path: str) -> h5py.File:
        with opening(path):
            return h5py.File(
                path,
                "r",
                rdcc_nbytes=self.chunk_cache_bytes,
                rdcc_w0=self.chunk_cache_preemption,
                locking="best-effort",  # read-only media and some network file systems refuse locks
            )


def _fill(found: Rows, path: str, name: str, start: int, block: np.ndarray) -> None:
    stop = start + len(block)
    if stop > found.rows:
        raise UserError(
            f"{path}: {name} has {found.rows} rows, not those from {start} to {stop} that were "
            "there; put the file back or start again"
        )
    try:
        found.read(start, block)
    except Exception:  # a block of `naming` costs as much as a tenth of the rows
        with naming(path, f"rows {start} to {stop} of {name} "):
            raise


def _close(found: Rows) -> None:
    found.close()


def member(group: h5py.Group, name: str) -> Any:
    """What has that name in a group, or None; OSError where the drive fails, which h5py's
    `get`, `items` and `in` take for a name that is not there."""
    try:
        return group[name]
    except KeyError as error:
        blame_the_drive(error, group.file.filename)
        return None


def _find(file: h5py.File, path: str, group: str, dataset: str) -> h5py.Dataset:
    inside = member(file, group)
    if not isinstance(inside, h5py.Group):
        raise UserError(
            f"{path}: group {group!r} is missing, the file has {sorted(file)}; set data.group to "
            "its name, or to where arrays lie ('emg=PLACE, joint_angles=PLACE')"
        )
    found = member(inside, dataset)
    if not isinstance(found, h5py.Dataset):
        raise UserError(
            f"{path}: dataset {group}/{dataset} is missing, the group has "
            f"{sorted(inside)}; rename it or leave the file out"
        )
    if found.dtype.names is None or found.ndim != 1:
        raise UserError(
            f"{path}: dataset {group}/{dataset} has shape {found.shape} and type {found.dtype}, "
            f"expected one row per sample with named fields; rewrite the file"
        )
    _require_filters(found, path)
    return found


def _require_filters(found: h5py.Dataset, path: str) -> None:
    """Loads hdf5plugin when a chunk filter is missing; UserError naming the filter otherwise."""
    plan = found.id.get_create_plist()
    for number in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        if importlib.util.find_spec("hdf5plugin"):
            importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            label = f"{code} {name.decode(errors='replace')}".strip()
            raise UserError(
                f"{path}: HDF5 filter {label} is not installed; "
                f"pip install hdf5plugin, or rewrite the file with gzip"
            )


def _storage(found: h5py.Dataset) -> str:
    if found.chunks is None:
        return "contiguous"
    return f"chunks of {found.chunks[0]} rows, {found.compression or 'other or no'} compression"


def attributes_of(group: h5py.Group) -> dict[str, float | str]:
    """Those that are numbers and strings; what h5py cannot read is neither."""
    result: dict[str, float | str] = {}
    for name in group.attrs:
        try:
            value = group.attrs[name]
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            blame_the_drive(error, group.file.filename)
            continue
        if isinstance(value, bytes):
            result[name] = value.decode(errors="replace")
        elif isinstance(value, str):
            result[name] = value
        elif np.size(value) == 1 and np.asarray(value).dtype.kind in "fiu":
            result[name] = float(np.asarray(value).item())  # some writers store (1,) for a number
    return result
