"""One log line per window of steps, fetched one step late so that the device never waits for it."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax

from tds_jax.budget import memory
from tds_jax.config import Config
from tds_jax.engine import metrics
from tds_jax.engine.feed import Feed
from tds_jax.engine.logs import Line, Log
from tds_jax.engine.program import Program
from tds_jax.engine.step import TrainState


class WindowLog:
    """Turns `TrainState.window` into lines every log.every steps."""

    def __init__(self, config: Config, program: Program, log: Log, feed: Feed) -> None:
        self._batch_size = config.optim.batch_size
        self._interval = config.log.every * config.optim.batch_size
        self._total = config.optim.steps * config.optim.batch_size
        self._program, self._log, self._feed = program, log, feed
        self._pending: tuple[Line, Any, Any] | None = None
        self._skipped = 0

    def start(self, state: TrainState, position: int) -> None:
        """Begins measuring at this position."""
        self._skipped = int(jax.device_get(state.skipped))
        self._began(position)

    def _began(self, position: int) -> None:
        self._clock, self._from = time.perf_counter(), position
        self._waited = self._feed.waited

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count as training time."""
        started = time.perf_counter()
        yield
        self._clock += time.perf_counter() - started

    def line(self, split: str, position: int) -> Line:
        """The fields every line begins with."""
        return {"step": position // self._batch_size, "examples": position, "split": split}

    def step(self, state: TrainState, position: int) -> TrainState:
        """The state, its window emptied if a line is due here; writes the line before this one."""
        self.flush()
        if position % self._interval and position < self._total:
            return state
        # Taken out of the state, so that the next step does not donate what is still to be read.
        self._pending = (
            self.line("train", position) | self._speed(position),
            state.window,
            self._program.gauges(state),
        )
        self._began(position)
        return dataclasses.replace(state, window=self._program.emptied(state.window))

    def _speed(self, position: int) -> Line:
        seconds = time.perf_counter() - self._clock
        return {
            "perf/samples_per_s": (position - self._from) / seconds,
            "perf/input_wait": (self._feed.waited - self._waited) / seconds,
        }

    def flush(self) -> None:
        """Writes the line that is waiting, if any."""
        if self._pending is None:
            return
        line, window, gauges = self._pending
        self._pending = None
        values = metrics.compute(metrics.to_host(window))
        values |= {name: value.item() for name, value in jax.device_get(gauges).items()}
        self._warn(int(values["skipped"]))
        self._program.device.note(memory.STEPPING)
        self._log.write(line | values | memory_line(self._program))

    def _warn(self, skipped: int) -> None:
        if skipped > self._skipped:
            self._log.say(
                f"{skipped - self._skipped} micro-batch(es) left out: gradient not finite "
                f"({skipped} so far); look at the data or lower optim.learning_rate"
            )
        self._skipped = skipped


def memory_line(program: Program) -> Line:
    """Bytes on the host now, and of stepping on the device: predicted, and measured where no other
    work has taken more."""
    measured = program.device.own(memory.STEPPING)
    peak = {} if measured is None else {"perf/device_peak_bytes": measured}
    return {
        "perf/host_bytes": memory.host_bytes(),
        "perf/device_predicted_bytes": program.predicted.total,
        **peak,
    }
