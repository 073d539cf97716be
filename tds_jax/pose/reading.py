"""How fast recordings are read, by the way in which they are stored."""

import collections
import time

import numpy as np

from tds_jax.data.hdf5 import Header
from tds_jax.data.session_files import SessionFiles

# Rows a second, of 2000 Hz and 16 channels: a card trained on 620 windows of 2000 rows a second and
# waited half its time for them.
WANTED = 2_600_000
LEAST_ROWS = 65_536  # fewer say nothing of a speed
WINDOW = 2000  # rows, to say a speed in


class TimedFiles(SessionFiles):
    """`SessionFiles` that remember how long a core took for rows that are not stored plainly."""

    def __init__(self) -> None:
        super().__init__(max_open_files=1, chunk_cache_bytes=4 * 2**20, chunk_cache_preemption=1.0)
        self._storage = ""
        self._counted: collections.Counter[str] = collections.Counter()
        self._spent: collections.defaultdict[str, float] = collections.defaultdict(float)

    def header(self, path: str, group: str, dataset: str) -> Header:
        """As `SessionFiles.header`; rows that are read next are stored so."""
        header = super().header(path, group, dataset)
        self._storage = header.storage
        return header

    def raw(self, path: str, group: str, dataset: str, start: int, stop: int) -> np.ndarray:
        """As `RowFiles.raw`, timed."""
        started = time.process_time()
        rows = super().raw(path, group, dataset, start, stop)
        self._spent[self._storage] += time.process_time() - started
        self._counted[self._storage] += len(rows)
        return rows

    def slow(self) -> list[str]:
        """A line for each way of storing that a card would wait for."""
        return [
            f"{storage}: one core reads {speed:,.0f} rows a second ({speed / WINDOW:,.0f} windows "
            f"of {WINDOW}), a card may want {WANTED:,}; python -m tds_jax.prepare writes them "
            "uncompressed"
            for storage, rows in self._counted.items()
            if storage != "contiguous"
            and rows >= LEAST_ROWS
            and (speed := rows / max(self._spent[storage], 1e-9)) < WANTED
        ]
