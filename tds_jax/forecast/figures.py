"""Pictures of forecasts: errors by lead, one forecast beside the truth, where errors are."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.drawing import new_figure, save
from tds_jax.engine.report import MODEL, Report
from tds_jax.forecast import outline
from tds_jax.forecast.steps import DAILY, Step

LEAD = "lead/"
PANELS = {"rmse": "RMSE", "mae": "mean absolute error", "acc": "anomaly correlation"}
COLOURS = {
    MODEL: "#d95f0e",
    "persistence": "0.45",
    "climatology": "#8fb3d4",
    "day_of_year": "#b7cfe2",
    "damped_persistence": "#3b6ea5",
    "linear_cell": "#9bc49b",
    "linear": "#2e7d32",
    "linear_inputs": "#7b5aa6",
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One forecast: prediction and truth (L, H, W) in the data's unit, the truth NaN where unknown.

    last: (H, W) of the day it was made, what persistence forecasts. title: that day.
    """

    prediction: np.ndarray
    truth: np.ndarray
    last: np.ndarray
    title: str


@dataclasses.dataclass(frozen=True)
class Canvas:
    """Where maps are drawn: latitudes (H,) and longitudes (W,) in degrees; variable and unit."""

    latitude: np.ndarray
    longitude: np.ndarray
    variable: str
    unit: str

    def draw(self, axis: Any, values: np.ndarray, **colours: Any) -> Any:
        """One map (H, W), to be given a colour bar; NaN stays blank. Coastlines, if installed."""
        shown = np.ma.masked_invalid(values)
        axis.set_facecolor("0.9")
        axis.set(xlabel="longitude [°]", ylabel="latitude [°]")
        place = self.longitude, self.latitude
        mesh = axis.pcolormesh(*place, shown, shading="nearest", **colours)
        outline.draw(axis, self.longitude)
        return mesh


@dataclasses.dataclass(frozen=True)
class Curves:
    """Where lines against lead come from: rows of a split in groups that begin with `leads`; of:
    the target they are of, '' for the only one or the first."""

    report: Report
    split: str
    leads: str = LEAD
    of: str = ""
    step: Step = DAILY

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """By method and lead."""
        found: dict[str, dict[int, float]] = {}
        for row in self.report.rows:
            if row.group.startswith(self.leads) and (row.split, row.metric) == (self.split, metric):
                lead = int(row.group.removeprefix(self.leads))
                found.setdefault(row.method, {})[lead] = row.value
        return found

    @property
    def title(self) -> str:
        """What a figure is of."""
        return f"{self.split}: {self.of}, " if self.of else f"{self.split}: "


def draw_leads(path: Path, curves: Curves, unit: str) -> None:
    """RMSE, mean absolute error and anomaly correlation of every method against lead."""
    figure = new_figure(13, 3.8)
    axes = figure.subplots(1, len(PANELS))
    for axis, (metric, label) in zip(axes, PANELS.items(), strict=True):
        _lines(axis, curves, metric)
        axis.set_ylabel(label if metric == "acc" else f"{label} [{unit}]")
    _legend(figure, axes[0])
    figure.suptitle(f"{curves.title}by lead")
    save(figure, path)


def draw_ensemble(path: Path, curves: Curves, unit: str, ranks: np.ndarray) -> None:
    """CRPS and spread / error against lead, and where the truth lies among the members.

    ranks: (L, M + 1) counts. Level is right, a valley is too little spread, a hill too much.
    """
    figure = new_figure(13, 3.8)
    first, second, third = figure.subplots(1, 3)
    _lines(first, curves, "crps")
    first.set_ylabel(f"CRPS [{unit}]")
    _lines(second, curves, "spread_skill")
    second.axhline(1, color="0.6", lw=1)
    second.set_ylabel("spread / error of the mean")
    for lead in sorted({0, len(ranks) // 2, len(ranks) - 1}):
        share = ranks[lead] / ranks[lead].sum() * len(ranks[lead])
        third.step(
            np.arange(len(share)), share, where="mid", label=f"lead {curves.step.lead(lead)}"
        )
    third.axhline(1, color="0.6", lw=1)
    third.set(
        xlabel="members below the truth", ylabel="how often / if all were alike", ylim=(0, None)
    )
    third.legend(frameon=False)
    _legend(figure, first)
    figure.suptitle(f"{curves.title}the ensemble")
    save(figure, path)


def _lines(axis: Any, curves: Curves, metric: str) -> None:
    """A metric of every method that has it against lead."""
    for method, values in curves.values(metric).items():
        style = {"lw": 2.2, "marker": "o", "zorder": 3} if method == MODEL else {"lw": 1.4}
        line = [values[lead] for lead in sorted(values)]
        axis.plot(sorted(values), line, color=COLOURS.get(method), label=method, **style)
    axis.set_xlabel(f"lead [{curves.step.unit}]")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, axis: Any) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)


def draw_maps(path: Path, sample: Sample, canvas: Canvas, step: Step = DAILY) -> None:
    """Persistence, prediction, truth and what is wrong of both, for the first, a middle and the
    last lead; colours span all values, and mean the same in all rows."""
    leads = len(sample.truth)
    rows = sorted({0, leads // 2, leads - 1})
    figure = new_figure(19, 3.1 * len(rows) + 0.6)
    axes = figure.subplots(len(rows), 5, squeeze=False, sharex=True, sharey=True)
    known = np.isfinite(sample.truth)
    fields = {
        "persistence": np.broadcast_to(sample.last, sample.truth.shape),
        "predicted": np.where(known, sample.prediction, np.nan),
        "true": sample.truth,
    }
    wrong = {f"{name} - true": fields[name] - sample.truth for name in ("persistence", "predicted")}
    low, high = _range(np.stack([*fields.values()])[:, rows])
    most = max(map(abs, _range(np.stack([*wrong.values()])[:, rows])))
    for line, lead in zip(axes, rows, strict=True):
        for axis, values in zip(line, (*fields.values(), *wrong.values()), strict=True):
            colours = {"vmin": low, "vmax": high, "cmap": "viridis"}
            if axis in line[3:]:
                colours = {"vmin": -most, "vmax": most, "cmap": "RdBu_r"}
            mesh = canvas.draw(axis, values[lead], **colours)
            axis.label_outer()
            if axis in (line[2], line[4]):
                label = canvas.variable if axis is line[2] else "difference"
                figure.colorbar(mesh, ax=axis, label=f"{label} [{canvas.unit}]")
        line[0].set_ylabel(f"lead {step.lead(lead)}\nlatitude [°]")
    for axis, title in zip(axes[0], (*fields, *wrong), strict=True):
        axis.set_title(title)
    figure.suptitle(f"{canvas.variable}, forecast made after {sample.title}")
    save(figure, path)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Lowest and highest of those known; 0 and 1 without any."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def draw_error_map(path: Path, rmse: np.ndarray, canvas: Canvas, split: str) -> None:
    """Where the errors are: RMSE (H, W) over all forecasts and leads."""
    figure = new_figure(8, 4.4)
    axis = figure.subplots()
    mesh = canvas.draw(axis, rmse, vmin=0, vmax=_range(rmse)[1], cmap="YlOrRd")
    figure.colorbar(mesh, ax=axis, label=f"RMSE [{canvas.unit}]")
    axis.set_title(f"{split}: RMSE of {canvas.variable}, all leads")
    save(figure, path)
