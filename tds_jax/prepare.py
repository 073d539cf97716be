"""Rewrites recordings at one sample rate, so that they can be trained on together.

    python -m tds_jax.prepare --task=pose --input=DIR --output=DIR --rate_hz=2000

Anti-aliased (scipy's resample_poly), contiguous float32, metadata.csv included; memory does not
grow with a file. Killed? The same command goes on with the files that are missing or have changed.
"""

import sys
from pathlib import Path

from absl import flags

from tds_jax import cli, tasks
from tds_jax.engine.logs import progress_bar
from tds_jax.errors import UserError


def main() -> None:
    """Flags -> the task's prepare."""
    values = flags.FLAGS
    source, target = Path(values.input), Path(values.output)
    convert = tasks.prepare(values.task)
    with progress_bar("preparing") as progress:
        written, kept, skipped = convert(source, target, values.rate_hz, values.group, progress)
    for line in skipped:
        print(f"warning: {line}", file=sys.stderr)
    if not written + kept:
        raise UserError(f"--input={source}: no file could be prepared; see the lines above")
    print(f"{target}: {written} files written, {kept} were there, {len(skipped)} skipped")


if __name__ == "__main__":
    flags.DEFINE_string("task", None, "Kind of data, such as pose.", required=True)
    flags.DEFINE_string("input", None, "Folder of recordings.", required=True)
    flags.DEFINE_string("output", None, "Folder to write; may exist.", required=True)
    flags.DEFINE_float("rate_hz", None, "Samples per second.", lower_bound=1e-3, required=True)
    flags.DEFINE_string("group", "emg2pose", "HDF5 group that holds `timeseries` (data.group).")
    cli.launch(main)
