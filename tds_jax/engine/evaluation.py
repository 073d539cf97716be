"""The one loop over a split: read ahead, padded to one shape, shared by all devices.

Baselines go through the same loop: whoever is handed a batch and the model's outputs scores both.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from tds_jax.config import Config
from tds_jax.data.pipeline import Example, Loader, Source
from tds_jax.engine import processes, sharding
from tds_jax.engine.step import Batch, compiled

Scored = tuple[Mapping[str, np.ndarray], Any]
"""A batch and what was made of it, both on the host. Padding has weight 0 and example -1."""


def over(
    source: Source,
    run: Callable[[Batch], Any],
    config: Config,
    mesh: Mesh,
    with_batch: bool = True,
) -> Iterator[Scored]:
    """(batch, run(batch)) for every batch of a source, in its order.

    run: compiled. Processes read and run a part of each batch, and get the whole, but its leaves
    only `with_batch`. While the devices work on a batch the caller has the one before; no more than
    one is on them, so that memory is what a plan says.
    """
    loader = Loader(
        source,
        micro_batch=sharding.rounded_up(config.eval.batch_size, mesh) // jax.process_count(),
        seed=config.seed,
        train=False,
        workers=0,  # starting them takes longer than reading a split in threads
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    done: list[Scored] = []
    with contextlib.closing(loader):
        for batch in loader.eval_batches():
            placed = sharding.put_batch(batch, mesh)
            outputs = run(placed)
            yield from done
            done = [_whole(batch, placed if with_batch else {}, outputs, mesh)]
        yield from done


def _whole(batch: Example, placed: Batch, outputs: Any, mesh: Mesh) -> Scored:
    """All rows of a batch and its outputs on this host."""
    if not processes.several():
        return batch, jax.device_get(outputs)
    return jax.device_get(sharding.everywhere((placed, outputs), mesh))


class Evaluator:
    """A function of a model over whole sources, compiled once per shape of a batch.

    run: (model, batch) -> outputs, any tree of arrays.
    """

    def __init__(self, model: nnx.Module, run: Callable[[Any, Batch], Any], config: Config) -> None:
        self._config, self._mesh = config, sharding.all_devices()
        everywhere = jax.device_put(model, sharding.replicated(self._mesh))
        self._run = compiled(everywhere, run)

    def over(self, source: Source) -> Iterator[Scored]:
        """Every batch of a source beside its outputs, see `over`."""
        return over(source, self._run, self._config, self._mesh)
