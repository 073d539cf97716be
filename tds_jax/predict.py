"""Predicts for one file or every file of a folder.

    python -m tds_jax.predict --workdir=runs/a --input=FILE_OR_DIR --output=FILE_OR_DIR

Each file is one stretch, whatever its length; memory does not grow with it. What is there already
is replaced with --overwrite alone. With --stream, where a task offers it, predictions are made as
samples come: a file is played at its own rate into the same kind of file; --input=- reads stdin,
one sample's channels after another as little-endian f32, --input=lsl:NAME a stream of the Lab
Streaming Layer (extra `lsl`). Of both, lines of CSV are written (.csv, or - for stdout) or of JSON
(.jsonl), or sent with --output=udp:HOST:PORT or lsl:NAME. Latency goes to stderr. --help with
--workdir shows the options of its task.
"""

import functools
import sys
from pathlib import Path

from absl import flags

from tds_jax import cli, jobs, tasks
from tds_jax.errors import UserError


def main() -> None:
    """Flags -> the task's predict or stream."""
    from tds_jax.engine import history, workdir
    from tds_jax.engine.blueprint import Blueprint

    folder, source, target = (getattr(flags.FLAGS, n) for n in ("workdir", "input", "output"))
    config = cli.resolve(workdir.read_config(Path(folder)))
    if flags.FLAGS.stream and not tasks.offers("stream", config.task):
        raise UserError(f"--stream is not offered for task {config.task!r}; leave it out")
    if not flags.FLAGS.stream:
        _require_files(source, target, tasks.offers("stream", config.task))
        jobs.require_unused("stream", config.task)
    overwrite = flags.FLAGS.overwrite
    job = jobs.asked("stream" if flags.FLAGS.stream else "predict", config.task)
    task = tasks.get(config, workdir.read_inputs(Path(folder)))
    model, restored = workdir.load_model(Blueprint(task, config), Path(folder))
    made = history.made_by(Path(folder), restored.position // config.optim.batch_size)
    if flags.FLAGS.calibrate:
        if not tasks.offers("calibrate", config.task):
            raise UserError(f"--calibrate is not offered for task {config.task!r}; leave it out")
        model = tasks.job("calibrate", config.task)(task, model, flags.FLAGS.calibrate)
        made = {**made, "calibrated_on": Path(flags.FLAGS.calibrate).name}
    if flags.FLAGS.stream:
        print(job(task, model, source, target, made, overwrite), file=sys.stderr)
        return
    written = job(task, model, Path(source), Path(target), Path(folder), made, overwrite)
    print(f"written: {len(written)} file{'s' * (len(written) != 1)}, the last is {written[-1]}")


def _require_files(source: str, target: str, streams: bool) -> None:
    """UserError for places that only --stream has; they would be taken for names of files."""
    for flag, place in (("--input", source), ("--output", target)):
        if place == "-" or place.startswith(("lsl:", "udp:")):
            remedy = "name one, or add --stream" if streams else "name one"
            raise UserError(f"{flag}={place} is no file; {remedy}")


if __name__ == "__main__":
    cli.define_processes()
    flags.DEFINE_string("workdir", None, "Folder that train wrote.", required=True)
    flags.DEFINE_string("input", None, "File of data, or folder of them.", required=True)
    flags.DEFINE_string("output", None, "File to write, or folder if input is one.", required=True)
    cli.define_overwrite("predictions")
    flags.DEFINE_bool("stream", False, "Predict as samples come, and say how late.")
    flags.DEFINE_string("calibrate", "", "Recording of the user, which makes the model theirs.")
    cli.launch(main, functools.partial(jobs.define_of_workdir, "predict", "stream"))
