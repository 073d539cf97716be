"""Days that are read from files once and kept, where all of a record fits in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tds_jax.data.grid_record import WHOLE, Region

Read = Callable[[int, int, Sequence[str], Region], np.ndarray]
"""(start, stop, names, region) -> (n, h, w, C) f32 of days[start:stop], NaN where missing."""


class KeptDays:
    """What `read` gives, in memory from the first time a day is asked for.

    A window of days costs milliseconds in the libraries that read it, for each variable, and the
    next one holds nearly the same days. Days are kept whole, all variables of a cell side by side:
    4 bytes of each, allocated at once but taken from the system as they are filled. Threads may
    read the same days twice, and keep the same. A copy in another process begins empty.
    """

    def __init__(self, read: Read, shape: tuple[int, int, int], variables: Sequence[str]) -> None:
        self._read, self._shape, self._variables = read, shape, tuple(variables)
        self._days = np.empty((*shape, len(self._variables)), np.float32)
        self._there = np.zeros((len(self._variables), shape[0]), bool)

    @staticmethod
    def size(shape: tuple[int, int, int], variables: Sequence[str]) -> int:
        """Bytes of all days (N, H, W)."""
        return 4 * len(variables) * int(np.prod(shape, dtype=np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptDays, (self._read, self._shape, self._variables)

    def __call__(self, start: int, stop: int, names: Sequence[str], region: Region) -> np.ndarray:
        """(n, h, w, C) f32 of days[start:stop], the caller's own."""
        channels = [self._variables.index(name) for name in names]
        for channel in channels:
            self._fill(channel, start, stop)
        days = self._days[start:stop, region[0], region[1]]
        every = channels == list(range(len(self._variables)))
        return days.copy() if every else days[..., channels]

    def _fill(self, channel: int, start: int, stop: int) -> None:
        """Reads the days that are not there yet, neighbours together."""
        if self._there[channel, start:stop].all():
            return
        missing = start + np.flatnonzero(~self._there[channel, start:stop])
        for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1):
            first, end = int(run[0]), int(run[-1]) + 1
            found = self._read(first, end, (self._variables[channel],), WHOLE)
            self._days[first:end, ..., channel] = found[..., 0]
            self._there[channel, first:end] = True  # last: another thread reads what is there
