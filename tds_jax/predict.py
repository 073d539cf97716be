"""Predicts for one file or every file of a folder.

    python -m tds_jax.predict --workdir=runs/a --input=FILE_OR_DIR --output=FILE_OR_DIR

Each file is one stretch, whatever its length; memory does not grow with it.
"""

from pathlib import Path

from absl import flags

from tds_jax import cli, tasks
from tds_jax.engine import workdir


def main() -> None:
    """Flags -> task.predict."""
    folder = Path(flags.FLAGS.workdir)
    config = cli.resolve(workdir.read_config(folder))
    task = tasks.get(config, workdir.read_inputs(folder))
    model, _ = workdir.load_model(task, config, folder)
    written = task.predict(model, Path(flags.FLAGS.input), Path(flags.FLAGS.output))
    print(f"written: {len(written)} file{'s' * (len(written) != 1)}, the last is {written[-1]}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder that train wrote.", required=True)
    flags.DEFINE_string("input", None, "Recording, or folder of recordings.", required=True)
    flags.DEFINE_string("output", None, "File to write, or folder if input is one.", required=True)
    cli.launch(main)
