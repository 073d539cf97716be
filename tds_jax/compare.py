"""Puts runs beside each other: settings that differ, metrics with their spread, bytes and time.

    python -m tds_jax.compare runs/* [--split=test] [--output=compare.png] [--json=FILE]

Folders of runs that differ in their seed or fold alone (as train --seeds=3 and --folds=5 make them)
are one column, with mean ± standard deviation. Files that are there already are replaced with
--overwrite alone.
"""

from pathlib import Path

from absl import flags

from tds_jax import cli
from tds_jax.config import SPLITS
from tds_jax.data import json_file
from tds_jax.errors import UserError
from tds_jax.fields import require_choice, require_ending

FOLDERS: list[str] = []


def main() -> None:
    """Flags and folders -> table, picture, JSON."""
    require_choice("--split", flags.FLAGS.split, SPLITS)
    cli.require_writable("--json", flags.FLAGS.json)
    if not FOLDERS:
        raise UserError("no run is named; give folders that train wrote, such as runs/*")
    picture = flags.FLAGS.output
    if picture:
        cli.require_writable("--output", picture)
        require_ending("--output", picture, (".png",))
    show(FOLDERS, flags.FLAGS.split, picture, flags.FLAGS.json)


def show(folders: list[str], split: str, picture: str | None, file: str | None) -> None:
    """Prints the table of runs; writes the picture and the JSON file if they are named."""
    from tds_jax.engine import comparison
    from tds_jax.progress import table_console

    runs = [comparison.read(folder, split) for folder in comparison.find(folders)]
    columns = comparison.grouped(runs)
    console = table_console()
    console.print(f"{len(runs)} runs, {split}", markup=False)
    for table in comparison.grid(columns).tables(console.width):
        console.print(table)
    for line in comparison.notes(columns, split):
        console.print(f"note: {line}", markup=False)
    if picture:
        console.print(f"written: {comparison.draw(columns, Path(picture))}", markup=False)
    if file:
        json_file.write(Path(file), comparison.to_dict(columns))


if __name__ == "__main__":
    flags.DEFINE_string("split", "test", f"One of {', '.join(SPLITS)}.")
    flags.DEFINE_string("output", None, "Also draw a picture into this .png file.")
    flags.DEFINE_string("json", None, "Also write mean, spread and values to this file.")
    cli.define_overwrite("files")
    cli.launch(main, words=FOLDERS)
