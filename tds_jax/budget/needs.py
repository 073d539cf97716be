"""What a config needs on a target: its real steps compiled on shapes alone, nothing allocated.

Bytes are affine in the micro-batch: two compiled sizes give the others.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tds_jax.budget import cost, heap, host, launches, memory
from tds_jax.budget.host import HostBytes
from tds_jax.budget.memory import DeviceBytes
from tds_jax.budget.plan import Row, describe
from tds_jax.budget.targets import Target
from tds_jax.config import Config, MemoryConfig
from tds_jax.engine.blueprint import Blueprint, StateBytes
from tds_jax.engine.feed import DEVICE_PREFETCH

Build = Callable[[Config], Blueprint]
Say = Callable[[str], None]


class Overhead(NamedTuple):
    """Host bytes of this process without any program, what compiling one adds at its peak, and
    what of that the program keeps."""

    runtime: int
    compiling: int
    kept: int


class Compiled(NamedTuple):
    """What a compiled program needs, and the kernels that a card starts for one run of it."""

    bytes: DeviceBytes
    launches: int


class Needs:
    """Bytes and seconds of configs on one target; remembers what it has compiled.

    build: remembers the blueprint of a config.
    """

    def __init__(self, build: Build, target: Target, say: Say) -> None:
        self._build, self._target, self._say = build, target, say
        self._rows: dict[Config, Row] = {}
        self._seconds: dict[Config, float] = {}
        self._evaluations: dict[tuple[MemoryConfig, int], DeviceBytes | None] = {}
        heap.trim()
        self.overhead = Overhead(memory.host_bytes(), 0, 0)

    def measure(self, config: Config) -> Row:
        """The training step, compiled."""
        if config not in self._rows:
            seconds, (_, batch) = self.estimate(config), self._arguments(config)
            self._say(f"compiling {describe(config)}")
            found = self._compile(self._trace(config))
            origin = "compiled" if found else "refused"
            refused = Compiled(DeviceBytes(0, 0, temporaries=self._target.limit, scratch=0), 0)
            step, kernels = found or refused
            self._rows[config] = Row(config, step, batch, seconds, origin, kernels)
        return self._rows[config]

    def _compile(self, traced: jax.stages.Traced) -> Compiled | None:
        """What it needs, None if it was refused; remembers what compiling took of the host."""
        before, known = memory.host_bytes(), self.overhead
        with memory.HostMeter(seconds=0.1) as meter:
            need = compiled(traced)
        heap.trim()
        self.overhead = Overhead(
            runtime=known.runtime,
            compiling=max(known.compiling, meter.peak - before),
            kept=max(known.kept, memory.host_bytes() - before),
        )
        return need

    def _trace(self, config: Config) -> jax.stages.Traced:
        return self._build(config).trace_step(self._target.mesh(config.optim.micro_batch))

    def _arguments(self, config: Config) -> tuple[int, int]:
        """Bytes of the state and of a call's batch on one device."""
        blueprint, mesh = self._build(config), self._target.mesh(config.optim.micro_batch)
        return self.state(config).held, tree_bytes(blueprint.call_spec) // mesh.size

    def state(self, config: Config) -> StateBytes:
        """What one device holds between steps."""
        return self._build(config).state_bytes(self._target.mesh(config.optim.micro_batch))

    def parameters(self, config: Config) -> int:
        """How many there are."""
        return sum(p.size for p in jax.tree.leaves(self._build(config).shapes.params))

    def estimate(self, config: Config) -> float:
        """Seconds per update from the traced operations; only ratios mean anything."""
        if config not in self._seconds:
            speed, mesh = self._target.speed, self._target.mesh(config.optim.micro_batch)
            work = cost.seconds(self._trace(config).jaxpr.jaxpr, speed) / mesh.size
            # The optimizer reads and writes the whole state at every call.
            passes = 2 * self._arguments(config)[0] / speed.bandwidth
            # Parts of parameters are fetched for each pass, forward and backward.
            fetched = 2 * self.state(config).fetched * config.micro_batches_per_call / speed.link
            self._seconds[config] = config.calls_per_update * (work + passes + fetched)
        return self._seconds[config]

    def expect(self, config: Config) -> Row | None:
        """The config's row if it was compiled, or lies on a line of two that were."""
        if config in self._rows:
            return self._rows[config]
        size = config.optim.micro_batch
        family = sorted(
            (
                row
                for row in self._rows.values()
                if row.config.memory == config.memory and row.origin == "compiled"
            ),
            key=lambda row: abs(row.config.optim.micro_batch - size),
        )
        if len(family) < 2:
            return None
        state, batch = self._arguments(config)
        step = DeviceBytes(
            arguments=state + batch,
            outputs=_on_line(size, family, lambda row: row.step.outputs),
            temporaries=_on_line(size, family, lambda row: row.step.temporaries),
            scratch=_on_line(size, family, lambda row: row.step.scratch),
        )
        return Row(config, step, batch, self.estimate(config), "line", family[0].kernels)

    def evaluation(self, row: Row, config: Config) -> int:
        """Device peak of evaluating with the state and waiting batches of `row`."""
        # Chunks of a task make evaluations smaller, too; what is kept to go backward does not.
        key = (dataclasses.replace(config.memory, remat="none"), config.eval.batch_size)
        blueprint, mesh = self._build(config), self._target.mesh(config.optim.micro_batch)
        if key not in self._evaluations:
            self._say(f"compiling evaluation at batch {config.eval.batch_size}")
            evaluation = self._compile(blueprint.trace_evaluation(mesh))
            self._evaluations[key] = evaluation.bytes if evaluation else None
        if (need := self._evaluations[key]) is None:
            return self._target.limit
        batch = tree_bytes(blueprint.eval_spec(mesh)) // mesh.size
        held = row.state + self.state(config).fetched + DEVICE_PREFETCH * row.batch
        return evaluating(need, held, batch)

    def host(self, row: Row, config: Config, device: int) -> HostBytes:
        """Host bytes of a run with this row, its device's share included where that is the host."""
        return host.predict(
            config.data,
            batch=row.batch * self._target.mesh(config.optim.micro_batch).size,
            device=device if self._target.on_host else 0,
            runtime=self.overhead.runtime + self.overhead.kept,
            compiling=self.overhead.compiling - self.overhead.kept,
        )


def evaluating(need: DeviceBytes, held: int, batch: int) -> int:
    """Device peak of evaluating: its program beside what is held meanwhile, and two batches."""
    return held + need.temporaries + need.scratch + need.outputs + 2 * batch


def compiled(traced: jax.stages.Traced) -> Compiled | None:
    """The account of a step that is compiled here; None where its compiler refuses."""
    try:
        program = traced.lower().compile()
        return Compiled(memory.predict(program), launches.launches(program.as_text() or ""))
    except jax.errors.JaxRuntimeError as error:
        if not memory.exhausted(error):
            raise
        return None  # the TPU's compiler refuses what does not fit


def _on_line(size: int, family: list[Row], value: Callable[[Row], int]) -> int:
    """The value at a micro-batch of `size` on the line through the two rows nearest to it."""
    (x, a), (y, b) = ((row.config.optim.micro_batch, value(row)) for row in family[:2])
    return max(0, round(a + (size - x) / (y - x) * (b - a)))


def tree_bytes(tree: Any) -> int:
    """Of all its arrays, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
