"""Budget -> plan: what a run needs for each way of splitting its batch, and the cheapest that fits.

The chosen one is confirmed by compiling it.
"""

import dataclasses
import math
from collections.abc import Iterator

from tds_jax import config as configuration
from tds_jax.budget import candidates, host, memory
from tds_jax.budget.candidates import BFLOAT16, Options
from tds_jax.budget.needs import Build, Needs, Say
from tds_jax.budget.plan import Plan, Row, describe
from tds_jax.budget.targets import Target
from tds_jax.config import AUTO, SHARDS, Config
from tds_jax.errors import UserError
from tds_jax.sizes import MIB, format_bytes, parse_bytes


class Planner:
    """Plans for one config on one target. build: remembers the blueprint of a config."""

    def __init__(self, build: Build, config: Config, target: Target, say: Say) -> None:
        self._config, self._target = config, target
        self.needs = Needs(build, target, say)
        options = build(config).task.memory_options() | _splitting(build, config, target)
        self.candidates = candidates.candidates(config, options, target)
        self.family = [one for one in self.candidates if one.memory == config.memory]

    def explore(self) -> None:
        """Compiles two micro-batches of the config's own family, so that all of it have rows.

        The cheapest is one of them, which most budgets hold.
        """
        own = self._config.optim.micro_batch
        near = sorted(self.family, key=lambda c: abs(math.log(c.optim.micro_batch / own)))
        found = 0
        for config in dict.fromkeys([near[0], self._cheapest(), *near]):
            found += self.needs.measure(config).origin == "compiled"
            if found == 2:
                return

    def _cheapest(self) -> Config:
        """Of the config's own family, and so of all: each rung of the ladder has its price."""
        return min(self.family, key=self.needs.estimate)

    def _order(self) -> Iterator[Config]:
        """Cheapest first, those of the config's own dtype before any of another one.

        Where the first fits, nobody asks the price of the others, which takes a trace of each.
        """
        cheapest, own = self._cheapest(), self._config.memory.dtype
        yield cheapest
        others = (config for config in self.candidates if config != cheapest)
        yield from sorted(others, key=lambda c: (c.memory.dtype != own, self.needs.estimate(c)))

    def rows(self) -> tuple[Row, ...]:
        """What is known, in the order of candidates."""
        found = (self.needs.expect(config) for config in self.candidates)
        return tuple(row for row in found if row is not None)

    def unseen(self) -> tuple[Config, ...]:
        """One candidate of each family that no budget has needed so far."""
        seen = {row.config.memory for row in self.rows()}
        others = {c.memory: c for c in self.candidates if c.memory not in seen}
        return tuple(others.values())

    def choose(self, budget: int, host_budget: int | None) -> Plan:
        """The cheapest candidate that fits both budgets.

        bfloat16 changes numbers, so it is taken only where no float32 candidate fits.
        Raises UserError with the smallest need and a way to meet it.
        """
        usable = self._target.usable(budget)
        plans = []
        for config in self._order():
            expected = self.needs.expect(config)
            if expected is not None and expected.training > usable:
                continue
            row = self.needs.measure(config)
            if row.training > usable or row.origin == "refused":
                continue
            plan = self._settle(row, budget, usable, host_budget)
            if plan.evaluation <= usable and plan.host.total <= (host_budget or math.inf):
                return plan
            plans.append(plan)
            if plan.host.runtime + plan.host.compiling > (host_budget or math.inf):
                break  # no split of the batch makes the runtime smaller
        raise UserError(self._nothing_fits(budget, host_budget, plans))

    def _settle(self, row: Row, budget: int, usable: int, host_budget: int | None) -> Plan:
        """The row's plan, its evaluation batch and its loader shrunk as far as budgets need."""
        config = row.config
        while (
            evaluation := self.needs.evaluation(row, config)
        ) > usable and config.eval.batch_size > 1:
            config = configuration.replace(config, {"eval.batch_size": config.eval.batch_size // 2})
        device = max(row.training, evaluation)
        needs = self.needs.host(row, config, device)
        while host_budget is not None and needs.total > host_budget:
            if (data := host.smaller(config.data)) is None:
                break
            config = dataclasses.replace(config, data=data)
            needs = self.needs.host(row, config, device)
        return Plan(
            target=self._target,
            asked=self._config,
            budget=budget,
            host_budget=host_budget,
            chosen=row,
            evaluation=evaluation,
            host=needs,
            host_of=lambda row: self.needs.host(row, config, row.training),
            state_of=lambda row: self.needs.state(row.config),
            devices=self._target.mesh(config.optim.micro_batch).size,
            parameters=self.needs.parameters(config),
            rows=self.rows(),
            unseen=self.unseen(),
            baseline=self.needs.estimate(self._config),
            config=config,
        )

    def _nothing_fits(self, budget: int, host_budget: int | None, plans: list[Plan]) -> str:
        if plans and host_budget and min(p.host.total for p in plans) > host_budget:
            least = min(p.host.total for p in plans)
            return (
                f"memory.host_budget={format_bytes(host_budget)} is too small: the least is "
                f"{_rounded_up(least)}, {format_bytes(plans[0].host.runtime)} of it the runtime; "
                "raise it, or train where more is free"
            )
        smallest = min(self.rows(), key=lambda row: row.training)
        row = self.needs.measure(smallest.config)
        least = max([row.training, *(p.evaluation for p in plans)])
        enough = self._target.budget_for(least)
        needed, margin = _rounded_up(enough), format_bytes(enough - self._target.usable(enough))
        return (
            f"memory.budget={format_bytes(budget)} is too small: the least is {needed} "
            f"({describe(row.config)}; parameters and optimizer take {format_bytes(row.state)} of "
            f"it, the margin {margin}); {self._remedy(row, budget)}"
        )

    def _remedy(self, row: Row, budget: int) -> str:
        memory_ = self._config.memory
        if not memory_.allow_bfloat16 and memory_.dtype != BFLOAT16:
            half = self.needs.measure(configuration.replace(row.config, {"memory.dtype": BFLOAT16}))
            if half.training <= self._target.usable(budget):
                return "raise it, or set memory.allow_bfloat16=True, which fits"
        wanted = "a smaller model" if 2 * row.state > row.training else "shorter or fewer examples"
        return f"raise it, or use {wanted}"


def _splitting(build: Build, config: Config, target: Target) -> Options:
    """The option to split the state over the devices, where that makes a device's part smaller."""
    split = configuration.replace(config, {"memory.shard": "fsdp"})
    mesh = target.mesh(config.optim.batch_size)
    if mesh.size == 1:
        return {}
    whole, part = (build(one).state_bytes(mesh).held for one in (config, split))
    return {"shard": SHARDS} if part < whole else {}


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
