"""A forecast model beside its baselines, lead by lead; memory does not grow with the days."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tds_jax.engine import metrics as states_of
from tds_jax.engine.evaluation import Evaluator
from tds_jax.engine.report import ALL, MODEL, Report, Row
from tds_jax.engine.step import Batch
from tds_jax.forecast import baselines, figures, metrics
from tds_jax.forecast.baselines import Fitted
from tds_jax.forecast.climatology import lacks_season, season_gap
from tds_jax.forecast.figures import LEAD, Canvas, Sample
from tds_jax.forecast.metrics import AREA, States
from tds_jax.forecast.task import ForecastTask

# Skill against each baseline, under names that fit a table.
SKILLS = {
    "persistence": "skill_pers",
    "climatology": "skill_clim",
    "damped_persistence": "skill_damp",
}
HEADLINE = ("rmse", f"rmse{AREA}", "ubrmse", "acc", *SKILLS.values())


def days_before(task: ForecastTask, split: str) -> range:
    """The days that a split's baselines know."""
    return range(task.split[split].start or task.split["train"].stop)


def fitted_baselines(task: ForecastTask, split: str, workdir: Path | None) -> Fitted:
    """The baselines of a split, read from the workdir or fitted and kept there.

    They are fitted on all days before the split; those of the train split on itself.
    """
    days = days_before(task, split)
    path = workdir / f"baselines_{split}.npz" if workdir else None
    kept = Fitted.read(path) if path else None
    if kept and kept.digest == baselines.digest(task.fields, days):
        return kept
    fitted = baselines.fit(task.fields, days, task.spec.lead_days, task.config.model.harmonics)
    if path:
        fitted.write(path)
    return fitted


def evaluate(task: ForecastTask, model: nnx.Module, split: str, workdir: Path | None) -> Report:
    """Report of model and baselines on a split, all windows; figures go to the workdir."""
    fitted = fitted_baselines(task, split, workdir)
    area = metrics.row_area(task.fields.lat)
    found: dict[str, States] = {}
    sample: Sample | None = None
    score = functools.partial(compared, task, fitted, jnp.asarray(area, jnp.float32))
    run = Evaluator(model, score, task.config)
    for batch, (prediction, states) in run.over(task.source(split)):
        for method in (MODEL, *baselines.NAMES):
            new = states_of.to_host(states[method])
            found[method] = states_of.merge(found[method], new) if method in found else new
        sample = sample or _sample(task, batch, prediction)
    notes = (*_season_note(task, split), *_notes(task, found, area))
    report = Report(_rows(split, found, area), HEADLINE, ("lead",), notes=notes)
    if workdir is not None and sample is not None:
        _draw(task, workdir / "plots", report, split, sample, found[MODEL]["cells"].rmse())
    return report


def compared(
    task: ForecastTask, fitted: Fitted, area: jax.Array, model: nnx.Module, batch: Batch
) -> tuple[jax.Array, dict[str, States]]:
    """The model's forecast (B, L, H, W), and states of all methods. area: (H,) weights of rows."""
    prediction = model(batch, False)
    others = baselines.forecasts(fitted, batch, task.target)
    usual, target, weight = others["climatology"], batch["target"], batch["weight"]
    return prediction, {
        name: metrics.compare(forecast, target, usual, weight, area)
        for name, forecast in ({MODEL: prediction} | others).items()
    }


def _rows(split: str, found: Mapping[str, States], area: np.ndarray) -> list[Row]:
    """Every value of every method: over all leads, then of each lead."""
    leads = len(found[MODEL]["plain"].weight)
    rows = []
    for lead in (None, *range(leads)):
        values = {name: metrics.values(states, area, lead) for name, states in found.items()}
        group = ALL if lead is None else f"{LEAD}{lead + 1}"
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


def _season_note(task: ForecastTask, split: str) -> list[str]:
    """What baselines and anomalies are from where the days before lack a season."""
    days = task.fields.days[days_before(task, split)]
    if not lacks_season(days):
        return []
    return [
        f"no day before {split} lies in {season_gap(days):.0%} of the year: climatology, damped "
        "persistence and acc are from the mean of each cell, without a season"
    ]


def _notes(task: ForecastTask, found: Mapping[str, States], area: np.ndarray) -> tuple[str, ...]:
    """RMSE of every method at every lead, a line each."""
    target = task.fields.target
    unit = unit_of(task)
    lines = [
        f"errors are of {target} [{unit}]; skill is 1 - MSE / MSE of the baseline; mae, bias, r2 "
        "and area-weighted values of all are in the files"
    ]
    for name, states in found.items():
        leads = len(states["plain"].weight)
        each = [f"{metrics.values(states, area, lead)['rmse']:.4g}" for lead in range(leads)]
        lines.append(f"rmse by lead, {name}: {' '.join(each)}")
    return tuple(lines)


def unit_of(task: ForecastTask) -> str:
    """The target's unit, '1' for none."""
    return str(task.fields.attributes[task.fields.target].get("units", "1"))


def _sample(task: ForecastTask, batch: Mapping[str, np.ndarray], prediction: np.ndarray) -> Sample:
    """The first forecast of a batch."""
    truth = np.where(batch["weight"][0] > 0, batch["target"][0], np.nan)
    last = task.fields.days[batch["start"][0] + task.spec.input_days - 1]
    there = batch["present"][0, -1, ..., task.target] > 0
    today = np.where(there, batch["fields"][0, -1, ..., task.target], np.nan)
    return Sample(prediction[0], truth, today, str(last))


def _draw(
    task: ForecastTask, folder: Path, report: Report, split: str, sample: Sample, rmse: np.ndarray
) -> None:
    fields, unit = task.fields, unit_of(task)
    canvas = Canvas(fields.lat, fields.lon, fields.target, unit)
    figures.draw_leads(folder / f"{split}_leads.png", report, split, unit)
    figures.draw_maps(folder / f"{split}_maps.png", sample, canvas)
    figures.draw_error_map(folder / f"{split}_rmse.png", rmse, canvas, split)
