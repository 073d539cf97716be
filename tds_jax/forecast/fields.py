"""Days of gridded fields, made from daily or finer records as they are read."""

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tds_jax.data.grid_record import WHOLE, GridRecord, Region
from tds_jax.data.gridded import read_static
from tds_jax.data.identity import below, fingerprint
from tds_jax.data.units import conversion
from tds_jax.errors import UserError
from tds_jax.forecast.days import DayTable
from tds_jax.forecast.hours import (
    base_of,
    hour_of,
    hour_table,
    require_no_hours,
    require_value,
)
from tds_jax.forecast.kept import KeptDays, Read
from tds_jax.forecast.land import land_of, require_fit
from tds_jax.forecast.steps import DAILY, Step, require_steps
from tds_jax.forecast.totals import (
    KINDS,
    OF_STEP,
    SUMMED,
    TOTAL,
    asked_kinds,
    day_table,
    left_out,
    settle,
)

BLOCK_BYTES = 64 * 2**20  # of steps held at once while days are made
LAND_SAMPLES = 32  # days looked at to find the cells that ever hold the target


Described = Mapping[str, Mapping[str, Any]]
"""Variable -> its attributes."""


class DailyFields:
    """`Fields` over the files of a record.

    A variable with one step a day passes through. Of finer ones a day is the mean of its steps;
    it needs as many as most days have, or equal ones that cover it, and a cell needs all of them.
    Accumulated ones are of one of `totals.KINDS`: a day whose steps, the next midnight among them,
    are not all in the record is missing. `days` are those of the first target; on them others may
    be missing. 'NAME@18' is the value of NAME at 18 UTC of a day, see `forecast.hours`.

    accumulated: names, or 'NAME=KIND' where the kind shall not be found in the values; a variable
    whose attributes say step type 'accum' counts among them. step: of which the days are made that
    are spoken of here, a day or finer.
    land_mask: 'FILE:VARIABLE', above one half on land, elsewhere all targets are missing whatever
    the files say; or ''. Land is where the target is finite on one of LAND_SAMPLES days spread over
    the record, or on any where these differ. units: by variable, what it is converted to where its
    own unit is known and another. more_targets: to be looked at by `aimed`. keep_bytes: days that
    all fit in them are read once, see `kept.KeptDays`.
    """

    def __init__(
        self,
        record: GridRecord,
        variables: Sequence[str],
        target: str,
        accumulated: Sequence[str],
        land_mask: str,
        units: Mapping[str, str] | None = None,
        step: Step = DAILY,
        more_targets: Sequence[str] = (),
        keep_bytes: int = 0,
    ) -> None:
        self._record, self._land_mask, self._step = record, land_mask, step
        self.variables, self.target = tuple(variables), target
        self.targets = (target, *more_targets)
        self._lands: dict[str, np.ndarray] = {}
        self._changing: set[str] = set()  # targets that some days have in cells that others lack
        self._notes: list[str] = []
        first = record.files[0]
        self.lat, self.lon, self.axes = first.lat, first.lon, first.axes[1:]
        require_no_hours(self.variables, step)
        described, self._converted = self._conversions(self._described(), units or {})
        asked = asked_kinds(accumulated, self.variables)
        self.kinds = {name: self._kind(name, described[name], asked) for name in self.variables}
        # Of ours, whatever the files' were.
        self.attributes: Described = {
            name: {**own, TOTAL: OF_STEP} if self.kinds[name] != "day" else own
            for name, own in described.items()
        }
        tables = {name: self._table(name) for name in self.variables}
        self.left_out = [
            line
            for name, table in tables.items()
            if hour_of(name) is None
            for line in left_out(name, record.steps[name].times, self.kinds[name], table)
        ]
        self.days = tables[target].days
        self._tables = self._on_days(tables)
        shape = len(self.days), len(self.lat), len(self.lon)
        fits = KeptDays.size(shape, self.variables) <= keep_bytes
        self._values: Read = KeptDays(self._stored, shape, self.variables) if fits else self._stored

    def _described(self) -> Described:
        """Attributes of each variable in the first file that has it."""
        return {
            name: next(f.attributes[base] for f in self._record.files if base in f.attributes)
            for name in self.variables
            for base in (base_of(name),)
        }

    def _conversions(
        self, described: Described, units: Mapping[str, str]
    ) -> tuple[Described, dict[str, tuple[float, float]]]:
        """Attributes in the units that are wanted, and (scale, offset) of variables in others."""
        found, changed = {}, dict(described)
        for name, wanted in units.items():
            own = str(described[name].get("units", ""))
            if not own or not wanted:
                continue
            change = conversion(name, own, wanted, self._record.files[0].path)
            changed[name] = {**described[name], "units": wanted}
            if change != (1.0, 0.0):
                found[name] = change
                self._notes.append(f"{name} is in {own!r}, converted to {wanted!r}")
        return changed, found

    def _kind(self, name: str, attributes: Mapping[str, Any], asked: Mapping[str, str]) -> str:
        base = base_of(name)
        found = settle(self._record, base, attributes, asked.get(base))
        if base != name:
            require_value(name, found)
        return found

    def _on_days(self, tables: Mapping[str, DayTable]) -> dict[str, DayTable]:
        """Each variable's on the days of the target; UserError for one that has none of them."""
        found = {name: table.at(self.days) for name, table in tables.items()}
        for name, table in found.items():
            if not table.count.any():
                raise UserError(
                    f"{name}: there is no day for which both it and {self.target} are whole; its "
                    f"files have {tables[name].days[0]} to {tables[name].days[-1]}"
                )
        return found

    def _table(self, name: str) -> DayTable:
        times = self._record.steps[base_of(name)].times
        if (hour := hour_of(name)) is not None:
            return hour_table(name, times, hour)
        require_steps(name, times, self._step)
        return day_table(name, times, self.kinds[name], self._step)

    def aimed(self, target: str) -> Self:
        """The same with another target looked at."""
        other = copy.copy(self)
        other.target = target
        return other

    @property
    def land(self) -> np.ndarray:
        """(H, W) bool: the cells where the target ever is, of those of the mask given.

        Where some days have cells that others lack, as swaths do, all days are looked at.
        """
        if self.target not in self._lands:
            self._lands[self.target] = self._found_land()
        return self._lands[self.target]

    def _found_land(self) -> np.ndarray:
        samples = min(LAND_SAMPLES, len(self.days))
        chosen = np.linspace(0, len(self.days) - 1, samples).round().astype(int)
        found = np.stack([self._known(int(i), int(i) + 1) for i in chosen])
        seen = np.asarray(found.any(axis=0))
        if not (found == found[0]).all():
            self._changing.add(self.target)
            seen = self._known(0, len(self.days))
        if self._land_mask:
            require_fit(self._land_mask, self._mask, seen, f"{self.target} on {samples} days")
            return self._mask & seen
        if not seen.any():
            raise UserError(f"{self.target}: no value on any of {samples} days looked at")
        return seen

    def seen(self, days: range) -> np.ndarray:
        """(H, W) bool: the land on which the target is on any of days; all of it where the days
        looked at for it are alike."""
        land = self.land
        return land & self._known(days.start, days.stop) if self.target in self._changing else land

    @functools.cached_property
    def _mask(self) -> np.ndarray:
        return land_of(self.static(self._land_mask), self._land_mask)

    def _known(self, start: int, stop: int) -> np.ndarray:
        """(H, W) bool: whether the target is there on any of the days, by the files alone."""
        seen = np.zeros((len(self.lat), len(self.lon)), bool)
        most = max(1, BLOCK_BYTES // (4 * seen.size))
        for first in range(start, stop, most):
            block = self._values(first, min(first + most, stop), (self.target,), WHOLE)
            seen |= np.isfinite(block[..., 0]).any(axis=0)
        return seen

    def read(
        self, start: int, stop: int, variables: Sequence[str] = (), region: Region = WHOLE
    ) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], NaN where missing; () = all variables."""
        names = tuple(variables) or self.variables
        days = self._values(start, stop, names, region)
        if self._land_mask:
            for name in set(self.targets) & set(names):
                days[:, ~self._mask[region], names.index(name)] = np.nan
        return days

    def _stored(self, start: int, stop: int, names: Sequence[str], region: Region) -> np.ndarray:
        """`read` without the mask, from the files."""
        shape = len(self.lat[region[0]]), len(self.lon[region[1]])
        days = np.full((stop - start, *shape, len(names)), np.nan, np.float32)
        most = max(1, BLOCK_BYTES // (4 * shape[0] * shape[1]))
        for channel, name in enumerate(names):
            table = self._tables[name]
            for block in table.blocks(start, stop, most):
                place = slice(block.day - start, block.day - start + block.days)
                begin, end = block.first, block.first + block.days * block.every
                every = block.every if block.count == 1 else 1
                steps = self._record.read(base_of(name), begin, end, every, region)
                if block.count > 1:
                    whole = steps.reshape(block.days, block.count, *shape)
                    steps = whole.mean(axis=1, dtype=np.float64)
                    steps *= block.count if self.kinds[name] in SUMMED else 1
                days[place, ..., channel] = steps
            for block in table.taken_off().blocks(start, stop, most):
                place = slice(block.day - start, block.day - start + block.days)
                end = block.first + block.days * block.every
                days[place, ..., channel] -= self._record.read(
                    base_of(name), block.first, end, block.every, region
                )
            if name in self._converted:
                scale, offset = self._converted[name]
                days[..., channel] = days[..., channel] * scale + offset
        return days

    def static(self, name: str) -> np.ndarray:
        """(H, W) f32 of 'FILE:VARIABLE' without time on the files' grid, such as soil texture."""
        path, _, variable = name.rpartition(":")
        if not path:
            raise UserError(f"{name!r} must be FILE:VARIABLE, such as land.nc:lsm")
        return read_static(path, variable, self.lat, self.lon)

    def has(self, name: str) -> np.ndarray:
        """(N,) bool: the days for which the record has all steps of a variable."""
        return self._tables[name].count > 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Kinds of totals that not every file with 'accum' has; what was converted or left out."""
        return (*self.totals, *self._notes, *self.record_notes, *self.left_out, *self.land_notes)

    @property
    def land_notes(self) -> list[str]:
        """A line on land of the mask that is none of the data's."""
        never = {
            name: int((self._mask & ~self.aimed(name).land).sum())
            for name in self.targets
            if self._land_mask
        }
        return [
            f"{self._land_mask}: {count} cells of its land never have {name}, and count as sea"
            for name, count in never.items()
            if count
        ]

    @property
    def record_notes(self) -> tuple[str, ...]:
        """A line for marks of missing values and for steps that several files hold."""
        return tuple(self._record.notes)

    @property
    def unusable(self) -> list[str]:
        """A line for each file that could not be opened or, as far as was tried, read."""
        return list(self._record.unusable.values())

    @property
    def totals(self) -> list[str]:
        """A line for each variable that sums otherwise than ERA5-Land."""
        told = (*SUMMED, "midnight")
        held = {name: kind for name, kind in self.kinds.items() if hour_of(name) is None}
        return [f"{n} holds {KINDS[k]}" for n, k in held.items() if k in told]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the record."""
        return tuple(file.path for file in self._record.files)

    def digest(self) -> str:
        """Changes with variables, targets, days or grid; not with where the files lie."""
        digest = hashlib.blake2b(digest_size=8)
        others = (name for name in self.targets if name != self.target)
        digest.update(repr((self.variables, self.target, *others)).encode())
        digest.update("".join([*self.totals, *self._notes]).encode())
        for part in (self.days, self.lat, self.lon, *(t.count for t in self._tables.values())):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def origin(self, start: int, stop: int) -> str:
        """Fingerprint of days[start:stop], what they are made of and the files they are in."""
        digest = hashlib.blake2b(repr(self.variables).encode(), digest_size=8)
        digest.update("".join([*self.totals, *self._notes]).encode())
        for part in (self.days[start:stop], self.lat, self.lon):
            digest.update(np.ascontiguousarray(part).tobytes())
        for name, table in self._tables.items():
            there = table.count[start:stop] > 0
            first = table.first[start:stop][there]
            last = first + table.count[start:stop][there] - 1
            digest.update(np.packbits(there).tobytes())
            before = table.before[start:stop][there]
            steps = np.concatenate([first, last, before[before >= 0]])
            paths = self._record.paths(base_of(name), steps)
            digest.update(fingerprint(below(paths)).encode())
        return digest.hexdigest()
