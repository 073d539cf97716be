"""The two ways a run ends before its last step: no improvement, or a signal."""

import dataclasses
import math
import signal
from types import FrameType
from typing import Self


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


class StopSignal:
    """True once SIGTERM or Ctrl-C arrived; a second Ctrl-C interrupts at once. A context."""

    def __init__(self) -> None:
        self.received = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True

    def __enter__(self) -> Self:
        self._old = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.received
