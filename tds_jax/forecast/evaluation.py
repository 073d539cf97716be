"""A forecast model beside its baselines, lead by lead; memory does not grow with the days."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine import intervals, processes
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.engine.step import Batch
from tds_jax.engine.workdir import CONFIG
from tds_jax.fields import require
from tds_jax.forecast import baselines, figures, metrics
from tds_jax.forecast.baselines import Fitted
from tds_jax.forecast.climatology import lacks_season, season_gap
from tds_jax.forecast.ensemble import fair_crps, normal_crps, rank_counts
from tds_jax.forecast.figures import Canvas, Curves, Sample
from tds_jax.forecast.metrics import AREA, Ensemble, Scores, States
from tds_jax.forecast.model import Forecaster
from tds_jax.forecast.rows import OF, SKILLS, Tally, Target, notes_of, rows_of
from tds_jax.forecast.task import ForecastTask
from tds_jax.forecast.windows import ForecastWindows, window_starts

# -> whether more is better
JUDGED = {"rmse": False, f"rmse{AREA}": False, "acc": True, "crps": False}
LEAST_DAYS = 10  # of a block where steps are finer than a day
HEADLINE = ("rmse", f"rmse{AREA}", "crps", "spread_skill", "ubrmse", "acc", *SKILLS.values())


def days_before(task: ForecastTask, split: str) -> range:
    """The days that a split's baselines know."""
    return range(task.split[split].start or task.split["train"].stop)


def targets_of(task: ForecastTask) -> tuple[Target, ...]:
    """All that the task forecasts, the headline first."""
    leads, described = task.spec.leads, task.fields.attributes
    return tuple(
        Target(
            name=name,
            unit=str(described[name].get("units", "1")),
            channel=channel,
            maps=slice(k * leads, (k + 1) * leads),
            group=f"{OF}/{name}" if k else ALL,
        )
        for k, (name, channel) in enumerate(zip(task.fields.targets, task.targets, strict=True))
    )


def baselines_file(folder: Path, split: str, task: ForecastTask, name: str) -> Path:
    """Where the baselines of a target are kept."""
    of = "" if name == task.config.data.target else f"_{name}"
    return folder / f"baselines_{split}{of}.npz"


def fitted_baselines(
    task: ForecastTask, split: str, workdir: Path | None, keep: bool = True, name: str = ""
) -> Fitted:
    """The baselines of a split, read from the workdir or fitted (and kept there).

    They are fitted on all days before the split; those of the train split on itself. name: of a
    target, '' for the headline.
    """
    fields = task.fields.aimed(name or task.fields.target)
    days = days_before(task, split)
    path = baselines_file(workdir, split, task, fields.target) if workdir else None
    kept = Fitted.read(path) if path else None
    model = task.config.model
    if kept and kept.digest == baselines.digest(fields, days, model.periodic):
        return kept
    leads = task.spec.leads
    fitted = baselines.fit(fields, days, leads, model.harmonics, model.periodic, task.daily)
    if path and keep:
        fitted.write(path)
    return fitted


def elsewhere(task: ForecastTask, split: str, workdir: Path | None, name: str) -> Fitted | None:
    """The run's baselines of a split and target, where the folder is one in it for data of another
    period.

    Nothing is fitted on such data, the model has not been either. None for the run's own.
    """
    if workdir is None or not (workdir.parent / CONFIG).exists():
        return None
    kept = Fitted.read(baselines_file(workdir.parent, split, task, name))
    shape = task.spec.leads, task.recorded.height, task.recorded.width
    require(
        kept is not None and kept.damping.shape == shape,
        f"{workdir.parent} has no baselines of {split} for other data; evaluate the run on its own "
        f"data first (--split={split} without --data)",
    )
    return kept


def windows_elsewhere(task: ForecastTask, fitted: Fitted) -> ForecastWindows:
    """Windows of other data whose targets are none of the days that the run has learnt from."""
    fields, spec = task.fields, task.spec
    starts = window_starts(fields.days, spec, range(len(fields.days)), 0)
    first, last = (np.datetime64(day).astype(fields.days.dtype) for day in fitted.days)
    row = task.config.data.step.words(spec.length)
    after = fields.days[starts + spec.inputs] > last
    before = fields.days[starts + spec.length - 1] < first
    require(
        bool((after | before).any()),
        f"data.path={task.config.data.path} has no {row} in a row whose targets lie "
        f"outside {first} to {last}, which the run has learnt from; give another period",
    )
    return task.windows(starts[after | before])


def evaluate(
    task: ForecastTask, model: nnx.Module, split: str, workdir: Path | None, keep: bool = True
) -> Report:
    """Report of model and baselines on a split, all windows; on workdir and keep: `tasks.Domain`.

    Intervals are over blocks of forecasts whose windows begin in the same `block_length` days: what
    two blocks share is less than one of them. Of other data than the run's all of it is
    looked at, beside the run's baselines, see `elsewhere`.
    """
    targets, length = targets_of(task), block_length(task)
    away = {each.name: elsewhere(task, split, workdir, each.name) for each in targets}
    fitted = processes.by_first(
        lambda: {
            name: known or fitted_baselines(task, split, workdir, keep, name)
            for name, known in away.items()
        }
    )
    first, known = fitted[targets[0].name], away[targets[0].name]
    source = windows_elsewhere(task, first) if known else task.source(split)
    area = metrics.row_area(task.fields.lat)
    tallies = {name: Tally((MODEL, *own.names)) for name, own in fitted.items()}
    samples: dict[str, Sample] = {}
    score = functools.partial(compared, task, targets, fitted, jnp.asarray(area, jnp.float32))
    run = Evaluator(model, score, task.config)
    for batch, (prediction, states, scores) in run.over(source):
        for each in targets:
            name = each.name
            tallies[name].add(states[name], scores[name], batch["start"], length)
            if name not in samples:
                samples[name] = _sample(task, each, batch, prediction)
    before = _elsewhere_note(source, first) if known else _season_note(task, split)
    report = _report(task, split, targets, tallies, area, before)
    if workdir and keep:
        for each in targets if samples else ():
            states = tallies[each.name].states[MODEL]
            _draw(task, each, workdir / "plots", report, split, samples[each.name], states)
    return report


def _report(
    task: ForecastTask,
    split: str,
    targets: Sequence[Target],
    tallies: Mapping[str, Tally],
    area: np.ndarray,
    before: Sequence[str],
) -> Report:
    """before: the first lines of its notes."""
    step, length, several = task.config.data.step, block_length(task), len(targets) > 1
    rows: list[Row] = []
    notes: list[str] = []
    verdict: list[str] = []
    for each in targets:
        tally = tallies[each.name]
        drawn = tally.resampled()
        rows += rows_of(split, each, tally, area, step, drawn)
        notes += notes_of(each, tally.states, area, step, drawn)
        of = f"{each.name}, " if several and each.is_headline else ""
        verdict += [f"{of}{line}" for line in intervals.verdict(rows, JUDGED, each.group)]
    count = len(tallies[targets[0].name].blocks[MODEL])
    blocks = intervals.Drawn(count, f"blocks of forecasts of {length / step.per_day:g} days")
    return Report(
        rows,
        HEADLINE,
        ("lead",),
        notes=(*before, *intervals.few(blocks), *notes),
        whole=targets[0].title if several else ALL,
        verdict=tuple(verdict),
        drawn=str(blocks),
        beside={each.group: each.title for each in targets[1:]},
    )


def block_length(task: ForecastTask) -> int:
    """Steps of a block of forecasts: as many as a window has, of finer steps LEAST_DAYS or more.

    A window of hours is over before the weather has changed, so blocks of it would be alike.
    """
    step, length = task.config.data.step, task.spec.length
    return length if step.is_day else max(length, LEAST_DAYS * step.per_day)


def compared(
    task: ForecastTask,
    targets: Sequence[Target],
    fitted: Mapping[str, Fitted],
    area: jax.Array,
    model: nnx.Module,
    batch: Batch,
) -> tuple[jax.Array, dict[str, dict[str, States]], dict[str, dict[str, Scores]]]:
    """The model's forecast (B, K L, H, W); of each target states of all methods, and scores of
    their forecasts.

    Of an ensemble it is the middle, without noise: the mean of a few members is further from the
    truth by what these vary. Some baselines are then normal distributions. area: (H,) weights of
    rows.
    """
    assert isinstance(model, Forecaster)
    middle, members = model(batch, False), None
    if task.ensemble > 1:
        members = model.members(batch, False, task.ensemble, task.dropout)
    states, scores = {}, {}
    for each in targets:
        own = {n: batch[n][:, each.maps] for n in ("target", "weight")}
        drawn = None if members is None else members[:, :, each.maps]
        states[each.name], scores[each.name] = _compared(
            task, each, fitted[each.name], area, middle[:, each.maps], drawn, {**batch, **own}
        )
    return middle, states, scores


def _compared(
    task: ForecastTask,
    of: Target,
    fitted: Fitted,
    area: jax.Array,
    middle: jax.Array,
    members: jax.Array | None,
    batch: Batch,
) -> tuple[dict[str, States], dict[str, Scores]]:
    """Of one target: middle (B, L, H, W), members (B, M, L, H, W) or None; truth and weight of it
    in the batch."""
    target, weight = batch["target"], batch["weight"]
    others = baselines.forecasts(fitted, batch, of.channel, task.config.model.periodic, task.daily)
    every = {MODEL: middle} | others
    errors = {name: forecast - target for name, forecast in every.items()}
    crps, variance = {}, {}
    ranks = {name: jnp.zeros((target.shape[1], 0)) for name in every}
    if members is not None:
        ranks[MODEL] = rank_counts(members, target, weight)
        crps[MODEL], variance[MODEL] = fair_crps(members, target), members.var(axis=1, ddof=1)
        for name, spread in baselines.spreads(fitted, batch).items():
            # A cell without any day of training has no spread; it has no weight either.
            crps[name] = normal_crps(errors[name], jnp.where(spread > 0, spread, 1))
            variance[name] = spread**2
    beside = target, others["climatology"], weight, area
    states = {name: metrics.compare(forecast, *beside) for name, forecast in every.items()}
    for name, values in crps.items():
        own = Ensemble.of(values, variance[name], errors[name], weight, ranks[name])
        states[name]["ensemble"] = own
    scores = {
        name: metrics.scores(forecast, *beside, crps.get(name)) for name, forecast in every.items()
    }
    return states, scores


def _elsewhere_note(source: ForecastWindows, fitted: Fitted) -> list[str]:
    days, spec = source.fields.days, source.spec
    first = days[source.starts[0] + spec.inputs]
    last = days[source.starts[-1] + spec.length - 1]
    return [
        f"{len(source)} forecasts of {first} to {last}; baselines are the run's, fitted on "
        f"{fitted.days[0]} to {fitted.days[1]}"
    ]


def _season_note(task: ForecastTask, split: str) -> list[str]:
    """What baselines and anomalies are from where the days before lack a season."""
    days = task.fields.days[days_before(task, split)]
    if not lacks_season(days):
        return []
    return [
        f"no day before {split} lies in {season_gap(days):.0%} of the year: climatology, damped "
        "persistence and acc are from the mean of each cell, without a season"
    ]


def _sample(
    task: ForecastTask, target: Target, batch: Mapping[str, np.ndarray], prediction: np.ndarray
) -> Sample:
    """The first forecast of a batch."""
    maps, channel = target.maps, target.channel
    truth = np.where(batch["weight"][0, maps] > 0, batch["target"][0, maps], np.nan)
    last = task.fields.days[batch["start"][0] + task.spec.inputs - 1]
    there = batch["present"][0, -1, ..., channel] > 0
    today = np.where(there, batch["fields"][0, -1, ..., channel], np.nan)
    return Sample(prediction[0, maps], truth, today, str(last))


def _draw(
    task: ForecastTask,
    target: Target,
    folder: Path,
    report: Report,
    split: str,
    sample: Sample,
    states: States,
) -> None:
    fields, unit, step = task.fields, target.unit, task.config.data.step
    canvas = Canvas(fields.lat, fields.lon, target.name, unit)
    name = split if target.is_headline else f"{split}_{target.name}"
    of = Curves(report, split, target.leads, "" if target.is_headline else target.name, step)
    figures.draw_leads(folder / f"{name}_leads.png", of, unit)
    figures.draw_maps(folder / f"{name}_maps.png", sample, canvas, step)
    figures.draw_error_map(folder / f"{name}_rmse.png", states["cells"].rmse(), canvas, split)
    if "ensemble" in states:
        ranks = states["ensemble"].ranks
        figures.draw_ensemble(folder / f"{name}_ensemble.png", of, unit, ranks)
