"""Trains a model within the memory you have; run it again to go on where it stopped.

    python -m tds_jax.train --config=configs/low_memory.py --workdir=runs/a \\
        [--config.data.path=DIR] [--config.optim.batch_size=32] [--seeds=3] ...

Writes config.json, metrics.jsonl, history.jsonl, checkpoints/ and plots/ into the workdir, shows
progress, and ends with the best checkpoint's table on `test`. Ctrl-C saves and exits with status
130, SIGTERM, a scheduler's, with 0; the same command goes on.
"""

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from absl import flags
from ml_collections import config_flags

from tds_jax import cli, tasks
from tds_jax.config import SPLITS, Config, require_at_least
from tds_jax.data.workers import leave_out_jax
from tds_jax.engine.stopping import GOES_ON, INTERRUPTED, StopError, StopSignal
from tds_jax.errors import UserError
from tds_jax.evaluate import evaluate
from tds_jax.sizes import format_bytes

if TYPE_CHECKING:
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.loop import Finished

# Data workers run this module again. Jax is therefore imported in functions only, which spares
# each of them 75 MiB.
leave_out_jax()

CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().")
SEEDS = flags.DEFINE_integer("seeds", None, "Train so many seeds, in workdir/seed0 and so on.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
flags.mark_flag_as_required("config")


def main() -> None:
    """Plan if there is a budget, train, then evaluate the best checkpoint on `test`."""
    if SEEDS.value is not None:
        cli.leave(_seeds())
    try:
        with StopSignal() as stop, stop.raising():
            _main(stop)
    except StopError as stopped:
        print(GOES_ON)
        _leave(str(stopped))


def _seeds() -> int:
    from tds_jax import seeds

    count = SEEDS.value or 0
    require_at_least("--seeds", count, 1)
    folder = Path(WORKDIR.value) if WORKDIR.value else cli.default_workdir()
    return seeds.train(count, CONFIG.value.seed, folder, sys.argv[1:])


def _main(stop: StopSignal) -> None:
    from tds_jax.engine import lock
    from tds_jax.engine.blueprint import Blueprint

    asked = cli.resolve(CONFIG.value.to_dict())
    folder = Path(WORKDIR.value) if WORKDIR.value else cli.default_workdir()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={folder} is a file; name a folder, which may be new")
    task = tasks.get(asked)
    build = functools.cache(lambda config: Blueprint(task.under(config), config))
    warned: set[str] = set()

    def warn(task: tasks.Task) -> None:  # some warnings depend on how the batch is split
        for line in task.warnings():
            if line not in warned:
                print(f"warning: {line}", file=sys.stderr)
            warned.add(line)

    warn(task)
    # Now rather than after hours of training.
    for split in SPLITS if asked.eval.every else ("train", "test"):
        task.source(split)
    with lock.held(folder):
        _train(asked, folder, task, build, warn, stop)


def _train(
    asked: Config,
    folder: Path,
    task: tasks.Task,
    build: Callable[[Config], "Blueprint"],
    warn: Callable[[tasks.Task], None],
    stop: StopSignal,
) -> None:
    """In a folder that no other process writes."""
    from tds_jax.budget import giving_way, settling, targets
    from tds_jax.budget.memory import HostMeter
    from tds_jax.budget.plan import describe
    from tds_jax.engine import compilation, curves, history, loop, workdir

    print(data_words(task.data_about()))
    compilation.keep_programs(asked.memory.compile_cache, folder)
    asked = settling.decided(build, asked, targets.find("here"))
    config, plan = settling.settle(build, asked, folder)

    def remember(config: Config) -> None:
        workdir.claim(folder, config, task.inputs(), task.digest(), task.data_files())
        settling.keep(folder, asked, config, plan)
        warn(build(config).task)

    # After everything that may be wrong with the input, which another try may correct.
    remember(config)
    print(model_words(build(config)))
    stop.leaving = lambda name: history.end(folder, history.stopped(name))
    with history.recorded(folder, describe(config)), HostMeter() as host:
        finished, config = giving_way.within_memory(
            lambda config: loop.fit(build(config), folder), config, remember
        )
        if finished.complete:
            giving_way.within_memory(
                lambda config: evaluate(build(config), folder, "test"), config, remember
            )
            history.end(folder, "complete", steps=finished.steps)
            if words := curves.diverged(folder):
                print(f"warning: {words}", file=sys.stderr)
        else:
            history.end(folder, history.stopped(finished.signal), steps=finished.steps)
            print(f"stopped after {finished.steps} steps and saved; the same command goes on")
    print(memory_words(finished, host.peak, plan.host.total if plan else None))
    if finished.signal:
        _leave(finished.signal)


def _leave(name: str) -> NoReturn:
    """Of the signals that stop a run, Ctrl-C alone also stops what was to come after it."""
    cli.leave(INTERRUPTED if name == signal.SIGINT.name else 0)


def data_words(data: tasks.DataAbout) -> str:
    """What a run reads, and where it lies."""
    if not data.generated:
        return f"data: {data.words}; in {data.folder}"
    size = sum(path.stat().st_size for path in Path(data.folder).rglob("*")) if data.folder else 0
    place = f" in {data.folder} ({format_bytes(size)})" if data.folder else ""
    return f"data: {data.words}; generated{place}, for data.path is not set"


def model_words(blueprint: "Blueprint") -> str:
    """How large the model is, on what it is trained, and how."""
    import jax

    from tds_jax.budget.plan import describe
    from tds_jax.engine import history

    count = sum(leaf.size for leaf in jax.tree.leaves(blueprint.shapes.params))
    config, device = blueprint.config, history.made_with()["device"]
    return (
        f"model: {count:,} parameters; {config.optim.steps} steps of {config.optim.batch_size} "
        f"examples on {device}: {describe(config)}"
    )


def memory_words(finished: "Finished", host_peak: int, host_predicted: int | None) -> str:
    """Host and device bytes of a run, each said to be measured or predicted."""
    peak = finished.device_peak
    measured = "" if peak is None else f", {format_bytes(peak)} measured"
    planned = "" if host_predicted is None else f", {format_bytes(host_predicted)} predicted"
    return (
        f"host peak {format_bytes(host_peak)} measured (all processes){planned}; "
        f"device peak {format_bytes(finished.device_predicted)} predicted{measured}"
    )


if __name__ == "__main__":
    cli.launch(main)
