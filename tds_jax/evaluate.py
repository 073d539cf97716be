"""Evaluates a trained model beside its baselines.

    python -m tds_jax.evaluate --workdir=runs/a [--split=test] [--data=DIR] [--json=FILE]

Prints the tables, writes report.html, report.json, report_<split>.csv and the figures in plots/; of
other data than the run's, into a folder of their own in the workdir. Baselines are those of the
train split, fitted once and kept; a forecast run judges all of another period beside its own.
A --json file that is there already is replaced with --overwrite alone.
"""

import glob
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tds_jax import cli, progress, tasks
from tds_jax.config import SPLITS, Config
from tds_jax.data import json_file
from tds_jax.errors import UserError
from tds_jax.fields import require_choice

if TYPE_CHECKING:
    from flax import nnx

    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.report import Report


def evaluate(blueprint: "Blueprint", folder: Path, split: str) -> "Report":
    """Evaluates the folder's best checkpoint on a split, writes and prints the report.

    Of other data than the run's it goes into a folder of their own, see `place_of`.
    """
    from tds_jax.engine import curves, history, page, processes, workdir

    task, config = blueprint.task, blueprint.config
    model, restored = workdir.load_model(blueprint, folder)
    steps = restored.position // config.optim.batch_size
    data, place = task.data_about(), place_of(task, folder)
    if (place / "report.json").exists():  # what cannot be added to is told before the work
        json_file.read(place / "report.json", "delete it")
    with progress.working(f"evaluating {split}"):
        report = judged(task, config, model, split, place, keep=processes.first())
    if not processes.first():
        return report
    about = {
        "data": str(Path(data.folder).absolute()),
        "generated": data.generated,
        "holds": data.words,
        "identity": workdir.identity_of(task),
        "step": steps,
        "time": history.now(),
        **history.made_with(),
    }
    report.write(place, about)
    curves.draw_curves(folder)
    written = page.write(place, folder)
    report.show(split, f"{split} (best checkpoint: step {steps})")
    if place != folder:
        print(f"note: these are other data than the run's ({data.folder}); its report stays")
    print(f"written: {written}, {place}/report.json, {place}/report_{split}.csv, {place}/plots/")
    return report


def place_of(task: tasks.Task, folder: Path) -> Path:
    """The run's folder, or one in it for data that the run has not been trained on.

    The latter need not be there yet.
    """
    from tds_jax.engine import workdir

    if workdir.trained_on(folder, task):
        return folder
    name = Path(task.data_about().folder).name or "data"
    return folder / f"on_{name}_{workdir.identity_of(task)[:6]}"


def require_there(data: Mapping[str, Any], given: str, flag: str) -> None:
    """Raises UserError for a place of data that is not there, which the run or `given` names.

    data: settings of the group. flag: how another place is given. A pattern, and what a source of
    one's own makes of a name, is for those who read it.
    """
    path = given or data["path"]
    if not path or glob.has_magic(path) or data.get("source") or Path(path).exists():
        return
    if given:
        raise UserError(f"{flag}{given}: no such file or folder; check the path")
    raise UserError(
        f"data.path={path} of the run is not there, seen from {Path.cwd()}; give {flag}DIR"
    )


def judged(
    task: tasks.Task, config: Config, model: "nnx.Module", split: str, place: Path, keep: bool
) -> "Report":
    """A model beside its baselines on a split; see `tasks.Domain` on the place and keep."""
    from tds_jax.budget import memory

    if keep:
        place.mkdir(exist_ok=True)
    with memory.noticing("eval.batch_size"):
        return tasks.job("evaluate", config.task)(task, model, split, place, keep)


def _opened(config: Config, inputs: Mapping[str, Any]) -> tuple[tasks.Task, list[str]]:
    """The task, its data opened, and what is to be known of them."""
    task = tasks.get_for_data(config, inputs)
    return task, task.warnings()


def main() -> None:
    """Flags -> evaluate."""
    from tds_jax.budget import giving_way
    from tds_jax.engine import processes, workdir
    from tds_jax.engine.blueprint import Blueprint

    folder = Path(flags.FLAGS.workdir)
    require_choice("--split", flags.FLAGS.split, SPLITS)
    cli.require_writable("--json", flags.FLAGS.json)
    values = workdir.read_config(folder)
    require_there(values["data"], flags.FLAGS.data or "", "--data=")
    values["data"]["path"] = flags.FLAGS.data or values["data"]["path"]
    config = cli.resolve(values)
    inputs = workdir.read_inputs(folder)
    task, warnings = processes.together(lambda: _opened(config, inputs))
    workdir.require_inputs(folder, task.inputs())
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    report, _ = giving_way.within_memory(
        lambda config: evaluate(Blueprint(task.under(config), config), folder, flags.FLAGS.split),
        config,
        remember=lambda config: None,
    )
    if flags.FLAGS.json and processes.first():
        json_file.write(Path(flags.FLAGS.json), report.to_dict())


if __name__ == "__main__":
    cli.define_processes()
    flags.DEFINE_string("workdir", None, "Folder that train wrote.", required=True)
    flags.DEFINE_string("split", "test", f"One of {', '.join(SPLITS)}.")
    flags.DEFINE_string("data", None, "Folder of the data, if not where they were.")
    flags.DEFINE_string("json", None, "Also write the report to this file.")
    cli.define_overwrite("a file")
    cli.launch(main)
