"""Evaluation as rows: one shape for every domain, printed as a table, stored as JSON and CSV."""

import csv
import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MODEL = "model"
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Row:
    """One number. method: 'model' or a baseline's name. group: 'all', or e.g. 'user/user0'.

    spread: standard deviation over the group's members where it is a mean of them, else None.
    count: what the value was averaged over (rows, users …).
    """

    split: str
    group: str
    method: str
    metric: str
    value: float
    spread: float | None
    count: float


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows of one or more splits.

    headline: the metrics of the printed table, in order. shown_groups: kinds of groups ('user' for
    'user/…') printed there; all rows are in the files.
    """

    rows: list[Row]
    headline: tuple[str, ...]
    shown_groups: tuple[str, ...]

    def value(self, metric: str, method: str = MODEL, group: str = ALL) -> float:
        """The value of one row; KeyError if there is none."""
        for row in self.rows:
            if (row.metric, row.method, row.group) == (metric, method, group):
                return row.value
        raise KeyError((metric, method, group))

    def to_dict(self) -> dict[str, Any]:
        """{"splits": {split: {"model": {…}, "baselines": {name: {…}}, "groups": {…}}}}."""
        splits: dict[str, Any] = {}
        for row in self.rows:
            entry = splits.setdefault(row.split, {"model": {}, "baselines": {}, "groups": {}})
            place = entry if row.group == ALL else entry["groups"].setdefault(row.group, {})
            if row.method != MODEL:
                place = place.setdefault("baselines", {}).setdefault(row.method, {})
            else:
                place = place.setdefault("model", {})
            place[row.metric] = row.value if math.isfinite(row.value) else None
        return {"splits": splits}

    def write(self, workdir: Path) -> None:
        """report.json (splits evaluated earlier are kept) and report.csv."""
        path = workdir / "report.json"
        stored = json.loads(path.read_text()) if path.exists() else {"splits": {}}
        stored["splits"] |= self.to_dict()["splits"]
        _replace(path, json.dumps(stored, indent=1) + "\n")
        for split in {row.split for row in self.rows}:
            rows = [dataclasses.asdict(row) for row in self.rows if row.split == split]
            temporary = workdir / "report.csv.tmp"
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            os.replace(temporary, workdir / f"report_{split}.csv")

    def table(self, split: str, title: str) -> Table:
        """Every method on the whole split; below, the model alone on the shown groups."""
        table = Table(title=title, title_justify="left")
        for name in ("group", "method", *self.headline):
            table.add_column(name, justify="left" if name in ("group", "method") else "right")
        cells: dict[tuple[str, str], dict[str, float]] = {}
        for row in self.rows:
            kind = row.group.split("/")[0]
            shown = row.group == ALL or (row.method == MODEL and kind in self.shown_groups)
            if row.split == split and shown:
                cells.setdefault((row.group, row.method), {})[row.metric] = row.value
        for (group, method), values in cells.items():
            numbers = [f"{values[name]:.4g}" for name in self.headline]
            style = "bold" if (group, method) == (ALL, MODEL) else None
            table.add_row(group, method, *numbers, style=style)
        return table

    def show(self, split: str, title: str) -> None:
        """Prints the table."""
        Console(width=None if os.isatty(1) else 110).print(self.table(split, title))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
