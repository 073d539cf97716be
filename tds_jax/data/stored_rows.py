"""Rows of one dataset as a file keeps them: contiguous ones are read without HDF5's help."""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import h5py
import numpy as np

SHARED_BYTES = 4 * 2**20  # read at once for windows that share chunks; more would not be shared


class Place(NamedTuple):
    """Where contiguous rows lie in a file. stamp: the file's size and the system's
    time of its change."""

    offset: int
    rows: int
    dtype: np.dtype
    stamp: tuple[int, int]


class Rows(Protocol):
    """Rows of an open file. chunk: how many can only be had together; 0, any."""

    @property
    def dtype(self) -> np.dtype: ...
    @property
    def rows(self) -> int: ...
    @property
    def chunk(self) -> int: ...

    def read(self, start: int, block: np.ndarray) -> None:
        """Rows from `start` on into all of `block`, (n,) of `dtype`; OSError if they cannot be."""

    def close(self) -> None:
        """Closes the file."""


class ContiguousRows:
    """Rows one after the other, uncompressed: bytes of the file are bytes of the array.

    Read, not mapped: pages of a mapped file count as this process's memory, and one that is cut
    short meanwhile would kill it.
    """

    chunk = 0

    def __init__(self, path: str, place: Place) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.dtype, self.rows = place.dtype, place.rows
        self._offset = place.offset
        self.unchanged = _stamp(self._file) == place.stamp

    def read(self, start: int, block: np.ndarray) -> None:
        """As `Rows.read`; a file gives as many bytes at a time as it likes."""
        left = block.view(np.uint8).data
        position = self._offset + start * self.dtype.itemsize
        while left:
            count = os.preadv(self._file, [left], position)
            if not count:
                raise OSError("the file ends before them")
            left, position = left[count:], position + count

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


class HDF5Rows:
    """Rows that HDF5 must unpack: in chunks, compressed, or of types that are no array's."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self.dtype, self.rows = dataset.dtype, len(dataset)
        self.chunk = dataset.chunks[0] if dataset.chunks else 0

    def read(self, start: int, block: np.ndarray) -> None:
        """As `Rows.read`."""
        if len(block):
            self.dataset.read_direct(block, np.s_[start : start + len(block)])

    def close(self) -> None:
        """Closes the dataset's file."""
        self.dataset.file.close()


def contiguous_place(path: str, dataset: h5py.Dataset) -> Place | None:
    """Where a dataset's rows are; None where its bytes are not just the array's, in this file."""
    plan, kind = dataset.id.get_create_plist(), dataset.id.get_type()
    offset = dataset.id.get_offset()
    as_array = not dataset.dtype.hasobject and kind == h5py.h5t.py_create(dataset.dtype)
    if dataset.chunks or plan.get_external_count() or offset is None or not as_array:
        return None
    return Place(offset, len(dataset), dataset.dtype, _stamp(path))


def _stamp(file: str | int) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_size, found.st_ctime_ns


class Wanted(NamedTuple):
    """A field of windows of rows, and the array it is read into.

    rows: those of each window that are kept. columns: those of the field, in this order; () = all.
    into: (B, n, width) f32.
    """

    field: str
    rows: slice
    columns: tuple[int, ...]
    into: np.ndarray

    def views(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(into, the field's kept rows of a window), as their bytes where they are the same.

        Row by row takes half the time of number by number.
        """
        source = window[self.field][self.rows]
        if (source.dtype, source.shape) != (self.into.dtype, self.into.shape[1:]) or self.columns:
            return self.into, source
        row = f"V{source.itemsize * source.shape[1]}"
        return self.into.view(row), source.view(row)


class Block:
    """Rows of windows that are read at once, used again for the next ones."""

    def __init__(self, length: int, wanted: Sequence[Wanted]) -> None:
        self._length, self._wanted = length, wanted
        self._rows = np.empty(0, np.uint8)
        self._first: list[tuple[np.ndarray, np.ndarray]] = []
        self._columns = [list(one.columns) or slice(None) for one in wanted]

    def of(self, dtype: np.dtype, rows: int) -> np.ndarray:
        """Room for so many rows of a type."""
        if len(self._rows) < rows or self._rows.dtype != dtype:
            self._rows = np.empty(rows, dtype)
            self._first = self._views(0)
        return self._rows[:rows]

    def _views(self, offset: int) -> list[tuple[np.ndarray, np.ndarray]]:
        window = self._rows[offset : offset + self._length]
        return [one.views(window) for one in self._wanted]

    def share(self, windows: Sequence[tuple[int, int]]) -> None:
        """Copies rows to the windows that begin at these offsets, (offset, number)."""
        for offset, number in windows:
            views = self._views(offset) if offset else self._first
            for (into, source), columns in zip(views, self._columns, strict=True):
                into[number] = source[:, columns]


def stretches(
    starts: Sequence[tuple[int, int]], length: int, chunk: int, most: int
) -> Iterator[Sequence[tuple[int, int]]]:
    """Windows (first row, number), in rising order, in parts that are read at once.

    Each of a part shares a chunk of so many rows with the one before (never, if 0), and all lie
    within `most` rows; a single window may be longer.
    """
    first = 0
    for i in range(1, len(starts)):
        row, before = starts[i][0], starts[i - 1][0]
        shared = chunk and row // chunk <= (before + length - 1) // chunk
        if not shared or row + length - starts[first][0] > most:
            yield starts[first:i]
            first = i
    yield starts[first:]
