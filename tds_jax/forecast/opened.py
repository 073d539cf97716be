"""The fields that a path names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from tds_jax.data.grid_record import open_record
from tds_jax.data.selection import parse
from tds_jax.errors import UserError
from tds_jax.forecast.coarse import CoarseFields
from tds_jax.forecast.fields import DailyFields
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.hours import base_of, hour_of
from tds_jax.forecast.steps import DAILY, Step, require_step
from tds_jax.progress import Progress, silent


def open_fields(
    path: str | Path | xr.Dataset,
    variables: Sequence[str],
    target: str,
    *,
    accumulated: Sequence[str],
    land_mask: str,
    downsample: int,
    select: Sequence[str] = (),
    step_hours: int = DAILY.hours,
    units: Mapping[str, str] | None = None,
    west: float | None = None,
    progress: Progress = silent,
    more_targets: Sequence[str] = (),
    keep_bytes: int = 0,
) -> Fields:
    """Fields of a file, a folder or glob of files, a Zarr store, or of a dataset in memory.

    Of files, nothing is read yet.

    variables: names in the order of the channels, or 'NAME@18' for an hour; target: one of them.
    accumulated: see `DailyFields`. land_mask: 'FILE:VARIABLE' with the share of land on the same
    grid, or ''. downsample: cells per side of the blocks that are averaged; 1 = as stored. select:
    of further dimensions, as 'number=0'. step_hours: of the fields, see `forecast.steps`. units:
    what variables are converted to; UserError where that cannot be. west: where longitudes of the
    fields shall begin, if they can. more_targets: others that are forecast beside the target.
    keep_bytes: days that all fit in them are read once.
    """
    for setting, name in (("target", target), *(("more_targets", n) for n in more_targets)):
        words = f"data.{setting}={name!r}"
        if name not in variables:
            raise UserError(f"{words} must be one of data.variables={tuple(variables)}")
        if hour_of(name) is not None:
            raise UserError(f"{words} is an hour of a day; forecast {base_of(name)!r}")
    require_step(step_hours)
    stored = tuple(dict.fromkeys(base_of(name) for name in variables))
    record = open_record(path, stored, progress, parse(select), west)
    step = Step(step_hours)
    how = land_mask, units, step, more_targets, keep_bytes
    fields = DailyFields(record, variables, target, accumulated, *how)
    if downsample < 1 or downsample > min(record.shape):
        raise UserError(
            f"data.downsample={downsample} does not fit the grid of {record.shape[0]} x "
            f"{record.shape[1]} cells; use 1 or a few"
        )
    return CoarseFields(fields, downsample) if downsample > 1 else fields
