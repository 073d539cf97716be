"""Batches from a random-access source: shuffled, resumable at any example, read by workers."""

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from grain.experimental import index_shuffle

from tds_jax.data import seeds
from tds_jax.data.workers import live_as_long_as_parent
from tds_jax.errors import UserError

Example = dict[str, np.ndarray]

MOST = np.iinfo(np.int32).max  # of the leaf `example`


class Source(Protocol):
    """Random access to examples: picklable, opens files on first use, never touches jax."""

    def __len__(self) -> int: ...

    def example(self, index: int, rng: np.random.Generator | None) -> Example:
        """Example `index`, a dict of numpy arrays of fixed shapes with a leaf `weight`.

        rng drives augmentation and jitter; None asks for the example as it is.
        """


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that reads whole micro-batches faster than example by example."""

    def examples(
        self, indices: Sequence[int], rngs: Sequence[np.random.Generator] | None
    ) -> Example:
        """`example` of each index and generator, leaves stacked along a leading axis."""


def read_together(
    source: Source, indices: Sequence[int], rngs: Sequence[np.random.Generator] | None
) -> Example:
    """Examples of these indices as a batch, each read straight to its place or copied there once.

    They are asked for in rising order, so that neighbours in a file follow each other.
    """
    if isinstance(source, BatchSource):
        return source.examples(indices, rngs)
    batch: Example = {}
    for place in np.argsort(indices, kind="stable").tolist():
        example = source.example(indices[place], None if rngs is None else rngs[place])
        kinds = {name: (np.shape(leaf), np.asarray(leaf).dtype) for name, leaf in example.items()}
        if not batch:
            whole = len(indices)
            batch = {name: np.empty((whole, *shape), kind) for name, (shape, kind) in kinds.items()}
        if kinds != {name: (leaf.shape[1:], leaf.dtype) for name, leaf in batch.items()}:
            raise ValueError(f"{source!r}: example {indices[place]} has other leaves than others")
        for name, leaf in example.items():
            batch[name][place] = leaf
    return batch


_KILLED = re.compile(r"Worker process was terminated unexpectedly with exit code (-\d+)")


class WorkerError(UserError):
    """A data worker has been killed; what it had not read yet can be read again."""


class Batches:
    """An iterator over batches that owns threads and worker processes until it is closed."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self.closed = False

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Example:
        try:
            return next(self._iterator)
        except StopIteration:
            self.close()
            raise
        except RuntimeError as error:
            if not (code := _KILLED.search(str(error))):
                raise
            raise WorkerError(
                f"a data worker has been killed (exit status {code[1]}), maybe for lack of memory; "
                "give the same command again, with --config.data.workers=0 if it happens again"
            ) from error

    def close(self) -> None:
        """Stops threads and workers; the iterator must not be used afterwards."""
        if not self.closed:
            self.closed = True
            self._iterator.close()


class Loader:
    """Batches of `source` for one process of a run.

    micro_batch: examples per batch on this process; a global batch has process_count times that.
    workers: processes that load batches (0: none; each costs a start of seconds and its own
    memory). threads: threads per worker, or of this process without workers, that load batches
    (0: load when asked). prefetch: batches each worker, or this process, keeps ready.
    Which examples a batch holds, and every random number in them, depend on seed and position
    only: not on workers, threads, prefetch, process_count or on where an earlier run stopped.

    Beside the source's leaves every batch has `example` (B,) int32, the index in the source, and
    `key` (B, 2) uint32, random key data of (seed, epoch, index).
    """

    def __init__(
        self,
        source: Source,
        *,
        micro_batch: int,
        seed: int,
        train: bool,
        workers: int,
        threads: int,
        prefetch: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        if not len(source):
            raise UserError(f"{source!r} is empty; there is nothing to load")
        if len(source) > MOST:
            raise UserError(
                f"{source!r} has {len(source)} examples, more than the {MOST} whose numbers fit a "
                "batch; use a longer data.stride, or fewer files"
            )
        _require("optim.micro_batch", micro_batch, 1)
        _require("data.workers", workers, 0)
        _require("data.threads", threads, 0)
        _require("data.prefetch", prefetch, 1)
        if not 0 <= seed < 2**32:
            raise UserError(f"seed={seed} must be between 0 and {2**32 - 1}")
        self._source = source
        self._micro_batch = micro_batch
        self._seed = seed
        self._train = train
        self._workers = workers
        self._threads = threads
        self._prefetch = prefetch
        self._process = process_index, process_count
        self._open: list[Batches] = []

    def train_batches(self, start_example: int) -> Batches:
        """Endless batches; every example once per epoch, in a new order each epoch.

        start_example: global examples consumed so far, by all processes; any number. Batches run
        over the end of an epoch, so that none is short.
        """
        order = Order(len(self._source), self._seed)
        load = _LoadTrain(self._source, order, self._seed, self._train)
        index, count = self._process
        positions = _Positions(start_example + index, count, self._micro_batch, count)
        return self._batches(load, positions, sys.maxsize - start_example)

    def eval_batches(self) -> Batches:
        """Batches in source order, once; the last ones are padded to micro_batch.

        Padding repeats the last example with weight 0 and example -1, so that every batch of every
        process has one shape and all processes have as many; one after the other, by number, their
        batches are that of one process.
        """
        whole = self._micro_batch * self._process[1]
        padded = -(-len(self._source) // whole) * whole
        index, count = self._process
        positions = _Positions(index * self._micro_batch, count, self._micro_batch, 1)
        return self._batches(_LoadEval(self._source, self._seed), positions, padded)

    def close(self) -> None:
        """Stops the threads and workers of every iterator this loader has made."""
        while self._open:
            self._open.pop().close()

    def _batches(
        self, load: Callable[[range], Example], positions: "_Positions", examples: int
    ) -> Batches:
        """load: from the positions of a micro-batch to the batch; examples: of all processes."""
        if not flags.FLAGS.is_parsed():  # grain reads absl flags; a notebook has parsed none
            flags.FLAGS.mark_as_parsed()
        read = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._prefetch)
        # Nothing is dropped: training never ends and evaluation is padded.
        whole = grain.MapDataset.range(examples // (self._micro_batch * self._process[1]))
        batches = whole.map(positions).map(load).to_iter_dataset(read)
        if self._workers:
            options = grain.MultiprocessingOptions(
                num_workers=self._workers, per_worker_buffer_size=self._prefetch
            )
            batches = batches.mp_prefetch(options, worker_init_fn=live_as_long_as_parent)
        made = Batches(iter(batches))
        self._open = [*(old for old in self._open if not old.closed), made]
        return made


@dataclasses.dataclass(frozen=True)
class _Positions:
    """Positions in a run's order of the examples of a process's n-th micro-batch.

    step: from one to the next. They count from the run's beginning, wherever it is continued: their
    epoch does not depend on that.
    """

    first: int
    processes: int
    micro_batch: int
    step: int

    def __call__(self, number: int) -> range:
        first = self.first + number * self.processes * self.micro_batch
        return range(first, first + self.step * self.micro_batch, self.step)


class Order:
    """Examples of an endless run by position: each once per epoch, in another order every time.

    That of grain's `MapDataset.range(count).seed(seed).shuffle().repeat()`, without its four calls
    of Python for each example.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = int(seeds.words(1, *map(np.atleast_1d, (seed, 1)))[0, 0])  # 1: as grain counts

    def __call__(self, position: int) -> int:
        epoch, inside = divmod(position, self._count)
        seed = (self._seed + epoch) % 2**32
        return index_shuffle(inside, max_index=self._count - 1, seed=seed, rounds=4)


@dataclasses.dataclass(frozen=True)
class _LoadTrain:
    source: Source
    order: Order
    seed: int
    augment: bool

    def __call__(self, positions: range) -> Example:
        indices = [self.order(position) for position in positions]
        of = self.seed, np.array(positions) // len(self.source), np.array(indices)
        rngs, keys = seeds.generators_and_keys(*of) if self.augment else (None, seeds.keys(*of))
        return _labelled(read_together(self.source, indices, rngs), indices, keys)


@dataclasses.dataclass(frozen=True)
class _LoadEval:
    source: Source
    seed: int

    def __call__(self, positions: range) -> Example:
        last = len(self.source) - 1
        indices = [min(position, last) for position in positions]
        batch = read_together(self.source, indices, None)
        batch = _labelled(batch, indices, seeds.keys(self.seed, 0, np.array(indices)))
        padding = np.asarray(positions) > last
        batch["weight"][padding] = 0
        batch["example"][padding] = -1
        return batch


def _labelled(batch: Example, indices: Sequence[int], keys: np.ndarray) -> Example:
    return {**batch, "example": np.array(indices, np.int32), "key": keys}


def _require(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name}={value} must be at least {least}")
