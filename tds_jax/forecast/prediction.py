"""Forecasts from every day of a record, as CF NetCDF or Zarr; memory does not grow with length."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.data.gridded_write import AXES, EPOCH, grid_file, require_place, time_axis
from tds_jax.data.places import make_folder_for, require_new
from tds_jax.engine import processes
from tds_jax.engine.history import UNTOLD, Made
from tds_jax.engine.step import Batch, compiled
from tds_jax.errors import UserError
from tds_jax.fields import option, require, require_ending
from tds_jax.forecast.asked import require_grid
from tds_jax.forecast.days import phases
from tds_jax.forecast.gridded_days import Fields, lands
from tds_jax.forecast.model import Forecaster
from tds_jax.forecast.steps import Step
from tds_jax.forecast.task import ForecastTask
from tds_jax.progress import Progress, progress_bar

LEAD, MEMBER = "prediction_timedelta", "realization"
SHOWN = 3  # files named in a line
# Attributes of the input that still hold for a forecast of it.
KEPT = ("units", "long_name", "standard_name")


@dataclasses.dataclass(frozen=True)
class Predict:
    """How far forecasts reach."""

    lead: float = option(
        0.0,
        "Days to forecast, of finer steps parts of days too; on those beyond the run's own "
        "it reads its own forecasts. 0 = as many as it was trained for.",
        least=0,
    )

    def run(
        self,
        task: ForecastTask,
        model: nnx.Module,
        source: Path,
        target: Path,
        workdir: Path | None = None,
        made: Made = UNTOLD,
        overwrite: bool = False,
    ) -> list[Path]:
        """See `predict`."""
        return predict(task, model, source, target, workdir, made, self.lead, overwrite)


def predict(
    task: ForecastTask,
    model: nnx.Module,
    source: Path,
    target: Path,
    workdir: Path | None = None,
    made: Made = UNTOLD,
    lead: float = 0,
    overwrite: bool = False,
) -> list[Path]:
    """A file with every target over (time, prediction_timedelta, latitude, longitude).

    Of an ensemble it is over (time, realization, prediction_timedelta, …), eval.members. lead: days
    to forecast, see `leads_of`.
    target: a Zarr store if it ends in '.zarr', else NetCDF. source: as data.path: a file, a folder
    of files or a Zarr store, on the model's grid; a forecast is made after every day that ends an
    unbroken stretch of input days, the record's last among them. time is that day,
    prediction_timedelta 1 ... L days, or hours of finer steps, valid_time (both) their sum. Axes
    have the input's names, order and values, turned to the run's longitudes; cells without land in
    either are NaN. A cell that an input day lacks counts as usual there. UserError, after all is
    written, if a file could not be read. workdir: the run's; nothing in it is needed. made:
    attributes of the file. overwrite: replace what is at the target, which is refused else, before
    anything is computed.
    """
    require_ending("--output", target, (".nc", ".nc4", ".zarr"))
    if not processes.first():  # it is one file
        return [target]
    leads = leads_of(task, lead, "--lead")
    fields = task.open(str(source))
    last = require_forecasts(task, fields, f"--input={source}")
    require_place(source, target)
    require_new([target], overwrite)
    make_folder_for(target)
    with progress_bar("predicting") as progress:
        blocks = forecasts(task, model, Runner(task, model), fields, last, leads)
        _write(task, fields, last, leads, target, blocks, progress, made)
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
    require_grid(task.recorded, fields, name)
    if new := int((lands(fields) & ~task.seen).any(axis=0).sum()):
        print(
            f"note: {new} cells have data that training never saw, and no forecast", file=sys.stderr
        )
    last = last_days(fields.days, task.spec.inputs)
    if not len(last):
        row = task.config.data.step.words(task.spec.inputs)
        raise UserError(f"{name} has no {row} in a row; give a longer record")
    return last


def last_days(days: np.ndarray, length: int) -> np.ndarray:
    """Indices of the days that end `length` consecutive ones."""
    ends = np.arange(length - 1, len(days))
    return ends[days[ends] - days[ends - length + 1] == (length - 1) * Step.of(days).delta]


def leads_of(task: ForecastTask, lead: float, name: str) -> int:
    """How many steps to forecast in so many days; 0 are as many as the run was trained for.

    More can be made of forecasts alone if they are of all that the run reads.
    """
    require(
        isinstance(lead, int | float | np.number) and 0 <= lead < np.inf,
        f"{name}={lead!r} is no number of days; use 0, for those of the run, or more",
    )
    own, inputs, step = task.spec.leads, task.recorded.variables, task.config.data.step
    count = step.count(name, lead)
    targets = task.config.data.targets
    others = [each for each in inputs if each not in targets]
    require(
        count <= own or not others,
        f"{name}={lead:g} is beyond the {own / step.per_day:g} days that the run forecasts: to go "
        f"on from its own forecasts it would need those of {', '.join(others)} too; use "
        f"{own / step.per_day:g} or fewer, or a run "
        f"with data.variables={targets}",
    )
    return count or own


class Runner:
    """A model's forecasts, each function compiled once."""

    def __init__(self, task: ForecastTask, model: nnx.Module) -> None:
        count, dropout = task.ensemble, task.dropout

        def member(model: Forecaster, batch: Batch, n: jax.Array) -> jax.Array:
            return model.member(batch, n, dropout) if count > 1 else model(batch, False)

        self.all = compiled(model, lambda model, batch: model.members(batch, False, count, dropout))
        self.one = compiled(model, member)

    def first(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """(B, M, L, H, W); M is 1 where nothing is drawn."""
        return np.asarray(self.all(jax.tree.map(jnp.asarray, batch)))

    def again(self, batch: Mapping[str, np.ndarray], member: int) -> np.ndarray:
        """(B, L, H, W) of one member."""
        on_device = jax.tree.map(jnp.asarray, batch)
        return np.asarray(self.one(on_device, jnp.asarray(member, jnp.int32)))


def forecasts(
    task: ForecastTask,
    model: nnx.Module,
    run: Runner,
    fields: Fields,
    last: np.ndarray,
    leads: int,
) -> Iterator[np.ndarray]:
    """(n, K, leads, H, W) f32 in the data's units after consecutive ones of `last`, NaN without
    land of the target; of an ensemble (n, M, K, leads, H, W)."""
    size, days = task.config.eval.batch_size, task.spec.inputs
    for first in range(0, len(last), size):
        ends = last[first : first + size]
        # A short last batch repeats its last example: one compiled shape.
        padded = np.pad(ends, (0, size - len(ends)), mode="edge")
        windows = np.stack([fields.read(i - days + 1, i + 1) for i in padded])
        there = np.broadcast_to(lands(fields) & task.seen, (size, *task.seen.shape))
        if not task.recorded.seen:  # a run of before they were recorded
            strange = [_strange(model, channel, windows) for channel in task.targets]
            there = there & ~np.stack(strange, axis=1)
        maps = _continued(task, run, windows, fields.days[padded], there, leads)[: len(ends)]
        yield maps if task.ensemble > 1 else maps[:, 0]


def _continued(
    task: ForecastTask,
    run: Runner,
    windows: np.ndarray,
    ends: np.ndarray,
    there: np.ndarray,
    leads: int,
) -> np.ndarray:
    """(B, M, K, leads, H, W) after windows (B, T, H, W, C) that end on days (B,), NaN but `there`
    (B, K, H, W).

    Beyond the run's own leads each member goes on from the days that it said itself.
    """
    own, days = task.spec.leads, task.spec.inputs
    order = [task.targets.index(n) for n in range(windows.shape[-1])] if leads > own else []

    def batch(windows: np.ndarray, after: int) -> dict[str, np.ndarray]:
        dates = ends[:, None] + Step.of(ends).delta * np.arange(after + 1 - days, after + own + 1)
        return make_batch(windows, phases(dates))

    def kept(maps: np.ndarray) -> np.ndarray:
        """(B, M, K, own, H, W) of (B, M, K own, H, W), NaN but there."""
        each = maps.reshape(*maps.shape[:2], len(task.targets), own, *maps.shape[3:])
        return np.where(there[:, None, :, None], each, np.float32(np.nan))

    found = kept(run.first(batch(windows, 0)))
    for after in range(own, leads, own):
        more = []
        for n, said in enumerate(np.moveaxis(found, 1, 0)):
            days_said = np.moveaxis(said[:, order], 1, -1)
            known = np.concatenate([windows, days_said], axis=1)[:, -days:]
            more.append(run.again(batch(known, after), n))
        found = np.concatenate([found, kept(np.stack(more, axis=1))], axis=3)
    return found[:, :, :, :leads]


def _strange(model: nnx.Module, target: int, windows: np.ndarray) -> np.ndarray:
    """(n, H, W) or (n, 1, 1) bool: cells in which training never saw the target, as far as a run
    tells that did not record them.

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
    """What a `Forecaster` reads, of windows (B, T, H, W, C) with NaN and `phases` (B, T + L, …)."""
    known = np.isfinite(windows)
    return {
        "fields": np.where(known, windows, np.float32(0)),
        "present": known.astype(np.uint8),
        "phase": phase.astype(np.float32),
        "origin": np.zeros((len(windows), 2), np.int32),
    }


class Layout(NamedTuple):
    """Of forecasts as CF has them. axes: the dimensions in order; described: of each target, in
    their order; valid: of valid_time; about: of the whole."""

    axes: dict[str, tuple[np.ndarray, dict[str, str]]]
    described: dict[str, dict[str, Any]]
    valid: tuple[np.ndarray, dict[str, str]]
    about: dict[str, str]


def layout(task: ForecastTask, fields: Fields, last: np.ndarray, leads: int) -> Layout:
    """The layout of the forecasts after some days of fields."""
    days, step = fields.days[last], task.config.data.step
    time, told = time_axis(days)
    members = {MEMBER: (np.arange(task.ensemble), {"standard_name": MEMBER, "units": "1"})}
    axes = {
        "time": (time, told | {"standard_name": "forecast_reference_time"}),
        **(members if task.ensemble > 1 else {}),
        LEAD: (step.leads(leads), {"standard_name": "forecast_period", "units": step.unit}),
        fields.axes[0]: (fields.lat, AXES["latitude"]),
        fields.axes[1]: (fields.lon, AXES["longitude"]),
    }
    beside = {"coordinates": "valid_time", "comment": _comment(step, leads, task.spec.leads)}
    described = {
        name: {key: own[key] for key in KEPT if key in own} | beside
        for name in fields.targets
        for own in (fields.attributes[name],)
    }
    valid = days[:, None] + step.delta * np.arange(1, leads + 1)
    valid = valid.astype(f"datetime64[{step.unit[0].replace('d', 'D')}]").astype(np.int64)
    told = {"standard_name": "time", "units": f"{step.unit} since {EPOCH}"}
    about = {"title": f"forecasts of {', '.join(fields.targets)}", "source": "tds_jax"}
    return Layout(axes, described, (valid, told), about)


def by_target(fields: Fields, block: np.ndarray) -> dict[str, np.ndarray]:
    """What `forecasts` yields as (n, …, leads, H, W) of each target."""
    return dict(zip(fields.targets, np.moveaxis(block, -4, 0), strict=True))


def _comment(step: Step, leads: int, trained: int) -> str:
    """What a forecast is of, and from."""
    of = "whole day" if step.is_day else f"{step.hours} hours that begin at"
    own = step.leads(trained)[-1]
    beyond = f", beyond {own} {step.unit} from forecasts too" * (leads > trained)
    return f"of the {of} valid_time, from the {step.row} up to and including time{beyond}"


def _write(
    task: ForecastTask,
    fields: Fields,
    last: np.ndarray,
    leads: int,
    target: Path,
    blocks: Iterator[np.ndarray],
    progress: Progress,
    made: Made,
) -> None:
    axes, described, valid, about = layout(task, fields, last, leads)
    members = (1,) * (task.ensemble > 1)
    chunks = (1, *members, leads, len(fields.lat), len(fields.lon))
    with grid_file(target, axes, described, chunks, about | {**made}, "gzip") as file:
        file.values("valid_time", ("time", LEAD), *valid)
        done = 0
        for block in blocks:
            for name, maps in by_target(fields, block).items():
                file[name][done : done + len(block)] = maps
            done += len(block)
            progress(done, len(last))
