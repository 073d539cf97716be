"""Budget -> plan: what a run needs for each way of splitting its batch, and the cheapest that fits.

The effective batch never changes. Candidates are micro-batch x recomputation (x bfloat16, if
allowed). Each is the training step itself, compiled on shapes alone; nothing is allocated. Bytes
are affine in the micro-batch: two compiled sizes give the others, and the chosen one is confirmed
by compiling it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tds_jax import config as configuration
from tds_jax.budget import cost, heap, host, memory
from tds_jax.budget.host import HostBytes
from tds_jax.budget.memory import DeviceBytes
from tds_jax.budget.plan import Plan, Row, describe
from tds_jax.budget.targets import Target
from tds_jax.config import AUTO, Config, MemoryConfig
from tds_jax.engine import program, sharding
from tds_jax.engine.feed import DEVICE_PREFETCH
from tds_jax.errors import UserError
from tds_jax.sizes import MIB, format_bytes, parse_bytes
from tds_jax.tasks import Task

BFLOAT16 = "bfloat16"
Build = Callable[[Config], Task]
Say = Callable[[str], None]


class _Overhead(NamedTuple):
    """Host bytes of this process without any program, what compiling one adds at its peak, and
    what of that the program keeps."""

    runtime: int
    compiling: int
    kept: int


class Planner:
    """Compiles candidates of one config for one target and remembers what they need."""

    def __init__(self, build: Build, config: Config, target: Target, say: Say) -> None:
        self._build, self._config, self._target, self._say = build, config, target, say
        self._rows: dict[Config, Row] = {}
        self._seconds: dict[Config, float] = {}
        self._evaluations: dict[tuple[str, int], DeviceBytes | None] = {}
        heap.trim()
        self._overhead = _Overhead(memory.host_bytes(), 0, 0)
        self.parameters = 0

    def candidates(self) -> list[Config]:
        """Every split of the batch on every rung of the ladder, the config's own settings first."""
        return [
            configuration.replace(self._config, rung | {"optim.accumulate": accumulate})
            for rung in self._ladder()
            for accumulate in self._splits()
        ]

    def _ladder(self) -> list[dict[str, Any]]:
        """`memory` settings, each rung saving more at a higher price than the one before."""
        config = self._config
        rung: dict[str, Any] = {}
        ladder = [rung]
        for name, values in self._build(config).memory_options().items():
            if name == "remat" and self._target.on_host:
                continue  # XLA undoes it on CPU
            own = getattr(config.memory, name)
            for value in values[values.index(own) + 1 if own in values else 0 :]:
                rung = rung | {f"memory.{name}": value}
                ladder.append(rung)
        if config.memory.allow_bfloat16 and config.memory.dtype != BFLOAT16:
            ladder += [rung | {"memory.dtype": BFLOAT16} for rung in ladder]
        return ladder

    def _splits(self) -> list[int]:
        """Values of accumulate that cut the batch into equal micro-batches for all devices."""
        batch = self._config.optim.batch_size
        devices = self._target.mesh(batch).size
        return [k for k in range(1, batch + 1) if batch % k == 0 and batch // k % devices == 0]

    def measure(self, config: Config) -> Row:
        """The candidate's training step, compiled."""
        if config not in self._rows:
            seconds, (_, batch) = self.estimate(config), self._arguments(config)
            self._say(f"compiling {describe(config)}")
            step = self._compile(self._trace(config))
            origin = "compiled" if step else "refused"
            step = step or DeviceBytes(0, outputs=0, temporaries=self._target.limit, scratch=0)
            self._rows[config] = Row(config, step, batch, seconds, origin)
        return self._rows[config]

    def _compile(self, traced: jax.stages.Traced) -> DeviceBytes | None:
        """The bytes, None if it was refused; remembers what compiling took of the host."""
        before, known = memory.host_bytes(), self._overhead
        with memory.HostMeter(seconds=0.1) as meter:
            need = _compiled_bytes(traced)
        heap.trim()
        self._overhead = _Overhead(
            runtime=known.runtime,
            compiling=max(known.compiling, meter.peak - before),
            kept=max(known.kept, memory.host_bytes() - before),
        )
        return need

    def _trace(self, config: Config) -> jax.stages.Traced:
        mesh = self._target.mesh(config.optim.micro_batch)
        return program.trace_step(self._build(config), config, mesh)

    def _arguments(self, config: Config) -> tuple[int, int]:
        """Bytes of the state and of a micro-batch on one device."""
        task, mesh = self._build(config), self._target.mesh(config.optim.micro_batch)
        shapes = jax.eval_shape(program.make_init(task, config), jax.random.key(config.seed))
        self.parameters = sum(p.size for p in jax.tree.leaves(shapes.params))
        batch = _tree_bytes(task.batch_spec(config.optim.micro_batch)) // mesh.size
        return _tree_bytes(shapes), batch

    def estimate(self, config: Config) -> float:
        """Seconds per update from the traced operations; only ratios mean anything."""
        if config not in self._seconds:
            speed, mesh = self._target.speed, self._target.mesh(config.optim.micro_batch)
            work = cost.seconds(self._trace(config).jaxpr.jaxpr, speed) / mesh.size
            # The optimizer reads and writes the whole state at every micro-batch.
            passes = 2 * self._arguments(config)[0] / speed.bandwidth
            self._seconds[config] = config.optim.accumulate * (work + passes)
        return self._seconds[config]

    def expect(self, config: Config) -> Row | None:
        """The candidate's row if it was compiled, or lies on a line of two that were."""
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
        return Row(config, step, batch, self.estimate(config), "line")

    def evaluation(self, row: Row, config: Config) -> int:
        """Device peak of evaluating with the state and waiting batches of `row`."""
        key = (config.memory.dtype, config.eval.batch_size)
        mesh = self._target.mesh(config.optim.micro_batch)
        task = self._build(config)
        if key not in self._evaluations:
            self._say(f"compiling evaluation at batch {config.eval.batch_size}")
            self._evaluations[key] = self._compile(program.trace_evaluation(task, config, mesh))
        if (need := self._evaluations[key]) is None:
            return self._target.limit
        size = sharding.rounded_up(config.eval.batch_size, mesh)
        batch = _tree_bytes(task.batch_spec(size, train=False)) // mesh.size
        waiting = DEVICE_PREFETCH * row.batch
        return row.state + waiting + need.temporaries + need.scratch + need.outputs + 2 * batch

    def host(self, row: Row, config: Config, device: int) -> HostBytes:
        """Host bytes of a run with this row, its device's share included where that is the host."""
        return host.predict(
            config.data,
            batch=row.batch * self._target.mesh(config.optim.micro_batch).size,
            device=device if self._target.on_host else 0,
            runtime=self._overhead.runtime + self._overhead.kept,
            compiling=self._overhead.compiling - self._overhead.kept,
        )

    def explore(self) -> None:
        """Compiles two micro-batches of every family, so that every candidate has a row."""
        families: dict[MemoryConfig, list[Config]] = {}
        for config in self.candidates():
            families.setdefault(config.memory, []).append(config)
        own = self._config.optim.micro_batch
        for members in families.values():
            nearest = sorted(members, key=lambda c: abs(math.log2(c.optim.micro_batch / own)))
            for config in nearest[:2]:
                self.measure(config)

    def rows(self) -> tuple[Row, ...]:
        """What is known, in the order of candidates."""
        found = (self.expect(config) for config in self.candidates())
        return tuple(row for row in found if row is not None)

    def choose(self, budget: int, host_budget: int | None) -> Plan:
        """The cheapest candidate that fits both budgets.

        bfloat16 changes numbers, so it is taken only where no float32 candidate fits.
        Raises UserError with the smallest need and a way to meet it.
        """
        usable = self._target.usable(budget)
        # A candidate of the config's own dtype comes before any of another one.
        order = sorted(
            self.candidates(),
            key=lambda c: (c.memory.dtype != self._config.memory.dtype, self.estimate(c)),
        )
        plans = []
        for config in order:
            expected = self.expect(config)
            if expected is not None and expected.training > usable:
                continue
            row = self.measure(config)
            if row.training > usable or row.origin == "refused":
                continue
            plan = self._settle(row, budget, usable, host_budget)
            if plan.evaluation <= usable and plan.host.total <= (host_budget or math.inf):
                return plan
            plans.append(plan)
            if plan.host.runtime + plan.host.compiling > (host_budget or math.inf):
                break  # no split of the batch makes the runtime smaller
        raise UserError(self._nothing_fits(order, budget, host_budget, plans))

    def _settle(self, row: Row, budget: int, usable: int, host_budget: int | None) -> Plan:
        """The row's plan, its evaluation batch and its loader shrunk as far as budgets need."""
        config = row.config
        while (evaluation := self.evaluation(row, config)) > usable and config.eval.batch_size > 1:
            config = configuration.replace(config, {"eval.batch_size": config.eval.batch_size // 2})
        device = max(row.training, evaluation)
        needs = self.host(row, config, device)
        while host_budget is not None and needs.total > host_budget:
            if (data := host.smaller(config.data)) is None:
                break
            config = dataclasses.replace(config, data=data)
            needs = self.host(row, config, device)
        return Plan(
            target=self._target,
            asked=self._config,
            budget=budget,
            host_budget=host_budget,
            chosen=row,
            evaluation=evaluation,
            host=needs,
            host_of=lambda row: self.host(row, config, row.training),
            parameters=self.parameters,
            rows=self.rows(),
            baseline=self.estimate(self._config),
            config=config,
        )

    def _nothing_fits(
        self, order: list[Config], budget: int, host_budget: int | None, plans: list[Plan]
    ) -> str:
        if plans and host_budget and min(p.host.total for p in plans) > host_budget:
            least = min(p.host.total for p in plans)
            return (
                f"memory.host_budget={format_bytes(host_budget)} is too small: the least is "
                f"{_rounded_up(least)}, {format_bytes(plans[0].host.runtime)} of it the runtime; "
                "raise it, or train where more is free"
            )
        smallest = min(
            (row for c in order if (row := self.expect(c)) is not None), key=lambda r: r.training
        )
        row = self.measure(smallest.config)
        least = max([row.training, *(p.evaluation for p in plans)])
        needed = _rounded_up(self._target.budget_for(least))
        return (
            f"memory.budget={format_bytes(budget)} is too small: the least is {needed} "
            f"({describe(row.config)}; parameters and optimizer take {format_bytes(row.state)} of "
            f"it); {self._remedy(row, budget)}"
        )

    def _remedy(self, row: Row, budget: int) -> str:
        memory_ = self._config.memory
        if not memory_.allow_bfloat16 and memory_.dtype != BFLOAT16:
            half = self.measure(configuration.replace(row.config, {"memory.dtype": BFLOAT16}))
            if half.training <= self._target.usable(budget):
                return "raise it, or set memory.allow_bfloat16=True, which fits"
        wanted = "a smaller model" if 2 * row.state > row.training else "shorter or fewer examples"
        return f"raise it, or use {wanted}"


def _on_line(size: int, family: list[Row], value: Callable[[Row], int]) -> int:
    """The value at a micro-batch of `size` on the line through the two rows nearest to it."""
    (x, a), (y, b) = ((row.config.optim.micro_batch, value(row)) for row in family[:2])
    return max(0, round(a + (size - x) / (y - x) * (b - a)))


def _compiled_bytes(traced: jax.stages.Traced) -> DeviceBytes | None:
    try:
        return memory.predict(traced.lower().compile())
    except jax.errors.JaxRuntimeError as error:
        if not memory.exhausted(error):
            raise
        return None  # the TPU's compiler refuses what does not fit


def _tree_bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _rounded_up(count: int) -> str:
    """In whole MiB, so that the size as printed is enough."""
    return f"{-(-count // MIB)} MiB"


def device_budget(text: str, target: Target) -> int:
    """Bytes of a `memory.budget`; '' and 'auto' mean the target's own limit."""
    return target.limit if text in ("", AUTO) else parse_bytes("memory.budget", text)


def host_budget(text: str) -> int | None:
    """Bytes of a `memory.host_budget`; 'auto': what is free and what this process has; '': None."""
    if text == AUTO:
        return host.available() + memory.host_bytes()
    return parse_bytes("memory.host_budget", text) if text else None
