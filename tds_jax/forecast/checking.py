"""What gridded files hold and what is wrong with them, from one pass over every day."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tds_jax.data.grid_record import GridRecord
from tds_jax.data.grid_steps import require_same_units, require_sorted
from tds_jax.data.gridded import (
    GridFile,
    axis_name,
    find_files,
    header,
    open_dataset,
    require_same_grid,
)
from tds_jax.data.selection import HELP, Selection, parse
from tds_jax.errors import UserError, some
from tds_jax.fields import option
from tds_jax.forecast.days import gap_lines, runs
from tds_jax.forecast.fields import DailyFields
from tds_jax.forecast.steps import DAY_HOURS, Step, require_step
from tds_jax.forecast.steps import HELP as STEP_HELP
from tds_jax.forecast.totals import HELP as TOTALS_HELP
from tds_jax.progress import Progress
from tds_jax.tasks import Checked

BLOCK_DAYS = 8  # read at once

Findings = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Check:
    """Reads gridded files day by day, as training would."""

    variables: tuple[str, ...] = option(
        (), "Names in the files, the target first; () = all there are."
    )
    accumulated: tuple[str, ...] = option((), TOTALS_HELP)
    select: tuple[str, ...] = option((), HELP)
    land_mask: str = option("", "FILE:VARIABLE, above 0.5 on land; '' = where the target is.")
    step_hours: int = option(DAY_HOURS, STEP_HELP, least=1)

    def run(self, folder: Path, progress: Progress) -> Checked:
        """Days or steps usable, a table, and lines on what training would refuse or suffer from."""
        require_step(self.step_hours)
        names = find_files(folder)
        findings: Findings = {}
        headers = list(_headers(names, parse(self.select), findings))
        files = _on_one_grid(headers, findings)
        wanted = self.variables or tuple(
            dict.fromkeys(n for one in files for n in (*one.attributes, *one.further))
        )
        good = [name for name in wanted if _is_sound(files, name, findings)]
        summary: dict[str, Any] = {"files": len(names), "of fields": len(headers)}
        if not good:
            return Checked(0, summary, findings)
        fields = _daily(GridRecord(files, good), good, self, findings)
        if fields is None:
            return Checked(0, summary, findings)
        _time_lines(fields, findings)
        summary |= _grid_summary(fields) | _scan(fields, findings, progress)
        for line in fields.unusable:
            _note(findings, "unreadable", line)
        return Checked(len(fields.days), summary, findings)


def _note(findings: Findings, kind: str, line: str) -> None:
    findings.setdefault(kind, []).append(line)


def _headers(names: Sequence[str], select: Selection, findings: Findings) -> Iterator[GridFile]:
    """Of the files with a time axis; the others may be masks and other static fields."""
    for name in names:
        try:
            with open_dataset(name, select) as data:
                if not (axis_name(data, "time") or axis_name(data, "time", 0)):
                    what = ", ".join(map(str, data)) or "no array outside of groups"
                    _note(findings, "no time", f"{name}: holds {what}")
                    continue
                found = header(data, name, select)
            require_sorted(found)
        except UserError as error:
            _note(findings, "unreadable", str(error))
        else:
            yield found


def _on_one_grid(files: Sequence[GridFile], findings: Findings) -> list[GridFile]:
    """The files on the grid of the first; a line for each of the others."""
    kept = []
    for one in files:
        try:
            require_same_grid(files[0], one)
        except UserError as error:
            _note(findings, "grid", str(error))
        else:
            kept.append(one)
    return kept


def _is_sound(files: Sequence[GridFile], name: str, findings: Findings) -> bool:
    """Whether a variable has one unit, and its steps can be put in order."""
    for one in files:
        if name in one.further:
            _note(findings, "dimension", f"{one.path}: {name} {one.further[name]}")
            return False
    if not any(name in one.attributes for one in files):
        found = ", ".join(sorted({n for one in files for n in one.attributes})) or "none"
        _note(findings, "missing", f"{name} is in no readable file; found {found}")
        return False
    try:
        require_same_units(files, name)
    except UserError as error:
        _note(findings, "units", str(error))
        return False
    try:
        GridRecord(files, [name]).close()
    except UserError as error:
        _note(findings, "time", str(error))
        return False
    return True


def _daily(
    record: GridRecord, names: Sequence[str], asked: Check, findings: Findings
) -> DailyFields | None:
    kind = "time"
    try:
        fields = DailyFields(
            record,
            names,
            names[0],
            asked.accumulated,
            asked.land_mask,
            step=Step(asked.step_hours),
        )
        kind = "land"
        _ = asked.land_mask and fields.land
    except UserError as error:
        _note(findings, kind, str(error))
        return None
    return fields


def _time_lines(fields: DailyFields, findings: Findings) -> None:
    for line in gap_lines(fields.days):
        _note(findings, "gap", line)
    for name in fields.variables:
        absent = fields.days[~fields.has(name)]
        if len(absent):
            _note(findings, "incomplete", f"{name}: {some(absent)} cannot be made whole")
    for line in fields.totals:
        _note(findings, "totals", line)
    for line in fields.land_notes:
        _note(findings, "land", line)
    for line in fields.record_notes:
        _note(findings, "values", line)
    for line in fields.left_out:
        _note(findings, "left out", line)


def _grid_summary(fields: DailyFields) -> dict[str, Any]:
    def axis(values: np.ndarray) -> str:
        return f"{values[0]:g} to {values[-1]:g} ({len(values)})"

    step = Step.of(fields.days)
    units = (f"{name} ({fields.attributes[name].get('units', '?')})" for name in fields.variables)
    return {
        "variables": ", ".join(units),
        "latitude": axis(fields.lat),
        "longitude": axis(fields.lon),
        step.row if step.is_day else f"steps of {step.hours} h": len(fields.days),
        "first": str(fields.days[0]),
        "last": str(fields.days[-1]),
        "stretches": len(runs(fields.days)),
    }


def _scan(fields: DailyFields, findings: Findings, progress: Progress) -> dict[str, Any]:
    """Ranges, missing shares and land from all days; lines on days without any value."""
    channels, total = len(fields.variables), len(fields.days)
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    there = np.zeros((total, channels), np.int64)
    land = np.zeros((len(fields.lat), len(fields.lon)), bool)
    for start in range(0, total, BLOCK_DAYS):
        progress(start, total)
        block = fields.read(start, min(start + BLOCK_DAYS, total))
        known = np.isfinite(block)
        there[start : start + len(block)] = known.sum(axis=(1, 2))
        land |= known[..., 0].any(axis=0)
        low = np.minimum(low, np.where(known, block, np.inf).min(axis=(0, 1, 2)))
        high = np.maximum(high, np.where(known, block, -np.inf).max(axis=(0, 1, 2)))
    progress(total, total)
    summary: dict[str, Any] = {"land": f"{land.sum()} of {land.size} cells"}
    for i, name in enumerate(fields.variables):
        empty = (there[:, i] == 0) & fields.has(name)
        if empty.any():
            _note(findings, "empty", f"{name}: no value at all on {some(fields.days[empty])}")
        share = 1 - there[:, i].sum() / max(total * land.sum(), 1)
        missing = f"{max(share, 0):.1%} missing on land"
        summary[name] = f"{low[i]:.4g} to {high[i]:.4g}, {missing}"
    return summary
