"""Converts your data once into a store that trains fast and without surprises.

    python -m tds_jax.prepare --task=pose --input=DIR --output=DIR --rate_hz=2000
    python -m tds_jax.prepare --task=forecast --input='DIR/*.nc' --output=DIR --variables=swvl1,tp
    python -m tds_jax.prepare --task=voxel --input=DIR --output=DIR

pose: recordings at one sample rate, anti-aliased. forecast: hours to days, in blocks. voxel: point
clouds to grids. Memory does not grow with the data. Killed? The same command goes on with what is
missing or has changed. What could not be prepared is named, and the exit status is 2 then.
"""

import functools
import glob
import sys
from pathlib import Path

from absl import flags

from tds_jax import cli, jobs, tasks
from tds_jax.errors import UserError
from tds_jax.fields import require_folder


def main() -> None:
    """Flags -> the task's prepare."""
    from tds_jax.progress import progress_bar

    values = flags.FLAGS
    source, target = Path(values.input), Path(values.output)
    if not glob.has_magic(values.input) and not source.exists():
        raise UserError(f"--input={source}: no such file or folder; check the path")
    if target.suffix != ".zarr":  # a store, where the task writes one
        require_folder("--output", target)
    job = jobs.asked("prepare")
    with progress_bar("preparing") as progress:
        written, kept, lines = job(source, target, progress)
    notes = [line for line in lines if line.startswith(tasks.NOTE)]
    skipped = [line for line in lines if line not in notes]
    for line in notes + [f"warning: {line}" for line in skipped]:
        print(line, file=sys.stderr)
    if not written + kept:
        see = "; see the lines above" if lines else ": it holds none"
        raise UserError(f"--input={source}: no file could be prepared{see}")
    print(f"{target}: {written} files written, {kept} were there, {len(skipped)} skipped")
    if skipped:
        raise UserError(f"{target} lacks {len(skipped)} of what --input={source} has, see above")


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "Folder of your data.", required=True)
    flags.DEFINE_string("output", None, "Folder to write; may exist.", required=True)
    cli.launch(main, functools.partial(jobs.define, "prepare"))
