"""A trace of a few updates, for xprof or Perfetto: `log.profile`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

FOLDER = "profile"
UPDATE = "update"  # the name of a traced update, its number beside it
QUIET = 0  # levels of Python's own calls: thousands a step, which hide the rest


class Profile:
    """Traces so many updates of this start, after its first one, into workdir/profile.

    The first takes memory, and compiles what is small. updates: 0 for none. calls: of the compiled
    step that make an update. wait: returns when the devices have done all calls.
    """

    def __init__(self, workdir: Path, updates: int, calls: int, wait: Callable[[], None]) -> None:
        self._folder, self._calls, self._wait = workdir / FOLDER, calls, wait
        self._done, self._first, self._end = 0, calls, (1 + updates) * calls * bool(updates)
        self._tracing = False

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around reading a batch and the call of the step that takes it."""
        if self._done >= self._end:
            yield
            return
        if self._done == self._first:
            self._start()
        with jax.profiler.StepTraceAnnotation(UPDATE, step_num=self._done // self._calls):
            yield
        self._done += 1
        if self._done == self._end:
            self.close()

    def _start(self) -> None:
        self._wait()
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = QUIET
        jax.profiler.start_trace(str(self._folder), profiler_options=options)
        self._tracing = True

    def close(self) -> None:
        """Writes what has been traced, if tracing goes on."""
        if self._tracing:
            self._tracing = False
            self._wait()
            jax.profiler.stop_trace()
