"""What a run does when a device runs out of memory all the same: less at once, the same updates."""

import gc
from collections.abc import Callable
from typing import TypeVar

import jax

from tds_jax import config as configuration
from tds_jax.budget.memory import Exhausted
from tds_jax.config import Config
from tds_jax.engine import processes
from tds_jax.errors import UserError

T = TypeVar("T")


def give_way(config: Config, setting: str) -> Config:
    """The config with less on the device at once, after memory ran out there.

    setting: 'optim.accumulate' (the micro-batch becomes its largest proper divisor that all devices
    can share) or 'eval.batch_size' (half as many on each). Raises UserError when nothing is left to
    give.
    """
    devices = jax.device_count()
    on_each = -(-config.eval.batch_size // devices)  # a batch is filled up for all devices
    if setting == "eval.batch_size" and on_each > 1:
        return configuration.replace(config, {setting: on_each // 2 * devices})
    size = config.optim.micro_batch
    smaller = [n for n in range(devices, size // 2 + 1, devices) if size % n == 0]
    if setting == "eval.batch_size" or not smaller:
        raise UserError(
            f"the device ran out of memory with one example at a time ({setting}="
            f"{configuration.value(config, setting)}); python -m tds_jax.plan shows what would fit"
        )
    return configuration.replace(config, {setting: config.optim.batch_size // smaller[-1]})


def within_memory(
    work: Callable[[Config], T], config: Config, remember: Callable[[Config], None]
) -> tuple[T, Config]:
    """work(config), tried again with less at once each time the device runs out of memory.

    Training goes on from its last checkpoint; a smaller micro-batch with more accumulation gives
    the same updates, except where BatchNorm sees it. remember(config) is called before each
    further try.
    """
    while True:
        try:
            return work(config), config
        except Exhausted as error:
            setting = error.setting
        smaller = configuration.value(give_way(config, setting), setting)
        processes.assemble(
            f"process {processes.index()} alone ran out of device memory; the same command goes on "
            f"with --config.{setting}={smaller}"
        )
        # Only now, outside `except`, are the arrays of the failed try free.
        gc.collect()
        config = give_way(config, setting)
        remember(config)
        value = configuration.value(config, setting)
        print(f"the device ran out of memory; going on with {setting}={value}", flush=True)
