"""Pictures of predicted joint angles."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tds_jax.drawing import legend_below, new_figure, save
from tds_jax.engine.report import ALL, MODEL, Report
from tds_jax.pose.joints import fingers

PANELS = 6
PANEL_LABELS = {
    "mae_deg": "mean absolute angle error [°]",
    "landmark_mm": "mean landmark distance [mm]",
}
COLOURS = {
    MODEL: "#d95f0e",
    "model_tracking": "#fe9929",
    "linear": "#3b6ea5",
    "linear_median": "#5f8fc0",
    "constant": "#8fb3d4",
    "constant_median": "#c6d9ea",
    "hold_initial": "0.55",
    "zero": "0.8",
}


@dataclasses.dataclass(frozen=True)
class Trace:
    """One window: poses and target (N, J) radians, weight (N,); number of its session."""

    poses: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    session: int

    @classmethod
    def of(cls, batch: Mapping[str, np.ndarray], poses: np.ndarray) -> "Trace":
        """The window of a batch with the most movement in valid rows."""
        target, weight = batch["joint_angles"], batch["weight"]
        moved = [
            np.nan_to_num(t[w > 0].std(axis=0)).sum() if w.any() else 0
            for t, w in zip(target, weight, strict=True)
        ]
        i = int(np.argmax(moved))
        return cls(poses[i], target[i], weight[i], int(batch["session"][i]))


def _chosen(trace: Trace, names: Sequence[str]) -> list[int]:
    """The joint that moves most of each finger, or the first few joints."""
    counted = trace.weight > 0
    spread = trace.target[counted if counted.any() else slice(None)].std(axis=0)
    parts = fingers(names)
    if parts:
        return [max(part, key=lambda j: spread[j]) for part in parts.values()]
    return list(range(min(PANELS, len(spread))))


def _gaps(weight: np.ndarray) -> np.ndarray:
    """Where a line through rows (T,) that count has none: from the row before one to that after."""
    return np.convolve(weight == 0, np.ones(3), "same") > 0


def draw_angles(path: Path, trace: Trace, names: Sequence[str], rate_hz: float, where: str) -> None:
    """Predicted over true angles in degrees, grey where no label is valid. names: of the
    joints. where: of what."""
    joints = _chosen(trace, names)
    seconds = np.arange(len(trace.target)) / rate_hz
    truth = np.where(trace.weight[:, None] > 0, trace.target, np.nan)
    gaps = _gaps(trace.weight)
    figure = new_figure(9, 1.5 * len(joints))
    axes = figure.subplots(len(joints), 1, sharex=True, squeeze=False)
    for axis, j in zip(axes[:, 0], joints, strict=True):
        axis.plot(seconds, np.degrees(truth[:, j]), color="0.2", lw=1.6, label="true")
        axis.plot(seconds, np.degrees(trace.poses[:, j]), color="C1", lw=1.2, label="predicted")
        axis.fill_between(
            seconds, 0, 1, where=gaps, transform=axis.get_xaxis_transform(),
            color="0.9", lw=0, label="no valid label",
        )  # fmt: skip
        axis.set_ylabel(f"{names[j]}\n[°]")
        axis.grid(alpha=0.3)
        axis.margins(x=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    shown = slice(None) if gaps.any() else slice(2)
    figure.legend(handles[shown], labels[shown], loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"joint angles, {where}")
    axes[-1, 0].set_xlabel("seconds from the window's first label")
    save(figure, path)


def draw_methods(path: Path, report: Report, split: str) -> None:
    """Angle error and landmark distance of model and baselines, a cluster for each generalization.

    Bars are means over users and whiskers their standard deviation; without users, pooled values.
    """
    over, groups = _clusters(report)
    found = {(row.group, row.method, row.metric): row for row in report.rows}
    methods = [row.method for row in report.rows if (row.group, row.metric) == (ALL, "mae_deg")]
    panels = [m for m in PANEL_LABELS if (over + groups[0], MODEL, m) in found]
    size = (max(6.0, 1.5 + 2.0 * len(groups)), 1.0 + 2.7 * len(panels))
    figure = new_figure(*size)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    width = 0.84 / len(methods)
    for axis, metric in zip(axes[:, 0], panels, strict=True):
        for i, method in enumerate(methods):
            rows = [found.get((over + group, method, metric)) for group in groups]
            places = np.arange(len(groups)) + (i - (len(methods) - 1) / 2) * width
            bars = axis.bar(
                places,
                [row.value if row else np.nan for row in rows],
                0.9 * width,
                yerr=[(row and row.spread) or np.nan for row in rows],
                error_kw={"ecolor": "0.25", "elinewidth": 1, "capsize": 2},
                color=COLOURS.get(method, "0.8"),
                label=method,
            )
            if method == MODEL:
                axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=9, weight="bold")
        axis.set_ylabel(PANEL_LABELS[metric])
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    ticks = []
    for group in groups:
        count = found[over + group, MODEL, "mae_deg"].count
        users = f"\n({count:.0f} user{'s' * (count != 1)})" if over else ""
        ticks.append(group.rsplit("/", 1)[-1].replace("_", " + ") + users)
    axes[-1, 0].set_xticks(range(len(groups)), ticks)
    axes[-1, 0].set_xlabel("" if groups == [ALL] else "unseen")
    figure.suptitle(f"{split}: {'mean ± SD over users' if over else 'all rows pooled'}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    columns = int(size[0] / 1.5)  # entries of up to 1.5 inches
    legend_below(figure, handles, labels, most=columns)
    save(figure, path)


def _clusters(report: Report) -> tuple[str, list[str]]:
    """('per_user/' or '', generalization groups, or the whole split where there are none)."""
    names = dict.fromkeys(row.group for row in report.rows)
    over = "per_user/" if f"per_user/{ALL}" in names else ""
    groups = [g.removeprefix(over) for g in names if g.startswith(f"{over}generalization/")]
    return over, groups or [ALL]
