"""Fields over many files of one grid: which steps there are, and blocks of them on demand."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from tds_jax.data.drive import blame_the_drive, reading
from tds_jax.data.grid_steps import Steps, join_steps, require_same_units, require_sorted
from tds_jax.data.gridded import (
    GridFile,
    field_values,
    find_files,
    header,
    open_dataset,
    require_same_grid,
    span,
    turned_to,
)
from tds_jax.data.longitudes import beginning
from tds_jax.data.open_files import OpenFiles
from tds_jax.data.packing import packing_of
from tds_jax.data.selection import VERSIONS, Selection, selected
from tds_jax.data.sentinels import bounds_of, lines, marks_in
from tds_jax.errors import UserError
from tds_jax.progress import Progress, silent

MAX_OPEN_FILES = 32  # per process; a header and a chunk per variable for each
SAMPLES = 8  # steps of a variable looked at for numbers that mean "missing"
BLOCK_BYTES = 16 * 2**20  # of steps that two files hold, compared at once
MEMORY = "the dataset"  # the path of what is no file

Region = tuple[slice, slice]  # of rows (latitude) and columns (longitude)
WHOLE: Region = (slice(None), slice(None))


class GridRecord:
    """Fields over many files, read in blocks of steps; picklable, files open when first read.

    files: on one grid. west: where longitudes shall begin, if they can. unusable: by path, a line
    on each file that could not be opened or, once it was tried, read; what could not be read is
    NaN, and said on stderr. held: by path, what is in memory.
    """

    def __init__(
        self,
        files: Sequence[GridFile],
        variables: Sequence[str],
        unusable: Mapping[str, str] | None = None,
        west: float | None = None,
        held: Mapping[str, xr.Dataset] | None = None,
    ) -> None:
        self.unusable, self._held = dict(unusable or {}), dict(held or {})
        for other in files[1:]:
            require_same_grid(files[0], other)
        for name in variables:
            require_same_units(files, name)
        lon = files[0].lon if west is None else beginning(files[0].lon, west)[0]
        self.files = tuple(turned_to(lon, one) for one in files)
        self._open: OpenFiles[xr.Dataset] = OpenFiles(MAX_OPEN_FILES, xr.Dataset.close)
        joined = {name: join_steps(files, name) for name in variables}
        self.steps = {name: steps for name, (steps, _) in joined.items()}
        samples = {name: self._sample(name) for name in variables}
        self._bounds = {name: bounds_of(*sample) for name, sample in samples.items()}
        self.notes = [line for name, sample in samples.items() for line in lines(name, *sample)]
        self._marked = {line.split(":")[0] for line in self.notes}
        self.notes += _selection_notes(files) + _turned_notes(self.files)
        for name, (_, again) in joined.items():
            self._require_same(name, again)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return len(self.files[0].lat), len(self.files[0].lon)

    def read(
        self, variable: str, start: int, stop: int, every: int = 1, region: Region = WHOLE
    ) -> np.ndarray:
        """Steps start, start + every, … < stop: (n, h, w) f32, NaN where missing or infinite."""
        stored = self._stored(variable, np.arange(start, stop, every), region)
        parts = [self._cleaned(file, variable, part) for file, part in stored]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _cleaned(self, file: GridFile, variable: str, part: np.ndarray) -> np.ndarray:
        """Values of a file, NaN instead of marks of what is missing."""
        bounds = self._bounds[variable]
        stored = self._suspects(file, variable, part) if bounds.stored else None
        marks = marks_in(part, bounds, stored)
        if marks.any():
            self._say_marks(variable, part[marks])
            part[marks] = np.nan
        return part

    def _suspects(self, file: GridFile, variable: str, part: np.ndarray) -> np.ndarray:
        with self._using(file) as data:
            return packing_of(data[variable]).stored(part)

    def _stored(
        self, variable: str, wanted: np.ndarray, region: Region = WHOLE
    ) -> Iterator[tuple[GridFile, np.ndarray]]:
        """The file and the values, marks among them, of each run of equally distant steps."""
        table, every = self.steps[variable], int(wanted[1] - wanted[0]) if len(wanted) > 1 else 1
        files, offsets = (x[wanted] for x in (table.file, table.offset))
        breaks = np.flatnonzero((np.diff(files) != 0) | (np.diff(offsets) != every)) + 1
        for part in np.split(np.arange(len(wanted)), breaks):
            first, last = int(offsets[part[0]]), int(offsets[part[-1]])
            file = self.files[files[part[0]]]
            yield file, self._read_file(file, variable, slice(first, last + 1, every), region)

    def _sample(self, variable: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, H, W) some steps from the first to the last, marks among them, and `_suspects`."""
        count = len(self.steps[variable].times)
        chosen = np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int)
        found = [next(self._stored(variable, one)) for one in np.split(chosen, len(chosen))]
        suspects = [self._suspects(file, variable, part) for file, part in found]
        return np.concatenate([part for _, part in found]), np.concatenate(suspects)

    def _require_same(self, variable: str, again: Steps) -> None:
        """Notes the steps that several files hold alike; UserError where their values differ."""
        kept = np.searchsorted(self.steps[variable].times, again.times)
        together = (np.diff(kept) == 1) & (np.diff(again.file) == 0) & (np.diff(again.offset) == 1)
        most = max(1, BLOCK_BYTES // (4 * self.shape[0] * self.shape[1]))
        for run in np.split(np.arange(len(kept)), np.flatnonzero(~together) + 1):
            for part in np.split(run, range(most, len(run), most)):
                self._compare(variable, kept[part], again.at(part))
        if len(kept):
            self.notes.append(
                f"{variable}: {len(kept)} times are in several files with the same values, the "
                f"first {again.times[0]}; they count once"
            )

    def _compare(self, variable: str, kept: np.ndarray, again: Steps) -> None:
        if not len(kept):
            return
        one = self.files[self.steps[variable].file[kept[0]]]
        two = self.files[again.file[0]]
        steps = slice(int(again.offset[0]), int(again.offset[-1]) + 1, 1)
        pair = (
            self.read(variable, int(kept[0]), int(kept[-1]) + 1),
            self._cleaned(two, variable, self._read_file(two, variable, steps, WHOLE)),
        )
        # Each file may have rounded to 16 bits with a scale of its own.
        rounding = sum(self._packing(file, variable) for file in (one, two)) / 2
        if np.allclose(*pair, rtol=1e-6, atol=1.001 * rounding, equal_nan=True):
            return
        same = np.isclose(*pair, rtol=1e-6, atol=1.001 * rounding, equal_nan=True)
        at = tuple(np.argwhere(~same)[0])
        raise UserError(
            f"{variable}: {len(again.times)} times occur twice, the first {again.times[0]} in "
            f"{one.path} and in {two.path}, and on {again.times[at[0]]} their values differ "
            f"({pair[0][at]:g}, {pair[1][at]:g}); leave one of them out"
        )

    def _packing(self, file: GridFile, variable: str) -> float:
        """The step of integers that a file's values are stored in; 0 for floats."""
        with self._using(file) as data:
            return abs(float(data[variable].encoding.get("scale_factor", 0)))

    def _say_marks(self, variable: str, marks: np.ndarray) -> None:
        """Once, of marks that the steps looked at first did not show."""
        if variable not in self._marked:
            self._marked.add(variable)
            print(
                f"warning: {variable}: {marks[0]:g} stands for what is missing, first in "
                f"{len(marks)} cells",
                file=sys.stderr,
            )

    def paths(self, variable: str, steps: np.ndarray) -> list[str]:
        """The files in which these steps of a variable are."""
        return [self.files[i].path for i in np.unique(self.steps[variable].file[steps])]

    def close(self) -> None:
        """Closes this process's files; the next read opens them again."""
        self._open.close()

    def _read_file(self, file: GridFile, variable: str, steps: slice, region: Region) -> np.ndarray:
        with self._using(file) as data:

            def read(wanted: range) -> np.ndarray:
                """What can be read, by halves where something cannot."""
                part = slice(wanted.start, wanted.stop, wanted.step)
                try:
                    values = field_values(data[variable], file, part, region)
                    values[~np.isfinite(values)] = np.nan
                    return values
                except Exception as error:  # damage shows itself in any library's way
                    blame_the_drive(error, file.path)
                    if len(wanted) > 1:
                        middle = len(wanted) // 2
                        return np.concatenate([read(wanted[:middle]), read(wanted[middle:])])
                    self._say(file, variable, wanted.start, error)
                    shape = 1, len(file.lat[region[0]]), len(file.lon[region[1]])
                    return np.full(shape, np.nan, np.float32)

            return read(range(steps.start, steps.stop, steps.step))

    def _using(self, file: GridFile) -> contextlib.AbstractContextManager[xr.Dataset]:
        if file.path in self._held:
            return contextlib.nullcontext(self._held[file.path])
        return self._open.using(file.path, lambda: open_dataset(file.path, file.select))

    def _say(self, file: GridFile, variable: str, step: int, error: Exception) -> None:
        if file.path in self.unusable:
            return
        text = " ".join(str(error).split())[:200] or type(error).__name__
        line = (
            f"{file.path}: step {step} of {variable}, and maybe others, cannot be read "
            f"({text}) and count as missing; copy the file again"
        )
        self.unusable[file.path] = line
        print(f"warning: {line}", file=sys.stderr)


def _selection_notes(files: Sequence[GridFile]) -> list[str]:
    chosen = set().union(*(one.chosen for one in files))
    merged = sorted(set().union(*(one.merged for one in files)))
    nothing = [name for name in files[0].select if name not in chosen]
    return [
        *(f"select {name}={files[0].select[name]}: no file has {name}" for name in nothing),
        *(
            f"{name}: of the versions in {VERSIONS} the first that is there counts"
            for name in merged
        ),
    ]


def _turned_notes(files: Sequence[GridFile]) -> list[str]:
    turned = [one for one in files if one.first or not np.allclose(one.stored, one.lon)]
    if not turned:
        return []
    return [
        f"longitude {span(turned[0].stored)} is read as {span(files[0].lon)} in {len(turned)} of "
        f"{len(files)} files"
    ]


def _opened(
    name: str, select: Selection | None, held: Mapping[str, xr.Dataset]
) -> contextlib.AbstractContextManager[xr.Dataset]:
    return contextlib.nullcontext(held[name]) if name in held else open_dataset(name, select)


def open_record(
    path: str | Path | xr.Dataset,
    variables: Sequence[str],
    progress: Progress = silent,
    select: Selection | None = None,
    west: float | None = None,
) -> GridRecord:
    """The record of `variables` over every file that `path` names (see `find_files`), or in memory.

    Files without any of the variables are left out; a variable may live in files of its own. So
    are those that cannot be used, each with a line in `unusable`; UserError if half of all cannot.
    UserError names a variable that no file has, with those found. select: see `selection.selected`;
    west: `GridRecord`.
    """
    held: dict[str, xr.Dataset] = {}
    if isinstance(path, xr.Dataset):
        held, path = {MEMORY: selected(path, select, MEMORY) if select else path}, MEMORY
    names = list(held) or find_files(path)
    files, inside = [], set()
    unusable: dict[str, str] = {}
    for done, name in enumerate(names, start=1):
        try:
            with reading(name), _opened(name, select, held) as data:
                inside |= {str(key) for key in data.variables}
                if set(variables) & set(data.variables):
                    found = header(data, name, select)
                    require_sorted(found)
                    files.append(found)
        except UserError as error:
            unusable[name] = str(error)
        progress(done, len(names))
    if 2 * len(unusable) >= len(names):
        more = f" ({len(unusable)} of {len(names)} files are unusable)" if len(names) > 1 else ""
        raise UserError(next(iter(unusable.values())) + more)
    fields = {name for one in files for name in one.attributes}
    for variable in variables:
        for one in files:
            if variable in one.further:
                raise UserError(f"{one.path}: {variable} {one.further[variable]}")
        if variable not in fields:
            what = "does not lie over time, latitude and longitude"
            raise UserError(
                f"{path}: variable {variable!r} {what if variable in inside else 'is missing'}; "
                f"found {', '.join(sorted(inside)) or 'none'}"
            )
    return GridRecord(files, variables, unusable, west, held)
