"""The two ways a run ends before its last step: no improvement, or a signal."""

import contextlib
import dataclasses
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ClassVar, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 3.0  # s that native code (a compiler, say) may keep a signal waiting
AGAIN = 0.01  # s until a signal comes again whose StopError Python has dropped
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it: `train && predict` ends there
GOES_ON = "stopped; what was saved stays, and the same command goes on"


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Counts evaluations without improvement of a score that should fall.

    best: lowest score so far that improved by more than min_delta; bad: evaluations since; last:
    the latest score. patience 0 never stops.
    """

    min_delta: float
    patience: int
    best: float = math.inf
    bad: int = 0
    last: float = math.inf

    def observe(self, score: float) -> "EarlyStopping":
        """The counters after one more evaluation; a score that is NaN is no improvement."""
        if score < self.best - self.min_delta:
            return dataclasses.replace(self, best=score, bad=0, last=score)
        return dataclasses.replace(self, bad=self.bad + 1, last=score)

    @property
    def stop(self) -> bool:
        """True when patience has run out."""
        return 0 < self.patience <= self.bad


class StopError(BaseException):
    """A signal has ended work that leaves nothing to save; like KeyboardInterrupt, no Exception.

    Its text is the signal's name.
    """


class StopSignal:
    """True once SIGTERM or Ctrl-C arrived, which is said at once; a second Ctrl-C interrupts.

    A context. received: the signal's name, '' before. leaving: told that name before a process ends
    that native code kept from ending otherwise. after_sigterm: the status it then ends with.
    meanwhile: what is done before all ends, for the line that says so.
    """

    _open: ClassVar[list["StopSignal"]] = []  # the contexts that a signal of now goes to

    def __init__(
        self,
        leaving: Callable[[str], None] = lambda name: None,
        after_sigterm: int = 0,
        meanwhile: str = "",
    ) -> None:
        self.received = ""
        self.leaving = leaving
        self._meanwhile = meanwhile
        self._statuses = {signal.SIGTERM: after_sigterm, signal.SIGINT: INTERRUPTED}
        self._said = False
        self._finish: Callable[[], None] | None = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = signal.Signals(number).name
        if self._finish:
            raise StopError(self.received)

    def _dropped(self, lost: "sys.UnraisableHookArgs") -> None:
        """What is raised in a finalizer, a weak reference's or a garbage collector's callback (JAX
        has one) goes no further: Python tells of it here, and the signal comes once more."""
        if not issubclass(lost.exc_type, StopError):
            self._old_hook(lost)
            return
        number, self.received = signal.Signals[self.received], ""
        threading.Timer(AGAIN, self._come_again, (number,)).start()

    def _come_again(self, number: signal.Signals) -> None:
        if self._open and self._open[-1] is self and not self.received:
            os.kill(os.getpid(), number)

    @classmethod
    def tell(cls, name: str) -> None:
        """As if this process had got the signal that another process got; once is enough."""
        if cls._open and not cls._open[-1].received:
            os.kill(os.getpid(), signal.Signals[name])

    def hear(self, name: str) -> None:
        """Of a signal that another process got, where that has been agreed on."""
        if not self.received:
            self.received = name
            self._acknowledge(signal.Signals[name])

    @contextlib.contextmanager
    def raising(self, finish: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Inside, a signal raises StopError at once; so does entering after one.

        Native code is not interrupted: after GRACE seconds in it finish() is called in another
        thread, and the process ends.
        """
        if self.received:
            raise StopError(self.received)
        before, self._finish = self._finish, finish
        try:
            yield
        finally:
            self._finish = before

    def _watch(self) -> None:
        """Python's own handlers wait for native code to return; the bytes of a pipe do not."""
        while number := os.read(self._pipe[0], 1):
            if number[0] not in SIGNALS:
                continue
            self._acknowledge(signal.Signals(number[0]))
            time.sleep(GRACE)
            if self._finish and not self.received:
                self._finish()
                self.leaving(signal.Signals(number[0]).name)
                print(GOES_ON, flush=True)
                sys.stderr.flush()
                os._exit(self._statuses[signal.Signals(number[0])])
        os.close(self._pipe[0])

    def _acknowledge(self, number: signal.Signals) -> None:
        if self._said:
            return
        self._said = True
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        with contextlib.suppress(OSError):  # nobody may be left to read it
            print(f"{name}: stopping{self._meanwhile}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self._old = {s: signal.signal(s, self._handle) for s in SIGNALS}
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._old_hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        self._old_fd = signal.set_wakeup_fd(self._pipe[1])
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="stop_signal")
        self._watcher.start()
        self._open.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.remove(self)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        sys.unraisablehook = self._old_hook
        os.close(self._pipe[1])  # the end of the pipe, and of its watcher

    def __bool__(self) -> bool:
        return bool(self.received)
