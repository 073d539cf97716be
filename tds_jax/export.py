"""Writes a trained model as one file that runs without this project: jax and numpy suffice.

    python -m tds_jax.export --workdir=runs/a --output=FILE.npz

For cpu, cuda and tpu and any batch size; read back and compared with the checkpoint before it gets
its name; a file that is there already is replaced with --overwrite alone. tds_jax/pose/README.md
has a consumer. Needs the extra `export`.
"""

import functools
import importlib.util
from pathlib import Path

from absl import flags

from tds_jax import cli, jobs, tasks
from tds_jax.errors import UserError
from tds_jax.fields import require, require_ending


def main() -> None:
    """Flags -> the task's export."""
    from tds_jax.engine import workdir
    from tds_jax.engine.blueprint import Blueprint

    require(
        importlib.util.find_spec("flatbuffers") is not None,
        "export needs the package flatbuffers, which is missing; pip install 'tds_jax[export]'",
    )
    cli.require_writable("--output", flags.FLAGS.output)
    require_ending("--output", flags.FLAGS.output, (".npz",))
    folder = Path(flags.FLAGS.workdir)
    config = cli.resolve(workdir.read_config(folder))
    task = tasks.get(config, workdir.read_inputs(folder))
    if not tasks.offers("export", config.task):
        raise UserError(f"export is not offered for task {config.task!r}; use predict")
    job = jobs.asked("export", config.task)
    model, _ = workdir.load_model(Blueprint(task, config), folder)
    print(f"written: {job(task, model, Path(flags.FLAGS.output))}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder that train wrote.", required=True)
    flags.DEFINE_string("output", None, "File to write (.npz).", required=True)
    cli.define_overwrite("a file")
    cli.launch(main, functools.partial(jobs.define_of_workdir, "export"))
