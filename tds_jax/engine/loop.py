"""The order of things in a run: save? -> evaluate? -> next batch -> step -> log, and nothing else.

Position is counted in examples. Saving comes before the next batch is drawn, so a checkpoint's
name is exactly the number of examples its state has seen, and a run that continues from it draws
the batches it would have drawn. It comes before an evaluation, too, which adds its score to what
is saved: whatever happens in it, nothing is lost.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from tds_jax.budget import heap, memory
from tds_jax.engine import (
    curves,
    frozen,
    history,
    inherited,
    optim,
    processes,
    workdir,
)
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.callbacks import Callback, Callbacks
from tds_jax.engine.feed import Feed
from tds_jax.engine.logs import Log, cut_back
from tds_jax.engine.profiling import Profile
from tds_jax.engine.program import Program
from tds_jax.engine.step import Batch, TrainState, beginning_with, replace_leaves
from tds_jax.engine.stopping import EarlyStopping, StopError, StopSignal
from tds_jax.engine.vote import Vote
from tds_jax.engine.window import WindowLog
from tds_jax.errors import UserError
from tds_jax.fields import require_choice
from tds_jax.sizes import format_bytes

# Calls that are handed to a device beside the one before them, while it works. On a card one waits
# so that nothing passes between two; its memory is that of one: the state is donated, temporaries
# are taken in the order of the one stream, and its batch is one of the Feed's. On CPU each call
# would hold temporaries of its own.
AHEAD = collections.defaultdict(lambda: 1, cpu=0)

SAVES = ", what was trained is saved; Ctrl-C again ends at once"


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

    signal: its name, '' without one. step: predicted bytes of a step alone. predicted: device bytes
    of stepping and evaluating, as far as they are known. device: what was measured, see
    memory.DeviceMeter; empty on CPU.
    """

    complete: bool
    signal: str
    steps: int
    step: int
    predicted: dict[str, int]
    device: dict[str, tuple[int, bool]]

    def device_words(self, work: str) -> str:
        """What a work has taken of the device: predicted, and measured as well as that can be."""
        peak, own = self.device[work]
        need = self.predicted.get(work)
        planned = "" if need is None else f"{format_bytes(need)} predicted, "
        least = "" if own else "at most "
        return f"device, {work}: {planned}{least}{format_bytes(peak)} measured"


class Run:
    """What a loop needs besides its state; every method is one word of the loop."""

    def __init__(
        self, blueprint: Blueprint, folder: Path, log: Log, callbacks: Sequence[Callback]
    ) -> None:
        self.task, self.config = blueprint.task, blueprint.config
        self.folder, self.log, config = folder, log, self.config
        self._inherited = self._parts(blueprint)
        self.program = Program(blueprint)
        if config.eval.every:
            require_choice("eval.metric", config.eval.metric, self.program.metric_names())
        self.checkpoints = workdir.open_checkpoints(folder, config)
        self.feed = Feed(self.task, config, self.program.mesh)
        self.window = WindowLog(config, self.program, log, self.feed)
        self.callbacks = Callbacks(callbacks, config.optim.batch_size)
        self.total = config.optim.steps * config.optim.batch_size
        self._platform = self.program.mesh.devices.flat[0].platform
        self._running: collections.deque[Any] = collections.deque()
        self._vote = Vote(self.program.mesh, AHEAD[self._platform])
        self.interrupted = False
        self.profile = Profile(folder, config.log.profile, config.calls_per_update, self.wait)

    def start(self) -> tuple[TrainState, Standing]:
        """The latest checkpoint, or a fresh state with the train split's statistics."""
        mesh = self.program.mesh
        found = workdir.resume(self.checkpoints, self.program.blueprint, mesh, self.log.say)
        if found is None:
            state = self._fresh()
            rule = EarlyStopping(self.config.eval.min_delta, self.config.eval.patience)
            progress = Standing(0, 0, rule)
        else:
            restored, before = found
            state, progress = restored.state, Standing.of(restored.progress)
            params = frozen.learnt(state.params, self.config.optim.frozen)
            opt_state = optim.reaccumulate(
                state.opt_state, params, before, self.config.optim.accumulate
            )
            place = self.program.blueprint.shardings(mesh).opt_state
            state = dataclasses.replace(state, opt_state=jax.device_put(opt_state, place))
            for line in self._resuming(progress, restored.progress["config"]["optim"]["steps"]):
                self.log.say(line)
        need = format_bytes(self.program.predicted.total)
        seconds = self.program.compile_seconds
        self.log.say(f"a step needs {need} on the device (predicted; compiled in {seconds:.0f} s)")
        place = self.log.path, progress.position, progress.evaluated
        if processes.first() and (words := cut_back(*place)):
            self.log.say(words)
        self.log.begin(progress.position // self.config.optim.batch_size)
        self.window.start(state, progress.position)
        return state, progress

    def _parts(self, blueprint: Blueprint) -> inherited.Parts | None:
        """What a new run begins with, if it is another's; looked at before anything is compiled."""
        source = self.config.optim.init_from
        if not source or workdir.has_checkpoint(self.folder):
            return None
        self.log.say(f"beginning with the parameters of {source}")
        return inherited.read(blueprint, Path(source))

    def _fresh(self) -> TrainState:
        statistics = processes.together(self.task.fit_statistics)
        state = self.program.fresh(statistics)
        parts, self._inherited = self._inherited, None
        if parts:
            return inherited.put(state, parts, statistics)
        first = processes.together(self.task.first_params)
        return beginning_with(state, replace_leaves(state.params, first)) if first else state

    def _resuming(self, progress: Standing, steps_before: int) -> list[str]:
        """Lines for who goes on. steps_before: optim.steps when it was saved."""
        optimizer = self.config.optim
        done, total = progress.position // optimizer.batch_size, optimizer.steps
        if done > total:
            return [f"{done} steps are trained, more than optim.steps={total}: none are added"]
        if done == total:
            return [f"all {total} steps are trained"]
        moved = optim.moved_end(optimizer, steps_before, done)
        return [f"resuming after {done} of {total} steps", *[moved] * bool(moved)]

    def finished(self, progress: Standing) -> bool:
        """All examples seen, or no improvement for too long."""
        return progress.position >= self.total or progress.stopping.stop

    def _due(self, progress: Standing, every: int) -> bool:
        interval = every * self.config.optim.batch_size
        return bool(interval) and progress.position % interval == 0 and progress.position > 0

    def evaluation_due(self, progress: Standing) -> bool:
        """Whether it is time to look at `val`, or the end, and that has not been done."""
        every = self.config.eval.every
        wanted = self._due(progress, every) or (every > 0 and progress.position >= self.total)
        return wanted and progress.evaluated != progress.position

    def told(self, stop: StopSignal) -> bool:
        """Whether to stop, which all processes decide together."""
        if not self._vote(bool(stop)):
            return False
        processes.stopping()
        stop.hear(next(filter(None, processes.gather(stop.received))))
        return True

    def evaluate(self, state: TrainState, progress: Standing, stop: StopSignal) -> Standing:
        """Looks at `val`; the score is added to the checkpoint of this position.

        A signal ends it at once: all that was trained is saved.
        """
        try:
            with stop.raising(self.checkpoints.wait):
                values = self._look(state, progress)
        except StopError:
            self.interrupted = True
            return progress
        stopping = progress.stopping.observe(self._score(values))
        progress = Standing(progress.position, progress.position, stopping)
        self._save(state, progress, stopping.last)
        self.callbacks.evaluated(progress.position, values, state.weights)
        return progress

    def _look(self, state: TrainState, progress: Standing) -> dict[str, float]:
        with self.window.paused(), self.log.working("evaluating"):
            if not self.config.data.persistent_workers:
                self.feed.release_workers()
            with memory.noticing("eval.batch_size"):
                values = self.program.evaluate(state, self.task.source("val"))
            values = processes.broadcast(values)
            heap.trim()
            self.log.write(self.window.line("val", progress.position) | values)
            if self.config.log.plots and processes.first():
                curves.draw_curves(self.folder)
        return values

    def _score(self, values: dict[str, float]) -> float:
        value = values[self.config.eval.metric]
        score = value if self.config.eval.mode == "min" else -value
        return score if math.isfinite(score) else math.inf

    def maybe_save(self, state: TrainState, progress: Standing, now: bool) -> None:
        """Saves every checkpoint.every steps, and when told to."""
        if now or self._due(progress, self.config.checkpoint.every):
            self._save(state, progress, None)

    def _save(self, state: TrainState, progress: Standing, score: float | None) -> None:
        self.window.flush()
        # No checkpoint has seen other data than its run was begun with.
        files = self.task.data_files()
        processes.by_first(lambda: workdir.require_unchanged(self.folder, files))
        remembered = dataclasses.asdict(progress) | {
            "step": progress.position // self.config.optim.batch_size,
            "config": self.config.to_dict(),
        }
        self.checkpoints.save(progress.position, state, remembered, score)

    def step(self, state: TrainState, batch: Batch) -> TrainState:
        """One call of the training step, behind at most AHEAD others that have not ended."""
        while len(self._running) > AHEAD[self._platform]:
            jax.block_until_ready(self._running.popleft())
        if words := self.feed.relieve():
            self.log.say(words)
        state, objective = self.program.train_step(state, batch)
        self._running.append(objective)
        return state

    def tell(self, state: TrainState, position: int) -> None:
        """Callbacks, when a batch is whole."""
        self.callbacks.trained(position, self._running[-1], state.params)

    def advanced(self, progress: Standing) -> Standing:
        """After a call: at its end, also where an interruption had cut it."""
        call = self.config.examples_per_call
        return dataclasses.replace(progress, position=(progress.position // call + 1) * call)

    def busy(self) -> bool:
        """Whether the devices still work on the last call."""
        last = self._running[-1] if self._running else ()
        return not all(leaf.is_ready() for leaf in jax.tree.leaves(last))

    def wait(self) -> None:
        """Until the devices have done all calls."""
        jax.block_until_ready(list(self._running))

    def require_update(self, state: TrainState, progress: Standing) -> None:
        """UserError for a finished run that has learnt nothing."""
        if self.finished(progress) and not int(jax.device_get(state.opt_state.gradient_step)):
            raise UserError(
                f"all {int(jax.device_get(state.skipped))} micro-batches were left out, for no "
                "gradient was finite: the model is as it began; look for NaN and Inf in the data "
                "(python -m tds_jax.check), or lower optim.learning_rate and model scales"
            )

    def finish(self, position: int, signal: str) -> Finished:
        """What is told of a run that ends at a position."""
        self.program.device.note(memory.STEPPING)
        return Finished(
            complete=not signal,
            signal=signal,
            steps=position // self.config.optim.batch_size,
            step=self.program.predicted.total,
            predicted=self.program.needs(),
            device=self.program.device.found,
        )

    def close(self) -> None:
        """Stops workers and finishes writing."""
        self.feed.close()
        self.checkpoints.close()
        self.profile.close()


def fit(blueprint: Blueprint, folder: Path, callbacks: Sequence[Callback] = ()) -> Finished:
    """Trains to the end, to early stopping or to a signal; goes on where the folder left off.

    Raises memory.Exhausted when a device runs out of memory, and CallbackError; what was saved
    stays good. Raises StopError when a signal comes before the first checkpoint is looked for.
    """
    config = blueprint.config
    with (
        memory.noticing("optim.accumulate"),
        StopSignal(_ends(folder), meanwhile=SAVES) as stop,
        Log(folder, config, blueprint.task.describe) as log,
        contextlib.closing(_opened(blueprint, folder, log, callbacks, stop)) as run,
        processes.naming_the_dead(),
    ):
        try:
            with stop.raising():
                state, progress = run.start()
        except StopError:
            return run.finish(run.checkpoints.latest() or 0, stop.received)
        batches = run.feed.train(progress.position, run.busy)
        with jax.transfer_guard_host_to_device("disallow"):  # but for what is asked for by name
            while True:
                # Save before drawing: the checkpoint's position is the number of examples consumed.
                look, stopping = run.evaluation_due(progress), run.told(stop)
                run.maybe_save(state, progress, now=look or run.finished(progress) or stopping)
                if look and not stopping:  # a scheduler may be less patient than an evaluation
                    progress = run.evaluate(state, progress, stop)
                if stopping or run.interrupted or run.finished(progress):
                    break
                with run.profile.call():
                    state = run.step(state, next(batches))
                progress = run.advanced(progress)
                state = run.window.step(state, progress.position)
                run.tell(state, progress.position)
        run.require_update(state, progress)
        return run.finish(progress.position, stop.received)


def _ends(folder: Path) -> Callable[[str], None]:
    return lambda name: history.end(folder, history.stopped(name)) if processes.first() else None


def _opened(
    blueprint: Blueprint, folder: Path, log: Log, callbacks: Sequence[Callback], stop: StopSignal
) -> Run:
    """Compiles, which leaves nothing to save."""
    with stop.raising(), log.working("compiling"):
        return Run(blueprint, folder, log, callbacks)
