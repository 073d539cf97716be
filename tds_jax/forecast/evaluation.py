"""A forecast model beside its baselines, lead by lead; memory does not grow with the days."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine import intervals, processes
from tds_jax.engine import metrics as states_of
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.intervals import Resampled
from tds_jax.engine.report import AGAINST_MODEL, ALL, MODEL, Report, Row
from tds_jax.engine.step import Batch
from tds_jax.engine.workdir import CONFIG
from tds_jax.fields import require
from tds_jax.forecast import baselines, figures, metrics
from tds_jax.forecast.baselines import Fitted
from tds_jax.forecast.climatology import lacks_season, season_gap
from tds_jax.forecast.ensemble import fair_crps, normal_crps, rank_counts
from tds_jax.forecast.figures import LEAD, Canvas, Sample
from tds_jax.forecast.metrics import AREA, Ensemble, Scores, States
from tds_jax.forecast.model import Forecaster
from tds_jax.forecast.steps import Step
from tds_jax.forecast.task import ForecastTask
from tds_jax.forecast.windows import ForecastWindows, window_starts

# Skill against each baseline, under names that fit a table.
SKILLS = {
    "persistence": "skill_pers",
    "climatology": "skill_clim",
    "damped_persistence": "skill_damp",
    baselines.LINEAR: "skill_lin",
}
# -> whether more is better
JUDGED = {"rmse": False, f"rmse{AREA}": False, "acc": True, "crps": False}
LEAST_DAYS = 10  # of a block where steps are finer than a day
HEADLINE = ("rmse", f"rmse{AREA}", "crps", "spread_skill", "ubrmse", "acc", *SKILLS.values())


def days_before(task: ForecastTask, split: str) -> range:
    """The days that a split's baselines know."""
    return range(task.split[split].start or task.split["train"].stop)


def fitted_baselines(
    task: ForecastTask, split: str, workdir: Path | None, keep: bool = True
) -> Fitted:
    """The baselines of a split, read from the workdir or fitted (and kept there).

    They are fitted on all days before the split; those of the train split on itself.
    """
    days = days_before(task, split)
    path = workdir / f"baselines_{split}.npz" if workdir else None
    kept = Fitted.read(path) if path else None
    model = task.config.model
    if kept and kept.digest == baselines.digest(task.fields, days, model.periodic):
        return kept
    leads = task.spec.leads
    fitted = baselines.fit(task.fields, days, leads, model.harmonics, model.periodic, task.daily)
    if path and keep:
        fitted.write(path)
    return fitted


def elsewhere(task: ForecastTask, split: str, workdir: Path | None) -> Fitted | None:
    """The run's baselines of a split, where the folder is one in it for data of another period.

    Nothing is fitted on such data, the model has not been either. None for the run's own.
    """
    if workdir is None or not (workdir.parent / CONFIG).exists():
        return None
    kept = Fitted.read(workdir.parent / f"baselines_{split}.npz")
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
    return ForecastWindows(fields, spec, starts[after | before])


def evaluate(
    task: ForecastTask, model: nnx.Module, split: str, workdir: Path | None, keep: bool = True
) -> Report:
    """Report of model and baselines on a split, all windows; on workdir and keep: `tasks.Domain`.

    Intervals are over blocks of forecasts whose windows begin in the same `block_length` days: what
    two blocks share is less than one of them. Of other data than the run's all of it is
    looked at, beside the run's baselines, see `elsewhere`.
    """
    known = elsewhere(task, split, workdir)
    fitted = known or processes.by_first(lambda: fitted_baselines(task, split, workdir, keep))
    source = windows_elsewhere(task, fitted) if known else task.source(split)
    area = metrics.row_area(task.fields.lat)
    step, block = task.config.data.step, block_length(task)
    found: dict[str, States] = {}
    blocks: dict[str, dict[int, Scores]] = {name: {} for name in (MODEL, *fitted.names)}
    sample: Sample | None = None
    score = functools.partial(compared, task, fitted, jnp.asarray(area, jnp.float32))
    run = Evaluator(model, score, task.config)
    for batch, (prediction, states, scores) in run.over(source):
        for method, own in blocks.items():
            new, each = states_of.to_host((states[method], scores[method]))
            metrics.add_to_blocks(own, each, batch["start"], block)
            found[method] = states_of.merge(found[method], new) if method in found else new
        sample = sample or _sample(task, batch, prediction)
    drawn = _resampled(blocks)
    rows = _with_ends(_rows(split, found, area, step), drawn, step)
    report = Report(
        rows,
        HEADLINE,
        ("lead",),
        notes=(
            *(_elsewhere_note(source, fitted) if known else _season_note(task, split)),
            *intervals.few(len(blocks[MODEL])),
            *_notes(task, found, area, drawn),
        ),
        verdict=intervals.verdict(rows, JUDGED),
        drawn=f"{len(blocks[MODEL])} blocks of forecasts of {block / step.per_day:g} days",
    )
    if workdir and keep and sample is not None:
        _draw(task, workdir / "plots", report, split, sample, found[MODEL])
    return report


def block_length(task: ForecastTask) -> int:
    """Steps of a block of forecasts: as many as a window has, of finer steps LEAST_DAYS or more.

    A window of hours is over before the weather has changed, so blocks of it would be alike.
    """
    step, length = task.config.data.step, task.spec.length
    return length if step.is_day else max(length, LEAST_DAYS * step.per_day)


def _resampled(blocks: Mapping[str, Mapping[int, Scores]]) -> Resampled:
    """Draws of the blocks, in the same order for every method."""
    order = sorted(blocks[MODEL])
    each = {name: [{"scores": own[n]} for n in order] for name, own in blocks.items()}
    return Resampled.of(each, lambda states: states["scores"].values())


def _with_ends(rows: list[Row], drawn: Resampled, step: Step) -> list[Row]:
    """Rows of everything and of each lead with their intervals, and baselines minus the model.

    The latter of each lead are of groups AGAINST_MODEL/lead/n.
    """
    model = {(row.group, row.metric): row.value for row in rows if row.method == MODEL}
    apart = []
    for i, row in enumerate(rows):
        if not row.group.startswith(LEAD):
            continue
        ahead = int(row.group.removeprefix(LEAD))
        metric = f"{row.metric}/{ahead // step.leads(1)[0]}"
        low, high = drawn.interval(row.method, metric) or (None, None)
        rows[i] = dataclasses.replace(row, low=low, high=high)
        if row.method != MODEL and (ends := drawn.interval(row.method, metric, MODEL)):
            group, value = f"{AGAINST_MODEL}/{row.group}", row.value - model[row.group, row.metric]
            apart.append(Row(row.split, group, row.method, row.metric, value, None, row.count,
                             *ends))  # fmt: skip
    return [*drawn.rows(rows), *apart]


def compared(
    task: ForecastTask, fitted: Fitted, area: jax.Array, model: nnx.Module, batch: Batch
) -> tuple[jax.Array, dict[str, States], dict[str, Scores]]:
    """The model's forecast (B, L, H, W), states of all methods, and scores of their forecasts.

    Of an ensemble it is the middle, without noise: the mean of a few members is further from the
    truth by what these vary. Some baselines are then normal distributions. area: (H,) weights of
    rows.
    """
    assert isinstance(model, Forecaster)
    target, weight = batch["target"], batch["weight"]
    others = baselines.forecasts(fitted, batch, task.target, task.config.model.periodic, task.daily)
    every = {MODEL: model(batch, False)} | others
    errors = {name: forecast - target for name, forecast in every.items()}
    crps, variance = {}, {}
    ranks = {name: jnp.zeros((target.shape[1], 0)) for name in every}
    if task.ensemble > 1:
        members = model.members(batch, False, task.ensemble, task.dropout)
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
    return every[MODEL], states, scores


def _rows(split: str, found: Mapping[str, States], area: np.ndarray, step: Step) -> list[Row]:
    """Every value of every method: over all leads, then of each lead, named by `Step.leads`."""
    leads = len(found[MODEL]["plain"].weight)
    rows = []
    for lead in (None, *range(leads)):
        values = {
            name: metrics.values(states, area, lead)
            | (states["ensemble"].values(lead) if "ensemble" in states else {})
            for name, states in found.items()
        }
        group = ALL if lead is None else f"{LEAD}{step.leads(leads)[lead]}"
        for name, own in values.items():
            count = found[name]["plain"].weight[slice(None) if lead is None else lead].sum()
            skills = {
                f"{name_of_skill}{suffix}": metrics.skill(own, values[other], suffix)
                for other, name_of_skill in SKILLS.items()
                for suffix in ("", AREA)
            }
            rows += [
                Row(split, group, name, metric, value, None, float(count))
                for metric, value in (own | skills).items()
            ]
    return rows


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


def _notes(
    task: ForecastTask, found: Mapping[str, States], area: np.ndarray, drawn: Resampled
) -> tuple[str, ...]:
    """RMSE of every method at every lead, a line each, and what the linear map's is above ours."""
    target = task.fields.target
    unit = unit_of(task)
    lines = [
        f"errors are of {target} [{unit}]; skill is 1 - MSE / MSE of the baseline; mae, bias, r2 "
        "and area-weighted values of all are in the files"
    ]
    step = task.config.data.step
    by = "rmse by lead" if step.is_day else f"rmse by lead, every {step.hours} h"
    for name, states in found.items():
        leads = len(states["plain"].weight)
        each = [f"{metrics.values(states, area, lead)['rmse']:.4g}" for lead in range(leads)]
        lines.append(f"{by}, {name}: {' '.join(each)}")
    count = len(found[MODEL]["plain"].weight)
    ends = [drawn.interval(baselines.LINEAR, f"rmse/{n + 1}", MODEL) for n in range(count)]
    spans = [f"{low:.2g}..{high:.2g}" for low, high in (pair for pair in ends if pair)]
    if spans:
        lines.append(f"{by}, {baselines.LINEAR} above the model: {' '.join(spans)}")
    return tuple(lines)


def unit_of(task: ForecastTask) -> str:
    """The target's unit, '1' for none."""
    return str(task.fields.attributes[task.fields.target].get("units", "1"))


def _sample(task: ForecastTask, batch: Mapping[str, np.ndarray], prediction: np.ndarray) -> Sample:
    """The first forecast of a batch."""
    truth = np.where(batch["weight"][0] > 0, batch["target"][0], np.nan)
    last = task.fields.days[batch["start"][0] + task.spec.inputs - 1]
    there = batch["present"][0, -1, ..., task.target] > 0
    today = np.where(there, batch["fields"][0, -1, ..., task.target], np.nan)
    return Sample(prediction[0], truth, today, str(last))


def _draw(
    task: ForecastTask, folder: Path, report: Report, split: str, sample: Sample, states: States
) -> None:
    fields, unit = task.fields, unit_of(task)
    canvas = Canvas(fields.lat, fields.lon, fields.target, unit)
    step = task.config.data.step
    figures.draw_leads(folder / f"{split}_leads.png", report, split, unit, step)
    figures.draw_maps(folder / f"{split}_maps.png", sample, canvas, step)
    figures.draw_error_map(folder / f"{split}_rmse.png", states["cells"].rmse(), canvas, split)
    if "ensemble" in states:
        ranks = states["ensemble"].ranks
        figures.draw_ensemble(folder / f"{split}_ensemble.png", report, split, unit, ranks, step)
