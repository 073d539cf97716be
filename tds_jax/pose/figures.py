"""Pictures of predicted joint angles."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.engine.report import ALL, MODEL, Report
from tds_jax.pose.joints import fingers, joint_names

PANELS = 6


@dataclasses.dataclass(frozen=True)
class Trace:
    """One window: poses and target (N, J) radians, weight (N,)."""

    poses: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, batch: Mapping[str, np.ndarray], poses: np.ndarray) -> "Trace":
        """The window of a batch with the most movement in valid rows."""
        target, weight = batch["joint_angles"], batch["weight"]
        moved = [
            np.nan_to_num(t[w > 0].std(axis=0)).sum() if w.any() else 0
            for t, w in zip(target, weight, strict=True)
        ]
        i = int(np.argmax(moved))
        return cls(poses[i], target[i], weight[i])


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _chosen(trace: Trace) -> list[int]:
    """The joint that moves most of each finger, or the first few joints."""
    counted = trace.weight > 0
    spread = trace.target[counted if counted.any() else slice(None)].std(axis=0)
    parts = fingers(len(spread))
    if parts:
        return [max(part, key=lambda j: spread[j]) for part in parts.values()]
    return list(range(min(PANELS, len(spread))))


def draw_angles(path: Path, trace: Trace, rate_hz: float, split: str) -> None:
    """Predicted over true angles in degrees; gaps where the label failed."""
    pyplot = _pyplot()
    joints = _chosen(trace)
    names = joint_names(trace.target.shape[1])
    seconds = np.arange(len(trace.target)) / rate_hz
    truth = np.where(trace.weight[:, None] > 0, trace.target, np.nan)
    figure, axes = pyplot.subplots(
        len(joints),
        1,
        figsize=(9, 1.5 * len(joints)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, j in zip(axes[:, 0], joints, strict=True):
        axis.plot(seconds, np.degrees(truth[:, j]), color="0.2", lw=1.6, label="true")
        axis.plot(seconds, np.degrees(trace.poses[:, j]), color="C1", lw=1.2, label="predicted")
        axis.set_ylabel(f"{names[j]}\n[°]")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(loc="upper right", ncols=2)
    axes[0, 0].set_title(f"joint angles, one window of {split}")
    axes[-1, 0].set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_methods(path: Path, report: Report, split: str) -> None:
    """Mean absolute error of the model and every baseline."""
    pyplot = _pyplot()
    values = {
        row.method: row.value
        for row in report.rows
        if (row.group, row.metric) == (ALL, "mae_deg") and np.isfinite(row.value)
    }
    figure, axis = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    colours = ["C1" if name == MODEL else "0.7" for name in values]
    bars = axis.barh(list(values), list(values.values()), color=colours)
    axis.bar_label(bars, fmt="%.2f°", padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel="mean absolute error [°]", title=split)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
