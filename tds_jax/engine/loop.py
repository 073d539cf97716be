"""The order of things in a run: evaluate? -> save? -> next batch -> step -> log, and nothing else.

Position is counted in examples. Saving comes before the next batch is drawn, so a checkpoint's
name is exactly the number of examples its state has seen, and a run that continues from it draws
the batches it would have drawn.
"""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax

from tds_jax.budget import heap, memory
from tds_jax.config import require_choice
from tds_jax.engine import curves, optim, sharding, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.feed import Feed
from tds_jax.engine.logs import Log, cut_back
from tds_jax.engine.program import Program
from tds_jax.engine.step import Batch, TrainState
from tds_jax.engine.stopping import EarlyStopping, StopSignal
from tds_jax.engine.window import WindowLog
from tds_jax.sizes import format_bytes


@dataclasses.dataclass(frozen=True)
class Standing:
    """What the host remembers beside the state. position, evaluated: in examples."""

    position: int
    evaluated: int
    stopping: EarlyStopping

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Standing":
        """From the dict a checkpoint holds."""
        stopping = EarlyStopping(**values["stopping"])
        return cls(values["position"], values["evaluated"], stopping)


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a run ended. complete: all steps or early stop; False when a signal stopped it.

    device_predicted, device_peak: bytes of the training step; the latter measured, None on CPU.
    """

    complete: bool
    steps: int
    device_predicted: int
    device_peak: int | None


class Run:
    """What a loop needs besides its state; every method is one word of the loop."""

    def __init__(self, blueprint: Blueprint, folder: Path, log: Log) -> None:
        self.task, self.config = blueprint.task, blueprint.config
        self.folder, self.log, config = folder, log, self.config
        self.program = Program(blueprint)
        if config.eval.every:
            require_choice("eval.metric", config.eval.metric, self.program.metric_names())
        self.checkpoints = workdir.open_checkpoints(folder, config)
        self.feed = Feed(self.task, config, self.program.mesh)
        self.window = WindowLog(config, self.program, log, self.feed)
        self.total = config.optim.steps * config.optim.batch_size
        self._previous: Any = None

    def start(self) -> tuple[TrainState, Standing]:
        """The latest checkpoint, or a fresh state with the train split's statistics."""
        position = self.checkpoints.latest()
        if position is None:
            state = self.program.fresh(self.task.fit_statistics())
            rule = EarlyStopping(self.config.eval.min_delta, self.config.eval.patience)
            progress = Standing(0, 0, rule)
        else:
            restored, before = workdir.restore(
                self.checkpoints, position, self.program.blueprint, self.program.mesh
            )
            state, progress = restored.state, Standing.of(restored.progress)
            opt_state = optim.reaccumulate(
                state.opt_state, state.params, before, self.config.optim.accumulate
            )
            everywhere = sharding.shardings_for(opt_state, self.program.mesh)
            state = dataclasses.replace(state, opt_state=jax.device_put(opt_state, everywhere))
            steps = position // self.config.optim.batch_size
            self.log.say(f"resuming after {steps} of {self.config.optim.steps} steps")
        need = format_bytes(self.program.predicted.total)
        seconds = self.program.compile_seconds
        self.log.say(f"a step needs {need} on the device (predicted; compiled in {seconds:.0f} s)")
        cut_back(self.log.path, progress.position)
        self.log.begin(progress.position // self.config.optim.batch_size)
        self.window.start(state, progress.position)
        return state, progress

    def finished(self, progress: Standing) -> bool:
        """All examples seen, or no improvement for too long."""
        return progress.position >= self.total or progress.stopping.stop

    def _due(self, progress: Standing, every: int) -> bool:
        interval = every * self.config.optim.batch_size
        return bool(interval) and progress.position % interval == 0 and progress.position > 0

    def maybe_evaluate(self, state: TrainState, progress: Standing) -> Standing:
        """Looks at `val` when it is time, and at the end."""
        every = self.config.eval.every
        wanted = self._due(progress, every) or (every and progress.position >= self.total)
        if not wanted or progress.evaluated == progress.position:
            return progress
        self.window.flush()
        with self.window.paused():
            if not self.config.data.persistent_workers:
                self.feed.release_workers()
            with memory.noticing("eval.batch_size"):
                values = self.program.evaluate(state, self.task.source("val"))
            heap.trim()
            self.log.write(self.window.line("val", progress.position) | values)
            if self.config.log.plots:
                curves.draw_curves(self.folder)
        stopping = progress.stopping.observe(self._score(values))
        return Standing(progress.position, progress.position, stopping)

    def evaluate_or_save(self, state: TrainState, progress: Standing) -> Standing:
        """`maybe_evaluate`; if memory runs out there, what was trained is saved first."""
        try:
            return self.maybe_evaluate(state, progress)
        except memory.Exhausted:
            self.maybe_save(state, progress, new_score=False, now=True)
            raise

    def _score(self, values: dict[str, float]) -> float:
        value = values[self.config.eval.metric]
        score = value if self.config.eval.mode == "min" else -value
        return score if math.isfinite(score) else math.inf

    def maybe_save(self, state: TrainState, progress: Standing, new_score: bool, now: bool) -> None:
        """Saves after an evaluation, every checkpoint.every steps, and when told to."""
        if not (now or new_score or self._due(progress, self.config.checkpoint.every)):
            return
        self.window.flush()
        remembered = dataclasses.asdict(progress) | {
            "step": progress.position // self.config.optim.batch_size,
            "config": self.config.to_dict(),
        }
        score = progress.stopping.last if new_score else None
        self.checkpoints.save(progress.position, state, remembered, score)

    def step(self, state: TrainState, batch: Batch) -> TrainState:
        """One micro-batch. The device may be one step behind the host, not more.

        A host that runs ahead freely would hold a batch, and on CPU the temporaries, of every
        step that waits.
        """
        jax.block_until_ready(self._previous)
        if words := self.feed.relieve():
            self.log.say(words)
        state, self._previous = self.program.train_step(state, batch)
        return state

    def busy(self) -> bool:
        """Whether the devices still work on the last step."""
        return not all(leaf.is_ready() for leaf in jax.tree.leaves(self._previous))

    def close(self) -> None:
        """Stops workers and finishes writing."""
        self.feed.close()
        self.checkpoints.close()


def fit(blueprint: Blueprint, folder: Path) -> Finished:
    """Trains to the end, to early stopping or to a signal; goes on where the folder left off.

    Raises memory.Exhausted when a device runs out of memory; what was saved stays good.
    """
    config = blueprint.config
    with (
        memory.noticing("optim.accumulate"),
        StopSignal() as stop,
        Log(folder, config, blueprint.task.describe) as log,
        contextlib.closing(Run(blueprint, folder, log)) as run,
    ):
        state, progress = run.start()
        batches = run.feed.train(progress.position, run.busy)
        with jax.transfer_guard_host_to_device("disallow"):  # but for what is asked for by name
            while True:
                if progress.position >= run.total:
                    state = run.program.flush(state)
                before = progress.evaluated
                if not stop:  # a scheduler's patience may be shorter than an evaluation
                    progress = run.evaluate_or_save(state, progress)
                ends = run.finished(progress) or bool(stop)
                # Save before drawing: the checkpoint's position is the number of examples consumed.
                run.maybe_save(state, progress, new_score=progress.evaluated != before, now=ends)
                if ends:
                    break
                state = run.step(state, next(batches))
                progress = dataclasses.replace(
                    progress, position=progress.position + config.optim.micro_batch
                )
                state = run.window.step(state, progress.position)
        return Finished(
            complete=not stop,
            steps=progress.position // config.optim.batch_size,
            device_predicted=run.program.predicted.total,
            device_peak=memory.device_peak(),
        )
