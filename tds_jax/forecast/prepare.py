"""A record of any kind rewritten once as daily files that are fast to read at random."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.data.gridded import open_dataset
from tds_jax.data.gridded_write import AXES, STORE, grid_file, require_place, time_axis
from tds_jax.data.identity import fingerprint
from tds_jax.data.prepared import ORIGIN, require_known
from tds_jax.data.selection import HELP
from tds_jax.data.whole_file import sweep, whole_file
from tds_jax.errors import UserError
from tds_jax.fields import option, require
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.hours import hour_of
from tds_jax.forecast.opened import open_fields
from tds_jax.forecast.steps import DAY_HOURS, Step
from tds_jax.forecast.steps import HELP as STEP_HELP
from tds_jax.forecast.totals import HELP as TOTALS_HELP
from tds_jax.forecast.totals import TOTAL
from tds_jax.progress import Progress

RECORD = "prepared.json"  # what the folder's files have in common
LAND = "land.nc"
LAND_MASK = {"long_name": "Land-sea mask", "units": "1"}
FILE_BYTES = 256 * 2**20  # a file holds a year where that is less, else a month
BLOCK_BYTES = 64 * 2**20  # of days held at once
CHUNK_BYTES = 256 * 2**10  # read at once from disk; a window of days touches few of them


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Makes daily means and totals, or those of finer steps, on a coarser grid if asked, for
    data.path of a run."""

    variables: tuple[str, ...] = option(
        dataclasses.MISSING, "Names in the files, such as swvl1,ro,e,tp."
    )
    target: str = option("", "The one to forecast, whose days count; '' = the first.")
    accumulated: tuple[str, ...] = option((), TOTALS_HELP)
    land_mask: str = option("", "FILE:VARIABLE, above 0.5 on land; '' = where the target is.")
    downsample: int = option(1, "Cells per side of the blocks that are averaged.")
    compression: str = option("none", "'gzip' (smaller, slower to read) or 'none'.")
    select: tuple[str, ...] = option((), HELP)
    step_hours: int = option(DAY_HOURS, STEP_HELP, least=1)

    def run(self, source: Path, target: Path, progress: Progress) -> tuple[int, int, list[str]]:
        """Files written, files that were there, lines on input files left out.

        A file appears when whole, so the same call goes on where it was killed, and after new
        months have come it adds those. Memory: some BLOCK_BYTES, whatever the record.
        """
        require(self.variables != (), "--variables is empty; name one or more, such as swvl1,tp")
        hours = [name for name in self.variables if hour_of(name) is not None]
        require(
            not hours,
            f"--variables: {', '.join(hours)} of a day are no fields of their own; prepare steps "
            "that have them (--step_hours=6), and name them in data.variables",
        )
        if self.compression not in ("none", "gzip"):
            raise UserError(f"--compression={self.compression!r} must be 'none' or 'gzip'")
        store = target.suffix == STORE
        if store:
            require_place(source, target)
        elif target.resolve() == source.resolve() or (target.exists() and not target.is_dir()):
            raise UserError(f"--output={target} must be a folder other than --input")
        fields = open_fields(
            source,
            self.variables,
            self.target or self.variables[0],
            accumulated=self.accumulated,
            land_mask=self.land_mask,
            downsample=self.downsample,
            select=self.select,
            step_hours=self.step_hours,
        )
        for line in fields.notes:
            print(f"note: {line}", file=sys.stderr)
        parts, done, written = _parts(fields, target), 0, 0
        if not store:
            self._claim(target, fields)
            known = [LAND, *(path.name for path, _, _ in parts)]
            require_known(target, (path.name for path in target.glob("*.nc")), known)
        for path, start, stop in parts:
            progress(done, len(fields.days))
            written += self._write(fields, path, start, stop)
            done = stop
        progress(done, len(fields.days))
        if not store:
            _write_land(fields, target / LAND)
        return written, len(parts) - written, fields.unusable

    def _claim(self, folder: Path, fields: Fields) -> None:
        """Leaves a note of what the folder holds; UserError if it holds anything else."""
        text = self._settings(fields)
        sweep(folder)
        note = folder / RECORD
        if note.exists() and note.read_text() == text:
            return
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"--output={folder} holds other files, or fields prepared in another way; "
                "choose another folder or remove it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(note) as temporary:
            temporary.write_text(text)

    def _settings(self, fields: Fields) -> str:
        settings = dataclasses.asdict(self)
        if not self.select:
            del settings["select"]  # folders of before it was there are the same
        if self.step_hours == DAY_HOURS:
            del settings["step_hours"]  # likewise
        return json.dumps(settings | {"lat": fields.lat.tolist(), "lon": fields.lon.tolist()})

    def _write(self, fields: Fields, path: Path, start: int, stop: int) -> bool:
        """False if the file is there already. A store holds land and settings itself."""
        origin, store = fields.origin(start, stop), path.suffix == STORE
        if store:
            origin += " " + self._settings(fields)
        if (there := _origin(path)) == origin:
            return False
        if path.exists() and not there:
            raise UserError(f"--output={path} is not of prepare; choose another place")
        compression = None if self.compression == "none" else self.compression
        coordinates = {"time": time_axis(fields.days[start:stop]), **_axes(fields)}
        cells = len(fields.lat) * len(fields.lon)
        chunks = (max(1, CHUNK_BYTES // (4 * cells)), len(fields.lat), len(fields.lon))
        variables = {name: _described(fields.attributes[name]) for name in fields.variables}
        step = max(1, BLOCK_BYTES // (4 * cells * len(fields.variables)))
        attributes = {ORIGIN: origin}
        with grid_file(path, coordinates, variables, chunks, attributes, compression) as file:
            if store:
                land = fields.land.astype(np.float32)
                file.values("lsm", ("latitude", "longitude"), land, LAND_MASK)
            for begin in range(start, stop, step):
                end = min(begin + step, stop)
                block = fields.read(begin, end)
                for channel, name in enumerate(fields.variables):
                    file[name][begin - start : end - start] = block[..., channel]
        return True


def _parts(fields: Fields, target: Path) -> list[tuple[Path, int, int]]:
    """(file, first day, end) of the calendar months or years that have days; or of the store."""
    if target.suffix == STORE:
        return [(target, 0, len(fields.days))]
    day_bytes = 4 * len(fields.lat) * len(fields.lon) * len(fields.variables)
    year_bytes = 366 * Step.of(fields.days).per_day * day_bytes
    unit = "Y" if year_bytes <= FILE_BYTES else "M"
    spans, first = np.unique(fields.days.astype(f"datetime64[{unit}]"), return_index=True)
    ends = [*first[1:].tolist(), len(fields.days)]
    return [(target / f"{s}.nc", a, b) for s, a, b in zip(spans, first.tolist(), ends, strict=True)]


def _axes(fields: Fields) -> dict[str, tuple[np.ndarray, dict[str, str]]]:
    return {
        "latitude": (fields.lat, AXES["latitude"]),
        "longitude": (fields.lon, AXES["longitude"]),
    }


def _described(attributes: Any) -> dict[str, str]:
    kept = ("units", "long_name", "standard_name", TOTAL)
    return {key: attributes[key] for key in kept if key in attributes}


def _origin(path: Path) -> str:
    """What a prepared file says of itself; '' where there is none."""
    if not path.exists():
        return ""
    with open_dataset(str(path)) as there:
        return str(there.attrs.get(ORIGIN, ""))


def _write_land(fields: Fields, path: Path) -> None:
    origin = fingerprint({}, np.packbits(fields.land).tobytes())
    if _origin(path) == origin:
        return
    shape = fields.land.shape
    with grid_file(path, _axes(fields), {"lsm": LAND_MASK}, shape, {ORIGIN: origin}) as file:
        file["lsm"][...] = fields.land.astype(np.float32)
