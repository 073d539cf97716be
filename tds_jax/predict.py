"""Predicts for one file or every file of a folder.

    python -m tds_jax.predict --workdir=runs/a --input=FILE_OR_DIR --output=FILE_OR_DIR
    python -m tds_jax.predict --workdir=runs/a --stream --input=FILE|- --output=FILE|-

Each file is one stretch, whatever its length; memory does not grow with it. With --stream poses are
made as samples come: a recording is played at its own rate into the same kind of file; `-` reads
stdin, one sample's channels after another as little-endian f32, and writes lines of CSV (`-` as
output: to stdout). Latency goes to stderr.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tds_jax import cli, tasks
from tds_jax.errors import UserError

if TYPE_CHECKING:
    from flax import nnx


def main() -> None:
    """Flags -> task.predict."""
    from tds_jax.engine import workdir

    folder = Path(flags.FLAGS.workdir)
    config = cli.resolve(workdir.read_config(folder))
    task = tasks.get(config, workdir.read_inputs(folder))
    if flags.FLAGS.stream:
        if not isinstance(task, tasks.Streaming):
            raise UserError(f"--stream is not offered for task {config.task!r}; leave it out")
        model, _ = workdir.load_model(task, config, folder)
        print(_stream(task, model), file=sys.stderr)
        return
    model, _ = workdir.load_model(task, config, folder)
    tasks.recall(config, task, folder)
    written = task.predict(model, Path(flags.FLAGS.input), Path(flags.FLAGS.output))
    print(f"written: {len(written)} file{'s' * (len(written) != 1)}, the last is {written[-1]}")


def _stream(task: tasks.Streaming, model: "nnx.Module") -> str:
    given = flags.FLAGS.initial_pose
    try:
        initial = None if given is None else [float(angle) for angle in given.split(",")]
    except ValueError:
        raise UserError(
            f"--initial_pose={given} is not a list of numbers; write angles in radians as 0.1,0.2"
        ) from None
    return task.stream(
        model,
        flags.FLAGS.input,
        flags.FLAGS.output,
        initial_pose=initial,
        chunk=flags.FLAGS.chunk_ms / 1000,
        paced=flags.FLAGS.realtime,
    )


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder that train wrote.", required=True)
    flags.DEFINE_string("input", None, "Recording, or folder of recordings.", required=True)
    flags.DEFINE_string("output", None, "File to write, or folder if input is one.", required=True)
    flags.DEFINE_bool("stream", False, "Predict as samples come, and say how late.")
    flags.DEFINE_bool("realtime", True, "--norealtime: play a recording as fast as possible.")
    flags.DEFINE_float("chunk_ms", 20.0, "Recorded time between two chunks.", lower_bound=0.001)
    flags.DEFINE_string(
        "initial_pose", None, "Radians, comma-separated: where a pipe's track starts."
    )
    cli.launch(main)
