"""Learning curves of a run as one picture."""

from pathlib import Path

from tds_jax.drawing import new_figure, save
from tds_jax.engine.logs import read_lines, series


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
