"""Does a budget change the result? Five updates under five budgets, from generous to the least.

    python -m experiments.budgets

Each run plans for its budget, trains on generated recordings, and is compared with the first:
‖difference‖ / ‖parameters‖ over the whole tree. Bars: SGD 1e-6, AdamW 1e-5 (its division by √v
amplifies rounding where gradients are near zero).
"""

import functools
import tempfile
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.measuring import load
from tds_jax import tasks
from tds_jax.budget import settling
from tds_jax.engine import loop, workdir
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.sharding import make_mesh
from tds_jax.sizes import format_bytes

BUDGETS = ("1GiB", "60MiB", "45MiB", "32MiB", "27MiB")
BARS = {"sgd": 1e-6, "adamw": 1e-5}


def run(config, folder):
    """(config as planned, its plan, parameters after the run)."""
    task = tasks.get(config)
    build = functools.cache(lambda config: Blueprint(task.under(config), config))
    planned, plan = settling.settle(build, config, folder)
    blueprint = build(planned)
    workdir.claim(folder, planned, task.inputs(), task.digest(), task.data_files())
    loop.fit(blueprint, folder)
    checkpoints = workdir.open_checkpoints(folder, planned)
    mesh = make_mesh(planned.optim.micro_batch)
    restored, _ = workdir.restore(checkpoints, checkpoints.latest(), blueprint, mesh)
    checkpoints.close()
    leaves = jax.tree.leaves(restored.state.params)
    return planned, plan, np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in leaves])


def main():
    table = Table(title="quick_demo, batch 32, 5 updates, f32, CPU")
    for name in ("optimizer", "budget", "micro-batch", "chunk", "device peak", "difference", "bar"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for optimizer, bar in BARS.items():
            first = None
            for text in BUDGETS:
                config = load(
                    "quick_demo",
                    optim__optimizer=optimizer, optim__steps=5, optim__warmup_steps=1,
                    eval__every=0, log__plots=False, memory__budget=text,
                    data__synthetic_users=1, data__synthetic_sessions=3,
                    data__synthetic_seconds=10.0,
                )  # fmt: skip
                planned, plan, params = run(config, Path(folder) / optimizer / text)
                first = params if first is None else first
                away = np.linalg.norm(params - first) / np.linalg.norm(first)
                optim, chunk = planned.optim, planned.memory.decoder_chunk
                table.add_row(
                    *(optimizer, text, f"{optim.micro_batch} x {optim.accumulate}", str(chunk)),
                    *(format_bytes(plan.device_peak), f"{away:.1e}", f"{bar:.0e}"),
                )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
