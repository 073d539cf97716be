"""Batches on the devices, ahead of the step that wants them, and how long it waited for them."""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from tds_jax.budget import host
from tds_jax.config import Config
from tds_jax.data.pipeline import Loader
from tds_jax.engine import sharding
from tds_jax.engine.step import Batch
from tds_jax.sizes import MIB, format_bytes
from tds_jax.tasks import Task

# Two batches: one in use, one arriving. More would only cost device memory.
DEVICE_PREFETCH = 2

# Less than this on the host, and reading gives way before the system kills the run.
HOST_RESERVE = 256 * MIB
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 9.0


class Feed:
    """Training batches of one run.

    waited: seconds in which the devices had nothing to do but wait for a batch, at most: when a
    step ends while its successor's batch is being fetched, the whole fetch counts.

    They are iterated once; the Feed remembers how many have been handed out, so that its workers
    can be stopped and started again in between.
    """

    def __init__(self, task: Task, config: Config, mesh: Mesh) -> None:
        self.waited = 0.0
        self._task, self._config, self._mesh = task, config, mesh
        self._train = self._loader()
        self._source: Any = None
        self._position = 0
        self._next_look = 0.0

    def _loader(self) -> Loader:
        data = self._config.data
        return Loader(
            self._task.source("train"),
            micro_batch=self._config.examples_per_call // jax.process_count(),
            seed=self._config.seed,
            train=True,
            workers=data.workers,
            threads=data.threads,
            prefetch=data.prefetch,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def train(self, position: int, busy: Callable[[], bool]) -> Iterator[Batch]:
        """Endless batches of one call each on the devices, from the given number of examples on.

        A call that an interruption has cut is repeated whole. busy: whether the devices are at
        work, so that fetching costs no time.
        """
        many = self._config.micro_batches_per_call
        self._position = position - position % self._config.examples_per_call
        ahead: collections.deque[Batch] = collections.deque()
        while True:
            started = time.perf_counter()
            if self._source is None:
                ahead.clear()
                self._source = self._train.train_batches(self._position)
            while len(ahead) < DEVICE_PREFETCH:
                ahead.append(sharding.put_batch(next(self._source), self._mesh, many))
            if not busy():
                self.waited += time.perf_counter() - started
            self._position += self._config.examples_per_call
            yield ahead.popleft()

    def relieve(self) -> str | None:
        """Reads with fewer processes and fewer batches ahead when the host is short of memory.

        Looks at most once a second; what was just given up shows after a while. The batches stay
        the same. Returns words for the log when something was given up.
        """
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + LOOK_SECONDS
        free = host.available()
        data = host.smaller(self._config.data) if free < HOST_RESERVE else None
        if data is None:
            return None
        self.release_workers()
        self._config = dataclasses.replace(self._config, data=data)
        self._train = self._loader()
        self._next_look += SETTLE_SECONDS
        return (
            f"the host has {format_bytes(free)} left; reading on with data.workers={data.workers}, "
            f"data.prefetch={data.prefetch}"
        )

    def release_workers(self) -> None:
        """Stops the training workers; the next training batch starts them again."""
        self._train.close()
        self._source = None

    def close(self) -> None:
        """Stops all workers."""
        self.release_workers()
