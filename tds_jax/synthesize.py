"""Writes generated data in the real format, for trying things out.

python -m tds_jax.synthesize --task=pose --output=DIR [--users=3 --sessions=7 --seconds=40]
python -m tds_jax.synthesize --task=forecast --output=DIR
python -m tds_jax.synthesize --task=voxel --output=DIR
"""

import functools
from pathlib import Path

from absl import flags

from tds_jax import cli, jobs
from tds_jax.fields import require_folder


def main() -> None:
    """Flags -> the task's simulation."""
    from tds_jax.progress import progress_bar

    require_folder("--output", flags.FLAGS.output)
    job = jobs.asked("synthesize")
    with progress_bar("simulating") as progress:
        folder = job(Path(flags.FLAGS.output), progress)
    print(f"written: {folder}")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Folder to create.", required=True)
    cli.launch(main, functools.partial(jobs.define, "synthesize"))
