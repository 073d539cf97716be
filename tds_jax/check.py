"""Looks through a folder of your data before you train on it.

    python -m tds_jax.check --task=pose|forecast|voxel --input=DIR [--json=FILE]

Reads every file once and shows what there is, and a line for everything that training would skip,
refuse or suffer from. Exit status 2 if nothing is usable. A --json file that is there already is
replaced with --overwrite alone.
"""

import functools
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from tds_jax import cli, jobs
from tds_jax.data import json_file
from tds_jax.errors import UserError

SHOWN = 20  # findings of a kind that are printed; the JSON file has all


def main() -> None:
    """Flags -> the task's check, printed."""
    from tds_jax.progress import progress_bar

    cli.require_writable("--json", flags.FLAGS.json)
    folder = Path(flags.FLAGS.input)
    job = jobs.asked("check")
    with progress_bar("reading") as progress:
        checked = job(folder, progress)
    _show_files(checked.files)
    _show(checked.summary, checked.findings)
    if flags.FLAGS.json:
        found = {"input": str(folder), "summary": checked.summary, "findings": checked.findings}
        found |= {"files": checked.files} if checked.files else {}
        json_file.write(Path(flags.FLAGS.json), found)
    if not checked.usable:
        see = (
            "; see the lines above" if checked.findings else ", and nothing that is wrong with one"
        )
        raise UserError(f"--input={folder}: no usable file{see}")


def _show(summary: dict[str, Any], findings: dict[str, list[str]]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table(show_header=False)
    for name, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{number} {unit}" for unit, number in value.items())
        elif isinstance(value, list):
            value = " / ".join(f"{number:g}" for number in value) + " (min / median / max)"
        table.add_row(name, str(value))
    console.print(table)
    for kind, lines in findings.items():
        for line in lines[:SHOWN]:
            console.print(f"{kind}: {line}", markup=False)
        if len(lines) > SHOWN:
            console.print(f"{kind}: and {len(lines) - SHOWN} more", markup=False)


def _show_files(files: dict[str, dict[str, Any]]) -> None:
    """A row per file, the first SHOWN of them."""
    from tds_jax.engine.tables import Grid
    from tds_jax.progress import table_console

    if not files:
        return
    rows = [(name, [*map(str, values.values())]) for name, values in files.items()]
    columns, console = list(next(iter(files.values()))), table_console()
    for table in Grid("", "file", columns, rows[:SHOWN]).tables(console.width):
        console.print(table)
    if len(files) > SHOWN:
        console.print(f"and {len(files) - SHOWN} more files; --json=FILE has all")


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "Folder of the files.", required=True)
    flags.DEFINE_string("json", None, "Also write summary and findings to this file.")
    cli.define_overwrite("a file")
    cli.launch(main, functools.partial(jobs.define, "check"))
