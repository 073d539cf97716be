"""Evaluation as rows: one shape for every domain, printed as a table, stored as JSON and CSV."""

import csv
import dataclasses
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from tds_jax.data import json_file
from tds_jax.data.whole_file import whole_file
from tds_jax.progress import table_console

MODEL = "model"
ALL = "all"
# A group 'per_user/stage/fist' holds means over users of each one's value in 'stage/fist'.
PER = "per_"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One number. method: 'model' or a baseline's name. group: 'all', or e.g. 'user/user0'.

    spread: standard deviation over the members where the value is a mean of them (groups 'per_…'
    with two or more), else None. count: what the value was averaged over (rows, users …).
    """

    split: str
    group: str
    method: str
    metric: str
    value: float
    spread: float | None
    count: float


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
CELLS = operator.attrgetter(*COLUMNS)


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows of one or more splits.

    headline: the metrics of the printed table, in order. shown_groups: kinds of groups ('user' for
    'user/…') printed there; all rows are in the files. spread_headline: metrics of the second
    table, of means and their spread. notes: lines printed below.
    """

    rows: list[Row]
    headline: tuple[str, ...]
    shown_groups: tuple[str, ...]
    spread_headline: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def value(self, metric: str, method: str = MODEL, group: str = ALL) -> float:
        """The value of one row; KeyError if there is none."""
        for row in self.rows:
            if (row.metric, row.method, row.group) == (metric, method, group):
                return row.value
        raise KeyError((metric, method, group))

    def to_dict(self) -> dict[str, Any]:
        """{"splits": {split: {"model": {…}, "baselines": {name: {…}}, "groups": {…}}}}.

        A value with a spread is followed by <metric>_sd. No number is null.
        """
        splits: dict[str, Any] = {}
        for row in self.rows:
            entry = splits.setdefault(row.split, {"model": {}, "baselines": {}, "groups": {}})
            place = entry if row.group == ALL else entry["groups"].setdefault(row.group, {})
            if row.method != MODEL:
                place = place.setdefault("baselines", {}).setdefault(row.method, {})
            else:
                place = place.setdefault("model", {})
            place[row.metric] = row.value if math.isfinite(row.value) else None
            if row.spread is not None:
                place[f"{row.metric}_sd"] = row.spread
        return {"splits": splits}

    def write(self, workdir: Path, about: Mapping[str, Any]) -> None:
        """report.json (splits evaluated earlier are kept) and report_<split>.csv.

        about: of what and when it is, kept beside the numbers as 'evaluated'.
        """
        path = workdir / "report.json"
        stored = json_file.read(path, "delete it") if path.exists() else {"splits": {}}
        new = self.to_dict()["splits"]
        stored["splits"] |= new
        stored["evaluated"] = stored.get("evaluated", {}) | {split: dict(about) for split in new}
        json_file.write(path, stored)
        for split in {row.split for row in self.rows}:
            table = workdir / f"report_{split}.csv"
            with whole_file(table) as temporary, temporary.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows(CELLS(row) for row in self.rows if row.split == split)

    def table(self, split: str = "", title: str = "") -> Table:
        """Every method on the whole split; below, the model alone on the shown groups.

        split: '' for that of the first row. print() shows it, as a notebook does.
        """
        split = split or self.rows[0].split
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for row in self.rows:
            shown = row.group == ALL or (row.method == MODEL and self._is_shown(row.group))
            if row.split == split and shown:
                cells.setdefault((row.group, row.method), {})[row.metric] = f"{row.value:.4g}"
        names = [name for name in self.headline if any(name in values for values in cells.values())]
        table = _table(title, ["group", "method"], names)
        for (group, method), values in cells.items():
            numbers = [values.get(name, "") for name in names]
            style = "bold" if (group, method) == (ALL, MODEL) else None
            table.add_row(group, method, *numbers, style=style)
        return table

    def spread_table(self, split: str) -> Table | None:
        """Mean ± SD: a line per method, a column per shown group; None where nothing has a spread.

        The whole split has a column only where no shown group has one.
        """
        columns: dict[str, dict[str, dict[str, str]]] = {}
        title, spreads = "", 0
        for row in self.rows:
            over, _, group = row.group.partition("/")
            wanted = row.split == split and row.metric in self.spread_headline
            if wanted and over.startswith(PER) and (group == ALL or self._is_shown(group)):
                spread = "" if row.spread is None else f"±{row.spread:.1f}"
                cells = columns.setdefault(group, {}).setdefault(row.method, {})
                cells[row.metric] = f"{row.value:.1f}{spread}"
                title = f"mean ± SD {over.replace('_', ' ')}: {' / '.join(self.spread_headline)}"
                spreads += row.spread is not None
        if not spreads:
            return None
        if len(columns) > 1:
            columns.pop(ALL, None)
        table = _table(title, ["method"], [group.rsplit("/", 1)[-1] for group in columns])
        for method in dict.fromkeys(name for rows in columns.values() for name in rows):
            numbers = [
                " / ".join(rows.get(method, {}).get(name, "-") for name in self.spread_headline)
                for rows in columns.values()
            ]
            table.add_row(method, *numbers, style="bold" if method == MODEL else None)
        return table

    def show(self, split: str, title: str) -> None:
        """Prints the tables and the notes."""
        console = table_console()
        console.print(self.table(split, title))
        if spread := self.spread_table(split):
            console.print(spread)
        for note in self.notes:
            console.print(f"note: {note}", markup=False, highlight=False)

    def _is_shown(self, group: str) -> bool:
        return group.split("/")[0] in self.shown_groups


class _Printable(Table):
    def __str__(self) -> str:
        console = table_console()
        with console.capture() as shown:
            console.print(self)
        return shown.get()


def _table(title: str, texts: list[str], numbers: list[str]) -> Table:
    table = _Printable(title=title, title_justify="left")
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
