"""Runs beside each other: what differs in their settings, what came out, and what it took.

Runs that differ in their seed or fold alone are one column, with mean ± standard deviation. All of
it is read from what training and evaluation leave in a workdir.
"""

import collections
import dataclasses
import datetime
import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tds_jax.config import differences
from tds_jax.data import json_file
from tds_jax.drawing import new_figure, save
from tds_jax.engine.logs import read_lines
from tds_jax.engine.tables import Grid
from tds_jax.errors import UserError, some
from tds_jax.progress import span
from tds_jax.sizes import format_bytes

# Ends the names of folders that `train --seeds`, --folds and --leave_one_user_out make.
SAMPLE = re.compile(r"(^|_)(seed\d+|fold\d+of\d+|user=.*)$")
REMEDY = "restore it or leave this run out"
HEADLINE = 5  # metrics of a report that does not say which matter
# What may differ between runs that are one experiment, on several seeds or parts of the data.
APART = ("seed", "data.fold", "memory.compile_cache", "data.cache_dir", "log")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir says. values, baselines: of a split; seconds: of every start, summed."""

    name: str
    config: dict[str, Any]
    values: dict[str, float]
    baselines: dict[str, dict[str, float]]
    headline: tuple[str, ...]
    about: dict[str, Any]
    lines: list[dict[str, Any]]
    seconds: float

    def peak(self, name: str) -> float | None:
        """The highest number of that name in its log; None without any."""
        return max((line[name] for line in self.lines if line.get(name)), default=None)


@dataclasses.dataclass(frozen=True)
class Column:
    """Runs that differ in their seed or fold alone."""

    name: str
    runs: list[Run]

    def numbers(self, value: Callable[[Run], float | None]) -> list[float]:
        """What is known of a number."""
        return [found for run in self.runs if (found := value(run)) is not None]


def find(folders: Sequence[str]) -> list[Path]:
    """The workdirs among folders, and those directly in one that is none; UserError without any."""
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.exists():
            raise UserError(f"{folder} is not there; name folders that train wrote")
        inside = sorted(path.parent for path in folder.glob("*/config.json"))
        found += [folder] if (folder / "config.json").exists() else inside
    if not found:
        raise UserError(f"{some(folders)}: no folder that train wrote; name some")
    return list(dict.fromkeys(found))


def read(folder: Path, split: str) -> Run:
    """A run that may not be finished: what is missing is left empty."""
    path = folder / "report.json"
    report = json_file.read(path, REMEDY) if path.exists() else {}
    entry = report.get("splits", {}).get(split, {})
    shown = report.get("shown", {}).get(split, {})
    values = _known(entry.get("model", {}))
    return Run(
        name=str(folder),
        config=json_file.read(folder / "config.json", REMEDY),
        values=values,
        baselines={name: _known(each) for name, each in entry.get("baselines", {}).items()},
        headline=tuple(shown.get("headline", list(values)[:HEADLINE])),
        about=report.get("evaluated", {}).get(split, {}),
        lines=read_lines(folder / "metrics.jsonl"),
        seconds=_seconds(json_file.read_lines(folder / "history.jsonl")[0]),
    )


def _known(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _seconds(lines: list[dict[str, Any]]) -> float:
    """From every start to the end that follows it; one that was killed is not known."""
    pairs = itertools.pairwise(lines)
    both = [(a, b) for a, b in pairs if (a.get("event"), b.get("event")) == ("start", "end")]
    times = [[datetime.datetime.fromisoformat(each["time"]) for each in pair] for pair in both]
    return sum((end - start).total_seconds() for start, end in times)


def grouped(runs: Sequence[Run]) -> list[Column]:
    """Columns in the order of their first runs."""
    found: dict[tuple[str, int], list[Run]] = {}
    seen: collections.Counter[tuple[str, Any]] = collections.Counter()
    for run in runs:
        experiment = _experiment(run.config)
        sample = run.config.get("seed"), _fold(run)
        # The same seed and fold again are no other sample: they begin a column of their own.
        found.setdefault((experiment, seen[experiment, sample]), []).append(run)
        seen[experiment, sample] += 1
    return [Column(_name(members), members) for members in found.values()]


def _fold(run: Run) -> str | None:
    return run.config.get("data", {}).get("fold")


def _experiment(config: dict[str, Any]) -> str:
    rest = json.loads(json.dumps(config))
    for path in APART:
        group, _, name = path.partition(".")
        (rest.get(group, {}) if name else rest).pop(name or group, None)
    return json.dumps(rest, sort_keys=True)


def _name(runs: Sequence[Run]) -> str:
    first = Path(runs[0].name)
    shared = first.name
    while (shorter := SAMPLE.sub("", shared)) != shared:
        shared = shorter
    if shared != first.name:
        return shared or first.parent.name
    return first.name if len(runs) == 1 else f"{first.name} and {len(runs) - 1} more"


def grid(columns: Sequence[Column]) -> Grid:
    """Settings that differ, metrics, bytes and time; a column each."""
    rows = [("runs", [str(len(column.runs)) for column in columns])]
    rows += _settings(columns)
    for name in _headline(columns):
        rows.append((name, [_spread(_values(column, name)) for column in columns]))
    counted: dict[str, tuple[Callable[[Run], float | None], Callable[[float], str]]] = {
        "steps": (lambda run: run.about.get("step"), lambda value: f"{value:g}"),
        "device, predicted": (lambda r: r.peak("perf/device_predicted_bytes"), format_bytes),
        "device, measured": (lambda r: r.peak("perf/device_peak_bytes"), format_bytes),
        "host": (lambda r: r.peak("perf/host_bytes"), format_bytes),
        "time": (lambda run: run.seconds, span),
    }
    for name, (value, words) in counted.items():
        cells = [column.numbers(value) for column in columns]
        if any(map(any, cells)):
            rows.append((name, [words(max(each)) if each else "" for each in cells]))
    return Grid("", "", [column.name for column in columns], rows)


def _headline(columns: Sequence[Column]) -> list[str]:
    runs = [run for column in columns for run in column.runs]
    names = dict.fromkeys(name for run in runs for name in run.headline)
    return [name for name in names if any(name in run.values for run in runs)]


def _values(column: Column, name: str) -> list[float]:
    return column.numbers(lambda run: run.values.get(name))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


def _settings(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    """Settings whose values are not the same in all columns."""
    first = columns[0].runs[0].config
    lines = (line for c in columns[1:] for line in differences(first, c.runs[0].config, APART))
    names = list(dict.fromkeys(line.split(": ")[0] for line in lines))
    return [
        (name, [_setting(column.runs[0].config, name) for column in columns])
        for name in names
        if name.split(".")[0] not in APART
    ]


def _setting(config: Any, path: str) -> str:
    for name in path.split("."):
        config = config.get(name, "") if isinstance(config, dict) else ""
    return str(config)


def notes(columns: Sequence[Column], split: str) -> list[str]:
    """What a reader of the table must know."""
    runs = [run for column in columns for run in column.runs]
    said = [f"{run.name} has no report on {split}" for run in runs if not run.values]
    known = {(_fold(run), run.about["identity"]) for run in runs if "identity" in run.about}
    if len(known) > len({fold for fold, _ in known}):
        count = len({identity for _, identity in known})
        said.append(f"the runs were evaluated on {count} different sets of data")
    if len({run.config.get("task") for run in runs}) > 1:
        said.append("the runs are of different tasks")
    return said


def draw(columns: Sequence[Column], path: Path) -> Path:
    """A panel per metric, a bar per column with its spread; the last: loss on val over steps."""
    names = _headline(columns)
    panels = [*names, "val loss"]
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(4.2 * across, (1.2 + 0.3 * len(columns)) * down + 0.8)
    axes = figure.subplots(down, across, squeeze=False)
    places = range(len(columns))
    labels = [column.name for column in columns]
    for axis, name in zip(axes.flat, names, strict=False):
        each = [_values(column, name) for column in columns]
        means = [statistics.fmean(values) if values else 0.0 for values in each]
        errors = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in each]
        axis.barh(list(places), means, xerr=errors, color=[f"C{i % 10}" for i in places])
        axis.set_yticks(list(places), labels)
        axis.invert_yaxis()
        axis.set(title=name)
        axis.grid(alpha=0.3, axis="x")
    last = axes.flat[len(names)]
    for i, column in enumerate(columns):
        for k, run in enumerate(column.runs):
            points = [(ln["step"], ln["loss"]) for ln in run.lines if _is_score(ln)]
            label = column.name if k == 0 else None
            last.plot(*zip(*points, strict=True) if points else ([], []), color=f"C{i % 10}",
                      label=label, marker=".")  # fmt: skip
    last.set(title="loss on val", xlabel="step")
    last.grid(alpha=0.3)
    last.legend(fontsize="small")
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    return save(figure, path)


def _is_score(line: dict[str, Any]) -> bool:
    return line.get("split") == "val" and line.get("loss") is not None


def to_dict(columns: Sequence[Column]) -> dict[str, Any]:
    """{column: {"runs": [folder], "metrics": {name: {"mean", "sd", "values"}}}}."""
    return {
        column.name: {
            "runs": [run.name for run in column.runs],
            "metrics": {
                name: {
                    "mean": statistics.fmean(values),
                    "sd": statistics.stdev(values) if len(values) > 1 else None,
                    "values": values,
                }
                for name in dict.fromkeys(n for run in column.runs for n in run.values)
                if (values := _values(column, name))
            },
        }
        for column in columns
    }
