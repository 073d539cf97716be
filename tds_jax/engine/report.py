"""Evaluation as rows: one shape for every domain, printed as a table, stored as JSON and CSV."""

import csv
import dataclasses
import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tds_jax.data import json_file
from tds_jax.data.whole_file import whole_table
from tds_jax.engine import lock
from tds_jax.engine.tables import Grid, Tables
from tds_jax.errors import some
from tds_jax.progress import table_console

MODEL = "model"
ALL = "all"
# Baselines minus the model, on everything.
AGAINST_MODEL = "against_model"
# A group 'per_user/stage/fist' holds means over users of each one's value in 'stage/fist'.
PER = "per_"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One number. method: 'model' or a baseline's name. group: 'all', or e.g. 'user/user0'.

    spread: standard deviation over the members where the value is a mean of them (groups 'per_…'
    with two or more), else None. count: what the value was averaged over (rows, users …). low,
    high: ends of a 95 % interval, where there is one.
    """

    split: str
    group: str
    method: str
    metric: str
    value: float
    spread: float | None
    count: float
    low: float | None = None
    high: float | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
Key = TypeVar("Key")
CELLS = operator.attrgetter(*COLUMNS)


@dataclasses.dataclass(frozen=True)
class Report:
    """Rows of one or more splits.

    headline: the metrics of the printed table, in order. shown_groups: kinds of groups ('user' for
    'user/…') with tables of their own; all rows are in the files. spread_headline: metrics of the
    tables of means and their spread. notes: lines printed below. whole: what the group 'all' is,
    where it is not all. leading: shown groups that stand before it, for they say more. verdict:
    lines above the tables. drawn: what the intervals' blocks are, such as '13 users'. beside: group
    -> title of others that are shown as the whole is, with every method.
    """

    rows: list[Row]
    headline: tuple[str, ...]
    shown_groups: tuple[str, ...]
    spread_headline: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    whole: str = ALL
    leading: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    drawn: str = ""
    beside: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def value(self, metric: str, method: str = MODEL, group: str = ALL) -> float:
        """The value of one row; KeyError if there is none."""
        for row in self.rows:
            if (row.metric, row.method, row.group) == (metric, method, group):
                return row.value
        raise KeyError(self._lacking({"metric": metric, "method": method, "group": group}))

    def _lacking(self, asked: Mapping[str, str]) -> str:
        """What no row has of what was asked for, and what is like it."""
        for name, value in asked.items():
            known = sorted({getattr(row, name) for row in self.rows})
            if value not in known:
                near = difflib.get_close_matches(value, known, 3) or known
                return f"{name}={value!r} is not in this report; it has {some(near, 6)}"
        return f"no row has {', '.join(f'{name}={value!r}' for name, value in asked.items())}"

    def to_dict(self) -> dict[str, Any]:
        """{"splits": {split: {"model": {…}, "baselines": {name: {…}}, "groups": {…}}}}.

        A value with a spread is followed by <metric>_sd, one with an interval by <metric>_low and
        <metric>_high. No number, and an infinite one, is null.
        """
        splits: dict[str, Any] = {}
        for row in self.rows:
            entry = splits.setdefault(row.split, {"model": {}, "baselines": {}, "groups": {}})
            place = entry if row.group == ALL else entry["groups"].setdefault(row.group, {})
            if row.method != MODEL:
                place = place.setdefault("baselines", {}).setdefault(row.method, {})
            else:
                place = place.setdefault("model", {})
            place[row.metric] = _number(row.value)
            beside = {"sd": row.spread, "low": row.low, "high": row.high}
            place |= {f"{row.metric}_{n}": _number(v) for n, v in beside.items() if v is not None}
        return {"splits": splits}

    def write(self, workdir: Path, about: Mapping[str, Any]) -> None:
        """report.json (splits evaluated earlier are kept) and report_<split>.csv.

        about: of what and when it is, kept beside the numbers as 'evaluated'. The table comes
        first: whoever is killed in between has told of none that is not there.
        """
        for split in {row.split for row in self.rows}:
            with whole_table(_table(workdir, split)) as table:
                table.writerow(COLUMNS)
                table.writerows(CELLS(row) for row in self.rows if row.split == split)
        path, new = workdir / "report.json", self.to_dict()["splits"]
        with lock.in_turn(workdir):  # another split may be evaluated at the same time
            stored = json_file.read(path, "delete it") if path.exists() else {"splits": {}}
            stored["splits"] |= new
            told = {split: dict(about) for split in new}
            stored["evaluated"] = stored.get("evaluated", {}) | told
            stored["shown"] = stored.get("shown", {}) | {split: self._shown() for split in new}
            json_file.write(path, stored)

    def _shown(self) -> dict[str, Any]:
        """All but the rows."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "rows"}

    @classmethod
    def read(cls, workdir: Path, split: str) -> "Report":
        """What `write` has left of a split; KeyError of one that it has not, or not in full,
        FileNotFoundError where its table has gone."""
        shown = json_file.read(workdir / "report.json", "delete it")["shown"][split]
        lists: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in shown.items()
        }
        with _table(workdir, split).open(newline="", encoding="utf-8") as file:
            return cls([_row(line) for line in csv.DictReader(file)], **lists)

    def grids(self, split: str) -> list[Grid]:
        """The tables of a split, not yet so wide as anything."""
        return [grid for grid, _ in _grids(self, split)]

    def table(self, split: str = "", title: str = "") -> Tables:
        """Every method on the whole split; below, the model alone on the shown groups.

        split: '' for that of the first row. print() shows it, as a notebook does.
        """
        split = split or self.rows[0].split
        names, lines = _cells(
            self.headline,
            (((row.group, row.method), row) for row in self.rows if self._is_shown(row, split)),
        )
        named = [(m if group == ALL else f"{m}, {group}", cells) for (group, m), cells in lines]
        return Tables(Grid(title, "method", names, named, bold=MODEL))

    def show(self, split: str, title: str) -> None:
        """Prints the tables that say most and fit the terminal, what is left, and the notes."""
        console = table_console()
        console.print(title, markup=False)
        for line in self.verdict:
            console.print(line, markup=False, highlight=False)
        grids = _grids(self, split)
        for grid in (grid for grid, told in grids if told):
            console.print(grid.title, markup=False)
            for table in grid.tables(console.width):
                console.print(table)
        if left := [grid for grid, told in grids if not told]:
            console.print(self._left(split, left), markup=False, highlight=False)
        for note in self.notes:
            console.print(f"note: {note}", markup=False, highlight=False)

    def _left(self, split: str, grids: Sequence[Grid]) -> str:
        """A line on what is not printed, and where it is."""
        lines, every = sum(len(g.rows) for g in grids), sum(r.split == split for r in self.rows)
        tables = f"{len(grids)} more table{'s' * (len(grids) > 1)}"
        return (
            f"{tables} of {lines} line{'s' * (lines > 1)} in report.html: "
            f"{'; '.join(grid.title for grid in grids)}. "
            f"All {every:,} rows in report_{split}.csv"
        )

    def _is_shown(self, row: Row, split: str) -> bool:
        of_model = row.method == MODEL and row.group.split("/")[0] in self.shown_groups
        return row.split == split and (row.group in (ALL, *self.beside) or of_model)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(workdir: Path, split: str) -> Path:
    return workdir / f"report_{split}.csv"


def _row(cells: Mapping[str, str]) -> Row:
    """A line of the CSV file."""
    texts = {name: cells[name] for name in ("split", "group", "method", "metric")}
    value, count = float(cells["value"]), float(cells["count"])
    # Reports of older versions have no ends of intervals.
    spread, low, high = (
        float(cells[name]) if cells.get(name) else None for name in ("spread", "low", "high")
    )
    return Row(**texts, value=value, spread=spread, count=count, low=low, high=high)


def _grids(report: Report, split: str) -> list[tuple[Grid, bool]]:
    """The tables of a split and whether a terminal, too, shows them.

    First, if there is one, what leads for people. A terminal has the first of these, or means and
    their spread, and the whole: the verdict says what comes of intervals, notes what of groups.
    """
    rows = [row for row in report.rows if row.split == split]
    whole = _whole(report, report.whole, ALL, rows)
    beside = [_whole(report, title, group, rows) for group, title in report.beside.items()]
    groups = {kind: _group(report, kind, rows) for kind in report.shown_groups}
    leading = [grid for kind in report.leading for grid in (groups.pop(kind),) if grid.rows]
    intervals = [grid for grid in (_intervals(report, rows),) if grid.rows]
    spreads = [grid for metric in report.spread_headline if (grid := _spread(report, metric, rows))]
    others = [grid for grid in (*beside, *groups.values(), *_of_beside(report, rows)) if grid.rows]
    if leading:
        order, told = [*spreads, *leading, whole, *intervals, *others], [(spreads + leading)[0]]
    else:
        order, told = [whole, *intervals, *spreads, *others], [*spreads, *beside]
    return [(grid, any(grid is one for one in (whole, *told))) for grid in order]


def _whole(report: Report, title: str, group: str, rows: Iterable[Row]) -> Grid:
    """Every method on a group."""
    known = ((row.method, row) for row in rows if row.group == group)
    return Grid(title, "method", *_cells(report.headline, known), MODEL)


def _of_beside(report: Report, rows: Sequence[Row]) -> list[Grid]:
    """Of what stands beside the whole: intervals, and the model on its groups of the kinds shown,
    'of/b/user/a' of 'user'."""
    found = []
    for group, title in report.beside.items():
        found.append(_intervals(report, rows, group, f"{title}, "))
        found += [_group(report, k, rows, f"{group}/", f"{title}, ") for k in report.shown_groups]
    return found


def _intervals(report: Report, rows: Iterable[Row], group: str = ALL, of: str = "") -> Grid:
    """Ends of the headline's intervals, a line per method."""
    known = [(row.method, row) for row in rows if row.group == group and row.low is not None]
    cells = _cells(report.headline, known, lambda row: f"{row.low:.3g}..{row.high:.3g}")
    title = f"{of}95 % intervals, {report.drawn} drawn again and again"
    return Grid(title, "method", *cells, MODEL)


def _group(report: Report, kind: str, rows: Iterable[Row], inside: str = "", of: str = "") -> Grid:
    """The model alone on the groups of a kind, 'user/a' and 'user/b' of 'user'; inside: before the
    kind."""
    first = f"{inside}{kind}/"
    chosen = [row for row in rows if row.method == MODEL and row.group.startswith(first)]
    cells = _cells(report.headline, ((row.group.removeprefix(first), row) for row in chosen))
    return Grid(f"{of}model by {kind}", kind, *cells)


def _cells(
    names: Sequence[str],
    rows: Iterable[tuple[Key, Row]],
    say: Callable[[Row], str] = lambda row: f"{row.value:.4g}",
) -> tuple[list[str], list[tuple[Key, list[str]]]]:
    """Metrics that any row has, and a line of them for each key."""
    found: dict[Key, dict[str, str]] = {}
    for name, row in rows:
        found.setdefault(name, {})[row.metric] = say(row)
    used = [name for name in names if any(name in values for values in found.values())]
    return used, [(n, [values.get(name, "") for name in used]) for n, values in found.items()]


def _spread(report: Report, metric: str, rows: Sequence[Row]) -> Grid | None:
    """Mean ± SD: a line per method, a column per shown group; None where nothing has a spread.

    The whole split has a column only where no shown group has one.
    """
    columns: dict[str, dict[str, str]] = {}
    title, spreads = "", 0
    for row in rows:
        over, _, group = row.group.partition("/")
        shown = group == ALL or group.split("/")[0] in report.shown_groups
        if row.metric == metric and over.startswith(PER) and shown:
            spread = "" if row.spread is None else f"±{row.spread:.1f}"
            columns.setdefault(group, {})[row.method] = f"{row.value:.1f}{spread}"
            title = f"{metric}, mean ± SD {over.replace('_', ' ')}"
            spreads += row.spread is not None
    if not spreads:
        return None
    if len(columns) > 1:
        columns.pop(ALL, None)
    methods = dict.fromkeys(name for cells in columns.values() for name in cells)
    lines = [(m, [cells.get(m, "-") for cells in columns.values()]) for m in methods]
    return Grid(title, "method", [group.rsplit("/", 1)[-1] for group in columns], lines, MODEL)
