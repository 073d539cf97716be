"""A run from its config to the best checkpoint's table: what the door and the Python face share.

Jax is imported in functions only, see `train`.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tds_jax import tasks
from tds_jax.config import SPLITS, Config
from tds_jax.engine.stopping import StopSignal
from tds_jax.errors import NoSplitError, UserError
from tds_jax.evaluate import evaluate
from tds_jax.sizes import format_bytes

if TYPE_CHECKING:
    from tds_jax.engine.blueprint import Blueprint
    from tds_jax.engine.callbacks import Callback
    from tds_jax.engine.loop import Finished


def train(
    asked: Config, folder: Path, stop: StopSignal, callbacks: "Sequence[Callback]" = ()
) -> "Finished":
    """Plans if there is a budget, trains or goes on, then evaluates the best checkpoint on `test`.

    Raises UserError for what a person can correct, StopError where a signal comes before there is
    anything to save.
    """
    from tds_jax.engine import lock, loggers, processes, workdir
    from tds_jax.engine.blueprint import remembered

    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={folder} is a file; name a folder, which may be new")
    loggers.require_installed(asked.log.to)
    task = processes.together(lambda: _opened(asked))
    workdir.require_apart(folder, task.data_about().folder)
    build = remembered(task)
    warned: set[str] = set()

    def warn(task: tasks.Task) -> None:  # some warnings depend on how the batch is split
        for line in task.warnings():
            if line not in warned and processes.first():
                print(f"warning: {line}", file=sys.stderr)
            warned.add(line)

    warn(task)
    with lock.held(folder) if processes.first() else contextlib.nullcontext():
        return _train(asked, folder, task, build, warn, stop, callbacks)


def _opened(config: Config) -> tasks.Task:
    """The task, what it will read looked at: now rather than after hours of training."""
    task = tasks.get(config)
    task.source("train")
    try:
        for split in SPLITS[1:] if config.eval.every else ():
            task.source(split)
    except NoSplitError as error:
        raise UserError(f"{error}; or give eval.every=0, which trains without it") from error
    has_split(task, "test")
    task.warnings()  # for which some read all of the train split
    return task


def has_split(task: tasks.Task, split: str) -> bool:
    """Whether there is anything in it. Raises UserError where what is in it cannot be used."""
    try:
        task.source(split)
    except NoSplitError:
        return False
    return True


def _train(
    asked: Config,
    folder: Path,
    task: tasks.Task,
    build: Callable[[Config], "Blueprint"],
    warn: Callable[[tasks.Task], None],
    stop: StopSignal,
    callbacks: "Sequence[Callback]",
) -> "Finished":
    """In a folder that no other run writes."""
    from tds_jax.budget import giving_way, settling, targets
    from tds_jax.budget.memory import HostMeter
    from tds_jax.budget.plan import describe
    from tds_jax.engine import compilation, history, loop, processes, workdir

    print(data_words(task.data_about()))
    compilation.keep_programs(asked.memory.compile_cache, folder)
    asked = settling.decided(build, asked, targets.find("here"))
    config, plan = settling.settle(build, asked, folder)
    config = processes.broadcast(config)

    def claim(config: Config) -> None:
        workdir.claim(folder, config, task.inputs(), task.digest(), task.data_files())
        settling.keep(folder, asked, config, plan)

    def remember(config: Config) -> None:
        processes.by_first(lambda: claim(config))
        warn(build(config).task)

    # After everything that may be wrong with the input, which another try may correct.
    remember(config)
    print(model_words(build(config)))
    noted: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if processes.first():
        stop.leaving = lambda name: history.end(folder, history.stopped(name))
        processes.when_ended(lambda words: history.end(folder, f"error: {words}"))
        noted = history.recorded(folder, describe(config))
    with noted, HostMeter() as host:
        finished, config = giving_way.within_memory(
            lambda config: loop.fit(build(config), folder, callbacks), config, remember
        )
        if finished.complete and has_split(task, "test"):
            giving_way.within_memory(
                lambda config: evaluate(build(config), folder, "test"), config, remember
            )
        elif finished.complete:
            print("note: the test split is empty: no report; evaluate --data=DIR gives one")
        _note_end(finished, folder)
    print(memory_words(finished, host.peak, plan.host.total if plan else None))
    return finished


def _note_end(finished: "Finished", folder: Path) -> None:
    """How a run has ended, in its folder and for the one who waits."""
    from tds_jax.engine import curves, history, processes

    if processes.first():
        how = "complete" if finished.complete else history.stopped(finished.signal)
        history.end(folder, how, steps=finished.steps)
    if not finished.complete:
        print(f"stopped after {finished.steps} steps and saved; the same command goes on")
    elif words := curves.diverged(folder):
        print(f"warning: {words}", file=sys.stderr)


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
    """Host and device bytes of a run, each said to be measured or predicted.

    Where a device is measured, a line for each of what it did.
    """
    planned = "" if host_predicted is None else f", {format_bytes(host_predicted)} predicted"
    words = f"host peak {format_bytes(host_peak)} measured (all processes){planned}"
    if not finished.device:
        return f"{words}; device peak {format_bytes(finished.step)} predicted"
    return "\n".join([words, *map(finished.device_words, finished.device)])
