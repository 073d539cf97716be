"""Learning curves of a run as one picture."""

from collections.abc import Sequence
from pathlib import Path

from tds_jax.drawing import new_figure, save
from tds_jax.engine.logs import read_lines, series

REMEDY = "lower optim.learning_rate, or raise optim.warmup_steps"

LEAST_LINES = 8  # fewer tell no trend


def diverged(workdir: Path) -> str:
    """A line if training has gone wrong by its own measure, else ''.

    Wrong is a loss that is not finite, or whose mean over the last tenth of the lines is above that
    over the first tenth, or three times the lowest mean of as many lines.
    """
    lines = [line for line in read_lines(workdir / "metrics.jsonl") if line["split"] == "train"]
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    missing = len(lines) - len(losses)
    if missing:
        return f"the training loss was not finite in {missing} of {len(lines)} lines; {REMEDY}"
    if len(losses) < LEAST_LINES:
        return ""
    span = max(1, len(losses) // 10)
    means = [_mean(losses[i : i + span]) for i in range(len(losses) - span + 1)]
    lowest, last = min(means), means[-1]
    if last > means[0] or last > 3 * lowest > 0:
        at = lines[means.index(lowest) + span - 1]["step"]
        return (
            f"the run has diverged: its training loss began at {means[0]:.4g}, was {lowest:.4g} at "
            f"step {at} and ended at {last:.4g} (means of {span} lines); {REMEDY}"
        )
    return ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def draw_curves(workdir: Path) -> Path | None:
    """metrics.jsonl -> plots/curves.png, one panel per number, splits overlaid.

    Returns the picture's path, or None when nothing has been logged yet.
    """
    lines = read_lines(workdir / "metrics.jsonl")
    curves = {split: list(series(lines, split)) for split in ("train", "val")}
    # A count that stays 0, and the count of updates, which is the axis, tell nothing.
    names = list(
        dict.fromkeys(
            name
            for found in curves.values()
            for name, _, values in found
            if name != "updates" and any(values)
        )
    )
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(4 * columns, 2.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for split, found in curves.items():
            for other, steps, values in found:
                if other == name:
                    axis.plot(steps, values, label=split, marker="." if len(steps) < 30 else None)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend()
    for axis in list(axes.flat)[len(names) :]:
        axis.remove()
    path = workdir / "plots" / "curves.png"
    return save(figure, path)
