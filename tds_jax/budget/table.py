"""A plan as people and programs read it: a table, a few words, a dict."""

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from tds_jax import config as configuration
from tds_jax.budget.plan import Plan, Row, describe, recomputation
from tds_jax.config import Config
from tds_jax.sizes import format_bytes


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain values. configured: the row of the config as it was given, if looked at."""
    return {
        "target": plan.target.name,
        "budget_bytes": plan.budget,
        "host_budget_bytes": plan.host_budget,
        "margin_bytes": plan.budget - plan.target.usable(plan.budget),
        "parameters": plan.parameters,
        "devices": plan.devices,
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
        **recomputation(row.config),
        "argument_bytes": row.step.arguments,
        "output_bytes": row.step.outputs,
        "temporary_bytes": row.step.temporaries,
        "scratch_bytes": row.step.scratch,
        "device_peak_bytes": row.training,
        "host_peak_bytes": plan.host_of(row).total,
        "launches": None if plan.target.on_host else row.launches,
        "state_bytes": plan.state_of(row)._asdict(),
        "shard": row.config.memory.shard,
        "relative_cost": round(row.seconds / plan.baseline, 3),
        "from": row.origin,
    }


def show(plan: Plan, console: Console) -> None:
    """The table of a plan, cheapest first, and what was chosen."""
    target = plan.target
    margin = plan.budget - target.usable(plan.budget)
    table = Table(
        title=f"{target.name}: {_several(plan)}{target.kind}, budget {format_bytes(plan.budget)} "
        f"less {format_bytes(margin)} margin; {plan.parameters:,} parameters",
        title_justify="left",
    )
    columns = ["batch", "with", "args", "temp", "device", "host", "cost", "from"]
    if not target.on_host:
        columns.insert(-2, "launches")
    for name in columns:
        table.add_column(name, justify="left" if name == "with" else "right", overflow="fold")
    for row in sorted(plan.rows, key=lambda row: row.seconds):
        cells = _row(plan, row)
        sizes = ("argument", "temporary", "device_peak", "host_peak")
        fits = row.training <= target.usable(plan.budget)
        table.add_row(
            f"{row.config.optim.micro_batch} x {row.config.optim.accumulate}",
            _recomputing(row.config),
            *(format_bytes(cells[f"{name}_bytes"]) for name in sizes),
            *([] if target.on_host else [f"{row.launches:,}"]),
            f"{cells['relative_cost']:.2f}",
            row.origin,
            style="bold green" if row == plan.chosen else "" if fits else "dim",
        )
    console.print(table)
    console.print(summary(plan), highlight=False)


def _recomputing(config: Config) -> str:
    """What a row does to save memory beside splitting the batch: 'chunk 7', '' for nothing."""
    parts = []
    for name, field in configuration.marked(config, "shown").items():
        value = configuration.value(config, name)
        if value not in (0, "none", "float32"):
            parts.append(value if name == "memory.dtype" else f"{field.metadata['shown']} {value}")
    return ", ".join([*parts, *["fsdp"] * (config.memory.shard == "fsdp")])


def _several(plan: Plan) -> str:
    return f"{plan.devices} x " if plan.devices > 1 else ""


def _unseen(plan: Plan) -> str:
    """What there would be for a smaller budget."""
    kinds = ", ".join(_recomputing(config) for config in plan.unseen)
    return f"for a smaller budget, dearer, not compiled: {kinds}\n" if kinds else ""


def _on_each(plan: Plan) -> str:
    """What each of several devices holds, in words; of one it is in the table."""
    if plan.devices == 1:
        return ""
    state, step = plan.state_of(plan.chosen), plan.chosen.step
    parts = {
        "parameters": state.parameters,
        "optimizer": state.optimizer,
        "accumulator": state.accumulator,
        "activations and gradients": step.temporaries,
    }
    words = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
    return f"on each of {plan.devices} devices: {words}\n"


def summary(plan: Plan) -> str:
    """What was chosen, in words."""
    host, config = plan.host, plan.config
    return (
        f"chosen: {describe(config)}\n"
        f"{_unseen(plan)}"
        f"{_on_each(plan)}"
        f"device, predicted: training {format_bytes(plan.chosen.training)}, evaluation "
        f"{format_bytes(plan.evaluation)} (eval.batch_size {config.eval.batch_size})\n"
        f"host, predicted: {format_bytes(host.total)} = runtime {format_bytes(host.runtime)} + the "
        f"larger of compiling {format_bytes(host.compiling)} and training "
        f"{format_bytes(host.training)} (device {format_bytes(host.device)}, workers "
        f"{format_bytes(host.workers)}, prefetch {format_bytes(host.prefetch)}, file caches "
        f"{format_bytes(host.cache)})"
    )
