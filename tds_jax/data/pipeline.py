"""Batches from a random-access source: shuffled, resumable at any example, read by workers."""

import dataclasses
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

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
        index, count = self._process
        order = grain.MapDataset.range(len(self._source)).seed(self._seed).shuffle().repeat()
        load = _LoadTrain(self._source, self._seed, self._train)
        # Positions are numbered before slicing: the epoch must not depend on where a run starts.
        return self._batches(order.map_with_index(load)[start_example + index :: count])

    def eval_batches(self) -> Batches:
        """Batches in source order, once; the last ones are padded to micro_batch.

        Padding repeats the last example with weight 0 and example -1, so that every batch of every
        process has one shape and all processes have as many.
        """
        index, count = self._process
        whole = self._micro_batch * count
        padded = -(-len(self._source) // whole) * whole
        order = grain.MapDataset.range(padded)[index::count]
        return self._batches(order.map(_LoadEval(self._source, self._seed)))

    def close(self) -> None:
        """Stops the threads and workers of every iterator this loader has made."""
        while self._open:
            self._open.pop().close()

    def _batches(self, examples: grain.MapDataset) -> Batches:
        if not flags.FLAGS.is_parsed():  # grain reads absl flags; a notebook has parsed none
            flags.FLAGS.mark_as_parsed()
        read = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._prefetch)
        # Nothing is dropped: training never ends and evaluation is padded.
        whole = examples.batch(self._micro_batch, drop_remainder=True)
        batches = whole.to_iter_dataset(read)
        if self._workers:
            options = grain.MultiprocessingOptions(
                num_workers=self._workers, per_worker_buffer_size=self._prefetch
            )
            batches = batches.mp_prefetch(options, worker_init_fn=live_as_long_as_parent)
        made = Batches(iter(batches))
        self._open = [*(old for old in self._open if not old.closed), made]
        return made


@dataclasses.dataclass(frozen=True)
class _LoadTrain:
    source: Source
    seed: int
    augment: bool

    def __call__(self, position: int, index: int) -> Example:
        epoch = position // len(self.source)
        rng = np.random.default_rng((self.seed, epoch, index)) if self.augment else None
        return _labelled(self.source.example(index, rng), self.seed, epoch, index)


@dataclasses.dataclass(frozen=True)
class _LoadEval:
    source: Source
    seed: int

    def __call__(self, position: int) -> Example:
        index = min(position, len(self.source) - 1)
        example = _labelled(self.source.example(index, None), self.seed, 0, index)
        if position > index:
            example["weight"] = np.zeros_like(example["weight"])
            example["example"] = np.asarray(-1, np.int32)
        return example


def _labelled(example: Example, seed: int, epoch: int, index: int) -> Example:
    # The trailing 1 keeps these words apart from the generator's of the same example.
    key = key_data(seed, epoch, index, 1)
    return {**example, "example": np.asarray(index, np.int32), "key": key}


def key_data(*of: int) -> np.ndarray:
    """(2,) uint32 of a random key, which depends on these numbers alone."""
    return np.random.SeedSequence(of).generate_state(2, np.uint32)


def _require(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name}={value} must be at least {least}")
