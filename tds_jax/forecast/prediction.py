"""Forecasts from every day of a record, as CF NetCDF or Zarr; memory does not grow with length."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.data.gridded_write import AXES, EPOCH, grid_file, require_place, time_axis
from tds_jax.data.places import make_folder_for
from tds_jax.engine import processes
from tds_jax.engine.history import UNTOLD, Made
from tds_jax.engine.step import compiled
from tds_jax.errors import UserError
from tds_jax.fields import require_ending
from tds_jax.forecast.days import DAY, year_fraction
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.model import Forecaster
from tds_jax.forecast.task import ForecastTask
from tds_jax.progress import Progress, progress_bar

LEAD = "prediction_timedelta"
SHOWN = 3  # files named in a line
# Attributes of the input that still hold for a forecast of it.
KEPT = ("units", "long_name", "standard_name")


def predict(
    task: ForecastTask,
    model: nnx.Module,
    source: Path,
    target: Path,
    workdir: Path | None = None,
    made: Made = UNTOLD,
) -> list[Path]:
    """A file with the target over (time, prediction_timedelta, latitude, longitude).

    target: a Zarr store if it ends in '.zarr', else NetCDF. source: as data.path: a file, a folder
    of files or a Zarr store, on the model's grid; a forecast is made after every day that ends an
    unbroken stretch of input days, the record's last among them. time is that day,
    prediction_timedelta 1 ... L days, valid_time (both) their sum. Axes have the input's names,
    order and values, turned to the run's longitudes; cells without land in either are NaN. A cell
    that an input day lacks counts as usual there. UserError, after all is written, if a file could
    not be read. workdir: the run's; nothing in it is needed. made: attributes of the file.
    """
    require_ending("--output", target, (".nc", ".nc4", ".zarr"))
    if not processes.first():  # it is one file
        return [target]
    fields = task.open(str(source))
    last = require_forecasts(task, fields, f"--input={source}")
    require_place(source, target)
    make_folder_for(target)
    with progress_bar("predicting") as progress:
        blocks = forecasts(task, model, runner(model), fields, last)
        _write(task, fields, last, target, blocks, progress, made)
    if fields.unusable:
        names = ", ".join(line.split(":")[0] for line in fields.unusable[:SHOWN])
        raise UserError(
            f"{target} is written, but without what {len(fields.unusable)} of the input's files "
            f"hold, see the lines above: {names}"
        )
    return [target]


def require_forecasts(task: ForecastTask, fields: Fields, name: str) -> np.ndarray:
    """Indices of the days after which there is a forecast; says what is strange about the fields.

    UserError, beginning with their name, for another grid than the run's, and where there is none.
    """
    for line in (*fields.unusable, *fields.notes):
        print(f"note: {line}", file=sys.stderr)
    found, wanted = task.grid_of(fields), task.recorded
    if found != (wanted.height, wanted.width, wanted.grid):
        raise UserError(
            f"{name} has {found[0]} x {found[1]} cells, {found[2]}; the model was "
            f"trained on {wanted.height} x {wanted.width}, {wanted.grid}; bring it onto that grid"
        )
    if new := int((fields.land & ~task.seen).sum()):
        print(
            f"note: {new} cells have data that training never saw, and no forecast", file=sys.stderr
        )
    last = last_days(fields.days, task.spec.input_days)
    if not len(last):
        raise UserError(f"{name} has no {task.spec.input_days} days in a row; give a longer record")
    return last


def last_days(days: np.ndarray, length: int) -> np.ndarray:
    """Indices of the days that end `length` consecutive ones."""
    ends = np.arange(length - 1, len(days))
    return ends[days[ends] - days[ends - length + 1] == (length - 1) * DAY]


def runner(model: nnx.Module) -> Callable[[Any], jax.Array]:
    """Batch -> (B, L, H, W), compiled once."""
    return compiled(model, lambda model, batch: model(batch, False))


def forecasts(
    task: ForecastTask,
    model: nnx.Module,
    run: Callable[[Any], jax.Array],
    fields: Fields,
    last: np.ndarray,
) -> Iterator[np.ndarray]:
    """(n, L, H, W) f32 in the data's unit after consecutive ones of `last`, NaN without land."""
    size, days, leads = task.config.eval.batch_size, task.spec.input_days, task.spec.lead_days
    for first in range(0, len(last), size):
        ends = last[first : first + size]
        # A short last batch repeats its last example: one compiled shape.
        padded = np.pad(ends, (0, size - len(ends)), mode="edge")
        windows = np.stack([fields.read(i - days + 1, i + 1) for i in padded])
        dates = fields.days[padded][:, None] + DAY * np.arange(1 - days, leads + 1)
        batch = make_batch(windows, year_fraction(dates.ravel()).reshape(dates.shape))
        maps = np.asarray(run(jax.tree.map(jnp.asarray, batch)))[: len(ends)]
        there = fields.land & task.seen & ~_strange(model, task.target, windows[: len(ends)])
        yield np.where(there[:, None], maps, np.float32(np.nan))


def _strange(model: nnx.Module, target: int, windows: np.ndarray) -> np.ndarray:
    """(n, H, W) or (n, 1, 1) bool: cells in which training never saw the target.

    Their usual value is 0 all year, as it is where there always was nothing, snow in the tropics:
    those are told by an input that is 0 too.
    """
    assert isinstance(model, Forecaster)
    usual = np.asarray(model.centre[...])[..., target]
    if usual.shape[1:] == (1, 1):
        return np.zeros((1, 1, 1), bool)
    values = windows[..., target]
    nothing = (values == 0).any(axis=1) & ((values == 0) | np.isnan(values)).all(axis=1)
    return (usual == 0).all(axis=0) & ~nothing


def make_batch(windows: np.ndarray, phase: np.ndarray) -> dict[str, Any]:
    """What a `Forecaster` reads, of windows (B, T, H, W, C) with NaN and phases (B, T + L)."""
    known = np.isfinite(windows)
    return {
        "fields": np.where(known, windows, np.float32(0)),
        "present": known.astype(np.uint8),
        "phase": phase.astype(np.float32),
        "origin": np.zeros((len(windows), 2), np.int32),
    }


class Layout(NamedTuple):
    """Of forecasts as CF has them. axes: the dimensions in order; described: of the target;
    valid: of valid_time; about: of the whole."""

    axes: dict[str, tuple[np.ndarray, dict[str, str]]]
    described: dict[str, Any]
    valid: tuple[np.ndarray, dict[str, str]]
    about: dict[str, str]


def layout(task: ForecastTask, fields: Fields, last: np.ndarray) -> Layout:
    """The layout of the forecasts after some days of fields."""
    leads, days = task.spec.lead_days, fields.days[last]
    time, told = time_axis(days)
    axes = {
        "time": (time, told | {"standard_name": "forecast_reference_time"}),
        LEAD: (np.arange(1, leads + 1), {"standard_name": "forecast_period", "units": "days"}),
        fields.axes[0]: (fields.lat, AXES["latitude"]),
        fields.axes[1]: (fields.lon, AXES["longitude"]),
    }
    own = fields.attributes[fields.target]
    described = {key: own[key] for key in KEPT if key in own} | {
        "coordinates": "valid_time",
        "comment": "of the whole day valid_time, from the days up to and including time",
    }
    valid = (days[:, None] + DAY * np.arange(1, leads + 1)).astype("datetime64[D]").astype(np.int64)
    told = {"standard_name": "time", "units": f"days since {EPOCH}"}
    about = {"title": f"forecasts of {fields.target}", "source": "tds_jax"}
    return Layout(axes, described, (valid, told), about)


def _write(
    task: ForecastTask,
    fields: Fields,
    last: np.ndarray,
    target: Path,
    blocks: Iterator[np.ndarray],
    progress: Progress,
    made: Made,
) -> None:
    axes, described, valid, about = layout(task, fields, last)
    chunks = (1, task.spec.lead_days, len(fields.lat), len(fields.lon))
    with grid_file(
        target, axes, {fields.target: described}, chunks, about | {**made}, "gzip"
    ) as file:
        file.values("valid_time", ("time", LEAD), *valid)
        done = 0
        for block in blocks:
            file[fields.target][done : done + len(block)] = block
            done += len(block)
            progress(done, len(last))
