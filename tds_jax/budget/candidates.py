"""The ways to run a config that a plan chooses among: micro-batch x recomputation (x bfloat16).

The effective batch never changes.
"""

from typing import Any

from tds_jax import config as configuration
from tds_jax.budget.targets import Target
from tds_jax.config import Config

BFLOAT16 = "bfloat16"
Options = dict[str, tuple[Any, ...]]
"""`Task.memory_options`: settings of `memory` and their values, cheapest first."""


def candidates(config: Config, options: Options, target: Target) -> list[Config]:
    """Every split of the batch on every rung of the ladder, the config's own settings first."""
    return [
        configuration.replace(config, rung | {"optim.accumulate": accumulate})
        for rung in _ladder(config, options, target)
        for accumulate in _splits(config, target)
    ]


def _ladder(config: Config, options: Options, target: Target) -> list[dict[str, Any]]:
    """`memory` settings, each rung saving more at a higher price than the one before."""
    rung: dict[str, Any] = {}
    ladder = [rung]
    for name, values in options.items():
        if name == "remat" and target.on_host:
            continue  # XLA undoes it on CPU
        own = getattr(config.memory, name)
        for value in values[values.index(own) + 1 if own in values else 0 :]:
            rung = rung | {f"memory.{name}": value}
            ladder.append(rung)
    if config.memory.shard == "none" and target.mesh(config.optim.batch_size).size > 1:
        rung = rung | {"memory.shard": "fsdp"}
        ladder.append(rung)
    if config.memory.allow_bfloat16 and config.memory.dtype != BFLOAT16:
        ladder += [rung | {"memory.dtype": BFLOAT16} for rung in ladder]
    return ladder


def _splits(config: Config, target: Target) -> list[int]:
    """Values of accumulate that cut the batch into equal micro-batches for all devices."""
    batch = config.optim.batch_size
    devices = target.mesh(batch).size
    return [k for k in range(1, batch + 1) if batch % k == 0 and batch // k % devices == 0]
