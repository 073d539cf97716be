"""Days of gridded fields, made from daily or finer records as they are read."""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tds_jax.data.gridded import WHOLE, GridRecord, Region, open_record, read_static
from tds_jax.errors import UserError

BLOCK_BYTES = 64 * 2**20  # of steps held at once while days are made
LAND_SAMPLES = 32  # days looked at to find the cells that ever hold the target
STEP_TYPES = ("GRIB_stepType", "stepType", "step_type")
DAY = np.timedelta64(1, "D")


class Fields(Protocol):
    """Daily fields on a grid, read on demand; picklable.

    variables: (C) names, the target among them. attributes: by variable, as stored (units …).
    lat (H,), lon (W,): degrees in the file's order. days: (N,) datetime64[D], rising, gaps allowed.
    """

    variables: tuple[str, ...]
    target: str
    attributes: Mapping[str, Mapping[str, Any]]
    lat: np.ndarray
    lon: np.ndarray
    days: np.ndarray

    @property
    def land(self) -> np.ndarray:
        """(H, W) bool: cells where the target can be known."""
        ...

    def read(
        self, start: int, stop: int, variables: Sequence[str] = (), region: Region = WHOLE
    ) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], NaN where missing; () = all variables."""
        ...

    def static(self, name: str) -> np.ndarray:
        """(H, W) f32 of 'FILE:VARIABLE' without time on the files' grid, such as soil texture."""
        ...

    def digest(self) -> str:
        """Fingerprint of variables, days and grid."""
        ...


class DailyFields:
    """`Fields` over the files of a record.

    A variable with one step a day passes through. Of finer ones a day is the mean of its steps;
    it needs as many as most days have, and a cell needs all of them. An accumulated one runs from
    00 UTC, as in ERA5-Land: its day is the value at 00 UTC of the next day, so the total of a day
    whose next midnight is not in the record is missing. `days` are those of the target; on them
    other variables may be missing.

    accumulated: names; a variable whose attributes say step type 'accum' counts among them.
    land_mask: 'FILE:VARIABLE', above one half on land; or '': cells where the target is finite on
    one of LAND_SAMPLES days spread over the record.
    """

    def __init__(
        self,
        record: GridRecord,
        variables: Sequence[str],
        target: str,
        accumulated: Sequence[str],
        land_mask: str,
    ) -> None:
        self._record, self._land_mask = record, land_mask
        self.variables, self.target = tuple(variables), target
        first = record.files[0]
        self.lat, self.lon = first.lat, first.lon
        self.attributes: Mapping[str, Mapping[str, Any]] = {
            name: next(f.attributes[name] for f in record.files if name in f.attributes)
            for name in self.variables
        }
        tables = {name: self._table(name, accumulated) for name in self.variables}
        self.days = tables[target].days
        self._tables = {name: table.at(self.days) for name, table in tables.items()}

    def _table(self, name: str, accumulated: Sequence[str]) -> "_Days":
        attributes = self.attributes[name]
        runs = name in accumulated or any(attributes.get(key) == "accum" for key in STEP_TYPES)
        times = self._record.steps[name].times
        table = _Days.running(times) if runs else None
        table = table or _Days.whole(times)
        if not len(table.days):
            raise UserError(
                f"{name}: no day is complete between {times[0]} and {times[-1]}; an accumulation "
                "needs 00 UTC of the next day"
            )
        return table

    @functools.cached_property
    def land(self) -> np.ndarray:
        """(H, W) bool: the mask given, or the cells where a sample of days has the target."""
        if self._land_mask:
            return self.static(self._land_mask) > 0.5
        seen = np.zeros((len(self.lat), len(self.lon)), bool)
        samples = min(LAND_SAMPLES, len(self.days))
        for i in np.linspace(0, len(self.days) - 1, samples).round().astype(int):
            seen |= np.isfinite(self.read(i, i + 1, (self.target,))[0, ..., 0])
        if not seen.any():
            raise UserError(f"{self.target}: no value on any of {samples} days looked at")
        return seen

    def read(
        self, start: int, stop: int, variables: Sequence[str] = (), region: Region = WHOLE
    ) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], NaN where missing; () = all variables."""
        names = tuple(variables) or self.variables
        shape = len(self.lat[region[0]]), len(self.lon[region[1]])
        days = np.full((stop - start, *shape, len(names)), np.nan, np.float32)
        most = max(1, BLOCK_BYTES // (4 * shape[0] * shape[1]))
        for channel, name in enumerate(names):
            table = self._tables[name]
            for i, j in table.blocks(start, stop, most):
                begin, count = int(table.first[i]), int(table.count[i])
                steps = self._record.read(name, begin, begin + (j - i) * count, region)
                whole = steps.reshape(j - i, count, *shape)
                days[i - start : j - start, ..., channel] = (
                    whole.mean(axis=1, dtype=np.float64) if count > 1 else whole[:, 0]
                )
        return days

    def static(self, name: str) -> np.ndarray:
        """(H, W) f32 of 'FILE:VARIABLE' without time on the files' grid, such as soil texture."""
        path, _, variable = name.rpartition(":")
        if not path:
            raise UserError(f"{name!r} must be FILE:VARIABLE, such as land.nc:lsm")
        return read_static(path, variable, self.lat, self.lon)

    def digest(self) -> str:
        """Changes with variables, target, days or grid; not with where the files lie."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((self.variables, self.target)).encode())
        for part in (self.days, self.lat, self.lon, *(t.count for t in self._tables.values())):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Closes this process's files; the next read opens them again."""
        self._record.close()


@dataclasses.dataclass(frozen=True)
class _Days:
    """Which steps make each day: steps first .. first + count, averaged; count 0 is missing."""

    days: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @staticmethod
    def whole(times: np.ndarray) -> "_Days":
        """Days with as many steps as most have, or more."""
        days, first, count = np.unique(
            times.astype("datetime64[D]"), return_index=True, return_counts=True
        )
        complete = count >= np.bincount(count).argmax()
        return _Days(days[complete], first[complete], count[complete])

    @staticmethod
    def running(times: np.ndarray) -> "_Days | None":
        """The midnights after each day; None if the record is daily already."""
        dates = times.astype("datetime64[D]")
        if np.bincount(np.unique(dates, return_counts=True)[1]).argmax() == 1:
            return None
        first = np.flatnonzero(times == dates.astype(times.dtype))
        return _Days(dates[first] - DAY, first, np.ones_like(first))

    def at(self, days: np.ndarray) -> "_Days":
        """The table of other days, count 0 where this one has none."""
        place = np.minimum(np.searchsorted(self.days, days), len(self.days) - 1)
        found = self.days[place] == days
        return _Days(days, np.where(found, self.first[place], 0), self.count[place] * found)

    def blocks(self, start: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
        """[i, j) of days within [start, stop) whose steps follow each other, `most` at a time.

        Missing days are left out; a day is never cut.
        """
        i = start
        for j in range(start + 1, stop + 1):
            joined = (
                j < stop
                and self.count[j] == self.count[i]
                and self.first[j] == self.first[j - 1] + self.count[i]
                and (j + 1 - i) * self.count[i] <= most
            )
            if not joined:
                if self.count[i]:
                    yield i, j
                i = j


class CoarseFields:
    """`Fields` averaged over blocks of factor x factor cells.

    The mean of a block is over its cells that are there; it is missing if none is. Blocks at the
    lower and right edge may be smaller. Land: a block with any. Coordinates are the blocks' means.
    """

    def __init__(self, fields: Fields, factor: int) -> None:
        self._fields, self._factor = fields, factor
        self.variables, self.target = fields.variables, fields.target
        self.attributes, self.days = fields.attributes, fields.days
        self.lat, self.lon = (_blocks(axis, factor) for axis in (fields.lat, fields.lon))

    @functools.cached_property
    def land(self) -> np.ndarray:
        """(H, W) bool: blocks with any land."""
        return self._coarse(self._fields.land.astype(np.float32)) > 0

    def read(
        self, start: int, stop: int, variables: Sequence[str] = (), region: Region = WHOLE
    ) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], NaN where missing; () = all variables."""
        rows, columns = (
            slice(*(edge * self._factor for edge in part.indices(len(axis))[:2]))
            for part, axis in zip(region, (self.lat, self.lon), strict=True)
        )
        return coarsen(self._fields.read(start, stop, variables, (rows, columns)), self._factor)

    def static(self, name: str) -> np.ndarray:
        """(H, W) f32 means of 'FILE:VARIABLE' without time on the files' grid."""
        return self._coarse(self._fields.static(name))

    def _coarse(self, field: np.ndarray) -> np.ndarray:
        return coarsen(field[None, ..., None], self._factor)[0, ..., 0]

    def digest(self) -> str:
        """Changes with the fine fields' and the factor."""
        return f"{self._fields.digest()}-{self._factor}"


def coarsen(fields: np.ndarray, factor: int) -> np.ndarray:
    """(n, ceil(H/f), ceil(W/f), C) means of the finite values of f x f blocks; NaN where none."""
    finite = np.isfinite(fields)
    total, count = (_block_sums(x, factor) for x in (np.where(finite, fields, 0), finite))
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def _block_sums(values: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (np.arange(0, n, factor) for n in values.shape[1:3])
    by_row = np.add.reduceat(values, rows, axis=1, dtype=np.float64)
    return np.add.reduceat(by_row, columns, axis=2)


def _blocks(axis: np.ndarray, factor: int) -> np.ndarray:
    starts = range(0, len(axis), factor)
    return np.array([axis[start : start + factor].mean() for start in starts])


def open_fields(
    path: str | Path,
    variables: Sequence[str],
    target: str,
    *,
    accumulated: Sequence[str],
    land_mask: str,
    downsample: int,
    progress: Callable[[int, int], None] | None = None,
) -> Fields:
    """Daily fields of a file, a folder or glob of files, or a Zarr store; nothing is read yet.

    variables: names in the order of the channels; target: one of them. accumulated: see
    `DailyFields`. land_mask: 'FILE:VARIABLE' with the share of land on the same grid, or ''.
    downsample: cells per side of the blocks that are averaged; 1 = as stored.
    """
    if target not in variables:
        raise UserError(f"data.target={target!r} must be one of data.variables={tuple(variables)}")
    for name in accumulated:
        if name not in variables:
            raise UserError(f"data.accumulated: {name!r} is not among {tuple(variables)}")
    record = open_record(os.fspath(path), variables, progress)
    fields = DailyFields(record, variables, target, accumulated, land_mask)
    if downsample < 1 or downsample > min(record.shape):
        raise UserError(
            f"data.downsample={downsample} does not fit the grid of {record.shape[0]} x "
            f"{record.shape[1]} cells; use 1 or a few"
        )
    return CoarseFields(fields, downsample) if downsample > 1 else fields


def runs(days: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of the stretches of consecutive days."""
    breaks = np.flatnonzero(np.diff(days) != DAY) + 1
    return list(itertools.pairwise([0, *breaks.tolist(), len(days)])) if len(days) else []


def year_fraction(days: np.ndarray) -> np.ndarray:
    """Share of its calendar year that has passed when a day begins, f64 in [0, 1)."""
    years = days.astype("datetime64[Y]")
    first, following = (y.astype("datetime64[D]") for y in (years, years + 1))
    return (days - first) / (following - first)
