"""Learning curves of a run as one picture."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tds_jax.data import json_file
from tds_jax.drawing import legend_below, new_figure, save
from tds_jax.engine.logs import Line, read_lines, series

REPAIR = "restore it"
REMEDY = "lower optim.learning_rate, or raise optim.warmup_steps"

UNITS = {"_m_s": "m/s", "_mm": "mm", "_rad": "rad", "_deg": "°", "_m": "m"}  # by ends of names
ERRORS = ("rmse", "mae", "mse")  # begin names of what should be small, as all that has a unit
TARGETS, SQUARED = "unit of the target", "its unit squared"
STYLES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
SHOWN = 4  # baselines: the best by the first number of the report's table

LEAST_LINES = 8  # fewer tell no trend, but that a loss has grown
GROWN = 10.0  # times the lowest line; noise does that to no mean over log.every updates


def diverged(workdir: Path) -> str:
    """A line if training has gone wrong by its own measure, else ''.

    Wrong is a loss that is not finite, or whose mean over the last tenth of the lines is above that
    over the first tenth by more than their noise, or three times the lowest mean of as many lines;
    of a few lines one that ends at ten times the lowest. One that was large from the first line on
    is told by the report: an error ten times that of the worst baseline.
    """
    lines = [line for line in read_lines(workdir / "metrics.jsonl") if line["split"] == "train"]
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    missing = len(lines) - len(losses)
    if missing:
        return f"the training loss was not finite in {missing} of {len(lines)} lines; {REMEDY}"
    return (_has_grown(lines, losses) if losses else "") or _is_far_off(workdir)


def _has_grown(lines: Sequence[Line], losses: Sequence[float]) -> str:
    few = len(losses) < LEAST_LINES
    span = max(1, len(losses) // 10)
    means = [_mean(losses[i : i + span]) for i in range(len(losses) - span + 1)]
    lowest, last = min(means), means[-1]
    grown = last > (GROWN if few else 3) * lowest > 0
    if grown or (not few and last - means[0] > _noise(losses, span)):
        at = lines[means.index(lowest) + span - 1]["step"]
        return (
            f"the run has diverged: its training loss began at {means[0]:.4g}, was {lowest:.4g} at "
            f"step {at} and ended at {last:.4g} (means of {span} line{'s' * (span > 1)}); {REMEDY}"
        )
    return ""


def _noise(losses: Sequence[float], span: int) -> float:
    """Three standard deviations of the difference of two means over `span` lines.

    That of one line by the median step from line to line, which a trend hardly moves: of normal
    lines 0.954 of it.
    """
    step = statistics.median(abs(b - a) for a, b in itertools.pairwise(losses))
    return 3 * step / 0.954 * math.sqrt(2 / span)


def _is_far_off(workdir: Path) -> str:
    path = workdir / "report.json"
    stored = json_file.read(path, REPAIR) if path.exists() else {}
    found = stored.get("splits", {}).get("test")
    shown = stored.get("shown", {}).get("test", {"headline": ()})["headline"]
    name = next((name for name in shown if name.startswith(ERRORS) or _unit(name)), None)
    if not found or name not in found["model"]:
        return ""
    reached = [v[name] for v in found["baselines"].values() if v.get(name) is not None]
    own = found["model"][name]
    if not reached or (own is not None and own <= GROWN * max(reached)):
        return ""
    words = "not finite" if own is None else f"{own:.4g}"
    return (
        f"the run has diverged: its {name} on test is {words}, that of its worst baseline "
        f"{max(reached):.4g}; {REMEDY}"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _unit(name: str) -> str:
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), "")


def _label(name: str, names: Sequence[str]) -> str:
    """The unit of a panel's axis: of 'mse' that of its root squared, of errors without one in their
    names the target's; '' for what has none."""
    if name == "mse":
        return next((f"{_unit(n)}²" for n in names if n.startswith("rmse_") and _unit(n)), SQUARED)
    return _unit(name) or TARGETS * name.startswith(ERRORS)


def _best(workdir: Path, lines: Sequence[Line]) -> int | None:
    """The step with the best score on `val`; None without scores."""
    path = workdir / "config.json"
    if not path.exists():
        return None
    rule = json_file.read(path, REPAIR)["eval"]
    name, sign = rule["metric"], 1 if rule["mode"] == "min" else -1
    scores = [
        (sign * line[name], line["step"])
        for line in lines
        if line["split"] == "val" and line.get(name) is not None
    ]
    return min(scores)[1] if scores else None


def _baselines(workdir: Path) -> dict[str, dict[str, float]]:
    """'ridge on test' -> metrics, of the report of one split, `val` where there is one."""
    path = workdir / "report.json"
    stored = json_file.read(path, REPAIR) if path.exists() else {"splits": {}}
    splits = stored["splits"]
    split = next((name for name in ("val", "test") if name in splits), None)
    if split is None:
        return {}
    first = next(iter(stored.get("shown", {}).get(split, {}).get("headline", ())), "")
    sign = 1 if _unit(first) or first.startswith(ERRORS) else -1

    def rank(one: tuple[str, Mapping[str, float | None]]) -> float:
        value = one[1].get(first)
        return math.inf if value is None else sign * value

    found = sorted(splits[split]["baselines"].items(), key=rank)[:SHOWN]
    return {
        f"{name} on {split}": {k: v for k, v in values.items() if v is not None}
        for name, values in found
    }


def draw_curves(workdir: Path) -> Path | None:
    """metrics.jsonl -> plots/curves.png, one panel per number, splits overlaid.

    A line stands at the step that is best by eval.metric on `val`, and, once there is a report, at
    what its baselines reach. Returns the picture's path, or None when nothing has been logged yet.
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
    figure = new_figure(4 * columns, 2.6 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False)
    shown: dict[str, Any] = {}
    best, reached = _best(workdir, lines), _baselines(workdir)
    for axis, name in zip(axes.flat, names, strict=False):
        for i, (baseline, known) in enumerate(reached.items()):
            if name in known:
                axis.axhline(known[name], label=baseline, color="0.4", lw=1, ls=STYLES[i])
        if best is not None:
            axis.axvline(best, color="C2", lw=1, alpha=0.7, label="best on val")
        for split, found in curves.items():
            for other, steps, values in found:
                if other == name:
                    axis.plot(steps, values, label=split, marker="." if len(steps) < 30 else None)
        axis.set(title=name, xlabel="update", ylabel=_label(name, names))
        axis.locator_params(axis="x", nbins=6, integer=True)
        axis.grid(alpha=0.3)
        shown |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    for axis in list(axes.flat)[len(names) :]:
        axis.remove()
    legend_below(figure, list(shown.values()), list(shown), most=2 * columns)
    path = workdir / "plots" / "curves.png"
    return save(figure, path)
