"""Pictures of forecasts: errors by lead, one forecast beside the truth, where errors are."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.drawing import new_figure, save
from tds_jax.engine.report import MODEL, Report

LEAD = "lead/"
PANELS = {"rmse": "RMSE", "mae": "mean absolute error", "acc": "anomaly correlation"}
COLOURS = {
    MODEL: "#d95f0e",
    "persistence": "0.45",
    "climatology": "#8fb3d4",
    "damped_persistence": "#3b6ea5",
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One forecast: prediction and truth (L, H, W) in the data's unit, the truth NaN where unknown.

    title: the day it was made.
    """

    prediction: np.ndarray
    truth: np.ndarray
    title: str


@dataclasses.dataclass(frozen=True)
class Canvas:
    """Where maps are drawn: latitudes (H,) and longitudes (W,) in degrees; variable and unit."""

    latitude: np.ndarray
    longitude: np.ndarray
    variable: str
    unit: str

    def draw(self, figure: Any, axis: Any, values: np.ndarray, **colours: Any) -> None:
        """One map (H, W) with its colour bar; NaN stays blank."""
        shown = np.ma.masked_invalid(values)
        mesh = axis.pcolormesh(self.longitude, self.latitude, shown, shading="nearest", **colours)
        figure.colorbar(mesh, ax=axis, shrink=0.8, label=self.unit)
        axis.set_facecolor("0.9")


def draw_leads(path: Path, report: Report, split: str, unit: str) -> None:
    """RMSE, mean absolute error and anomaly correlation of every method against lead."""
    found = {
        (row.method, row.metric, int(row.group.removeprefix(LEAD))): row.value
        for row in report.rows
        if row.group.startswith(LEAD) and row.split == split
    }
    methods = dict.fromkeys(method for method, _, _ in found)
    leads = sorted({lead for _, _, lead in found})
    figure = new_figure(13, 3.8)
    axes = figure.subplots(1, len(PANELS))
    for axis, (metric, label) in zip(axes, PANELS.items(), strict=True):
        for method in methods:
            line = [found.get((method, metric, lead), np.nan) for lead in leads]
            style = {"lw": 2.2, "marker": "o", "zorder": 3} if method == MODEL else {"lw": 1.4}
            axis.plot(leads, line, color=COLOURS.get(method), label=method, **style)
        axis.set_xlabel("lead [days]")
        axis.set_ylabel(label if metric == "acc" else f"{label} [{unit}]")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    figure.suptitle(f"{split}: by lead")
    save(figure, path)


def draw_maps(path: Path, sample: Sample, canvas: Canvas) -> None:
    """Prediction, truth and their difference, for the first, a middle and the last lead."""
    leads = len(sample.truth)
    rows = sorted({0, leads // 2, leads - 1})
    figure = new_figure(14, 2.9 * len(rows))
    axes = figure.subplots(len(rows), 3, squeeze=False)
    known = np.isfinite(sample.truth)
    predicted = np.where(known, sample.prediction, np.nan)
    low, high = np.nanpercentile(sample.truth, [1, 99]) if known.any() else (0.0, 1.0)
    difference = predicted - sample.truth
    most = float(np.nanpercentile(np.abs(difference), 99)) if known.any() else 1.0
    for line, lead in zip(axes, rows, strict=True):
        for axis, values in zip(line[:2], (predicted, sample.truth), strict=True):
            canvas.draw(figure, axis, values[lead], vmin=low, vmax=high, cmap="viridis")
        canvas.draw(figure, line[2], difference[lead], vmin=-most, vmax=most, cmap="RdBu_r")
        line[0].set_ylabel(f"lead {lead + 1} d")
    for axis, title in zip(axes[0], ("predicted", "true", "predicted - true"), strict=True):
        axis.set_title(title)
    figure.suptitle(f"{canvas.variable}, forecast made after {sample.title}")
    save(figure, path)


def draw_error_map(path: Path, rmse: np.ndarray, canvas: Canvas, split: str) -> None:
    """Where the errors are: RMSE (H, W) over all forecasts and leads, its top 5 % in one colour."""
    figure = new_figure(8, 4)
    axis = figure.subplots()
    top = np.nanpercentile(rmse, 95) if np.isfinite(rmse).any() else 1.0
    canvas.draw(figure, axis, rmse, vmin=0, vmax=top, cmap="magma_r")
    axis.set_title(f"{split}: RMSE of {canvas.variable}, all leads")
    save(figure, path)
