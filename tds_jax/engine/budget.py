"""A run within its budgets: the plan made at its start, kept in its folder, and given way from.

`config` is what the user asked for plus what the plan changed; config.json holds the sum, plan.json
the question, the changes and the table behind them.
"""

import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
from rich.console import Console
from rich.table import Table

from tds_jax import config as configuration
from tds_jax.config import Config
from tds_jax.engine import json_file, planner, targets
from tds_jax.engine.logs import table_console
from tds_jax.engine.memory import Exhausted
from tds_jax.engine.planner import Build, Plan, Planner, Row
from tds_jax.errors import UserError
from tds_jax.sizes import format_bytes

PLAN = "plan.json"
T = TypeVar("T")


def planned_settings(config: Config) -> dict[str, Any]:
    """What a plan depends on and may change: 'group.name' -> value."""
    found = {f"memory.{name}": value for name, value in dataclasses.asdict(config.memory).items()}
    names = {"optim": ("batch_size", "accumulate"), "eval": ("batch_size",)}
    names["data"] = ("workers", "prefetch")
    for group, members in names.items():
        found |= {f"{group}.{name}": getattr(getattr(config, group), name) for name in members}
    return found


def settle(build: Build, config: Config, folder: Path) -> tuple[Config, Plan | None]:
    """The config to run with, and the plan if one was made now, which is printed.

    A plan in the folder is kept while the question and the device stay the same, so that a run
    that goes on does so bit for bit. Without a budget and without such a plan: the config itself.
    """
    stored = _read(folder)
    if stored and stored["device"] == _device() and _same_question(stored, config):
        if stored["changes"]:
            print(f"keeping the plan in {folder / PLAN}: {_words(stored['changes'])}")
        return configuration.replace(config, stored["changes"]), None
    if not (config.memory.budget or config.memory.host_budget):
        return config, None
    console = table_console()
    plan = make(build, config, targets.find("here"), console, whole=False)
    show(plan, console)
    return plan.config, plan


def make(
    build: Build, config: Config, target: targets.Target, console: Console, whole: bool
) -> Plan:
    """The plan for a config's own budgets. whole: look at every candidate, not just until one fits.

    Raises UserError where nothing fits.
    """
    with console.status("planning") as status:
        found = Planner(build, config, target, lambda words: status.update(f"planning: {words}"))
        if whole:
            found.explore()
        device = planner.device_budget(config.memory.budget, target)
        return found.choose(device, planner.host_budget(config.memory.host_budget))


def keep(folder: Path, asked: Config, config: Config, plan: Plan | None) -> None:
    """Writes plan.json for what was asked and what is run; no plan now leaves an older one's table.

    A run that never had a plan gets none.
    """
    wanted = asked.memory.budget or asked.memory.host_budget
    if plan is None and asked == config and not wanted:
        (folder / PLAN).unlink(missing_ok=True)
        return
    before, after = planned_settings(asked), planned_settings(config)
    values = (to_dict(plan) if plan else _read(folder)) or {}
    values |= {
        "asked": before,
        "config": asked.to_dict(),
        "device": _device(),
        "changes": {name: after[name] for name in after if after[name] != before[name]},
    }
    json_file.write(folder / PLAN, values)


def _same_question(stored: dict[str, Any], config: Config) -> bool:
    """True if neither what a plan may change nor the model, data or optimizer have changed."""
    others = configuration.differences(stored["config"], config.to_dict())
    return stored["asked"] == planned_settings(config) and not others


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / PLAN
    return json_file.read(path, "delete it to plan anew") if path.exists() else None


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def give_way(config: Config, setting: str) -> Config:
    """The config with less on the device at once, after memory ran out there.

    setting: 'optim.accumulate' (the micro-batch becomes its largest proper divisor that all devices
    can share) or 'eval.batch_size' (halved). Raises UserError when nothing is left to give.
    """
    if setting == "eval.batch_size" and config.eval.batch_size > 1:
        return configuration.replace(config, {setting: config.eval.batch_size // 2})
    size, devices = config.optim.micro_batch, jax.device_count()
    smaller = [n for n in range(devices, size // 2 + 1, devices) if size % n == 0]
    if setting == "eval.batch_size" or not smaller:
        raise UserError(
            f"the device ran out of memory with one example at a time ({setting}="
            f"{planned_settings(config)[setting]}); python -m tds_jax.plan shows what would fit"
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
        # Only now, outside `except`, are the arrays of the failed try free.
        gc.collect()
        config = give_way(config, setting)
        remember(config)
        value = planned_settings(config)[setting]
        print(f"the device ran out of memory; going on with {setting}={value}", flush=True)


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain values. configured: the row of the config as it was given, if looked at."""
    return {
        "target": plan.target.name,
        "budget_bytes": plan.budget,
        "host_budget_bytes": plan.host_budget,
        "margin_bytes": plan.budget - plan.target.usable(plan.budget),
        "parameters": plan.parameters,
        "chosen": _row(plan, plan.chosen)
        | {
            "device_peak_bytes": plan.device_peak,
            "host_peak_bytes": plan.host.total,
            "host": dataclasses.asdict(plan.host),
            "eval_batch_size": plan.config.eval.batch_size,
            "evaluation_peak_bytes": plan.evaluation,
            "workers": plan.config.data.workers,
            "prefetch": plan.config.data.prefetch,
        },
        "configured": next((_row(plan, r) for r in plan.rows if r.config == plan.asked), None),
        "rows": [_row(plan, row) for row in plan.rows],
    }


def _row(plan: Plan, row: Row) -> dict[str, Any]:
    return {
        "micro_batch": row.config.optim.micro_batch,
        "accumulate": row.config.optim.accumulate,
        **{name: getattr(row.config.memory, name) for name in ("remat", "dtype", "decoder_chunk")},
        "argument_bytes": row.step.arguments,
        "output_bytes": row.step.outputs,
        "temporary_bytes": row.step.temporaries,
        "scratch_bytes": row.step.scratch,
        "device_peak_bytes": row.training,
        "host_peak_bytes": plan.host_of(row).total,
        "relative_cost": round(row.seconds / plan.baseline, 3),
        "from": row.origin,
    }


def show(plan: Plan, console: Console) -> None:
    """The table of a plan, cheapest first, and what was chosen."""
    target, chosen = plan.target, _row(plan, plan.chosen)
    margin = plan.budget - target.usable(plan.budget)
    table = Table(
        title=f"{target.name}: {target.kind}, budget {format_bytes(plan.budget)} "
        f"less {format_bytes(margin)} margin; {plan.parameters:,} parameters",
        title_justify="left",
    )
    columns = ("micro-batch", "with", "arguments", "temporaries", "device", "host", "cost", "from")
    for name in columns:
        table.add_column(name, justify="left" if name == "with" else "right", no_wrap=True)
    for row in sorted((_row(plan, row) for row in plan.rows), key=lambda r: r["relative_cost"]):
        fits = row["device_peak_bytes"] <= target.usable(plan.budget)
        sizes = ("argument", "temporary", "device_peak", "host_peak")
        table.add_row(
            f"{row['micro_batch']} x {row['accumulate']}",
            _recomputing(row),
            *(format_bytes(row[f"{name}_bytes"]) for name in sizes),
            f"{row['relative_cost']:.2f}",
            row["from"],
            style="bold green" if row == chosen else "" if fits else "dim",
        )
    console.print(table)
    console.print(summary(plan), highlight=False)


def _recomputing(row: dict[str, Any]) -> str:
    """What a row does to save memory beside splitting the batch; '' for nothing."""
    parts = [f"chunk {row['decoder_chunk']}" if row["decoder_chunk"] else ""]
    parts += [f"remat {row['remat']}" if row["remat"] != "none" else ""]
    parts += [row["dtype"] if row["dtype"] != "float32" else ""]
    return ", ".join(part for part in parts if part)


def summary(plan: Plan) -> str:
    """What was chosen, in words."""
    host, config = plan.host, plan.config
    return (
        f"chosen: {planner.describe(config)}\n"
        f"device, predicted: training {format_bytes(plan.chosen.training)}, evaluation "
        f"{format_bytes(plan.evaluation)} (eval.batch_size {config.eval.batch_size})\n"
        f"host, predicted: {format_bytes(host.total)} = runtime {format_bytes(host.runtime)} + the "
        f"larger of compiling {format_bytes(host.compiling)} and training "
        f"{format_bytes(host.training)} (device {format_bytes(host.device)}, workers "
        f"{format_bytes(host.workers)}, prefetch {format_bytes(host.prefetch)}, file caches "
        f"{format_bytes(host.cache)})"
    )
