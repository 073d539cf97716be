"""What a budget's question is answered with: ways to run a config, and the one chosen."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tds_jax import config as configuration
from tds_jax.budget.host import HostBytes
from tds_jax.budget.memory import DeviceBytes
from tds_jax.budget.targets import Target
from tds_jax.config import Config
from tds_jax.engine.blueprint import StateBytes
from tds_jax.engine.feed import DEVICE_PREFETCH


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to run a config.

    step: bytes of its training step; origin: 'compiled', 'line' (through two that were), or
    'refused' by a compiler that does not say how much would be needed. batch: bytes of
    what one call takes. seconds: estimated, per update. kernels: that a card starts for one call.
    """

    config: Config
    step: DeviceBytes
    batch: int
    seconds: float
    origin: str
    kernels: int

    @property
    def launches(self) -> int:
        """Kernels that a card starts for one update."""
        return self.kernels * self.config.calls_per_update

    @property
    def state(self) -> int:
        """Parameters, optimizer, accumulator and statistics: what stays between steps."""
        return self.step.arguments - self.batch

    @property
    def training(self) -> int:
        """Device peak while training: the step, and batches that wait for theirs."""
        return self.step.total + DEVICE_PREFETCH * self.batch


@dataclasses.dataclass(frozen=True)
class Plan:
    """The answer for one budget.

    asked, config: the config given, and the one to run with. chosen: its training step.
    evaluation: device peak while evaluating. host: of the config; host_of: of any row. state_of:
    what one device holds between steps of any row. devices: how many.
    parameters: how many. rows: everything looked at. unseen: one config of each kind that was not,
    being dearer than what fits. baseline: seconds of the config given.
    """

    target: Target
    asked: Config
    budget: int
    host_budget: int | None
    chosen: Row
    evaluation: int
    host: HostBytes
    host_of: Callable[[Row], HostBytes]
    state_of: Callable[[Row], StateBytes]
    devices: int
    parameters: int
    rows: tuple[Row, ...]
    unseen: tuple[Config, ...]
    baseline: float
    config: Config

    @property
    def device_peak(self) -> int:
        """The larger of training's and evaluation's."""
        return max(self.chosen.training, self.evaluation)


def recomputation(config: Config) -> dict[str, Any]:
    """What a config's `memory` says of keeping less, by the names that plans show."""
    shown = configuration.marked(config, "shown")
    return {name.split(".")[1]: configuration.value(config, name) for name in shown}


def describe(config: Config) -> str:
    """'micro-batch 16 x 4, float32, remat none'."""
    others = recomputation(config)
    words = ", ".join([others.pop("dtype"), *(f"{name} {value}" for name, value in others.items())])
    split = ", fsdp" * (config.memory.shard == "fsdp")
    return f"micro-batch {config.optim.micro_batch} x {config.optim.accumulate}, {words}{split}"
