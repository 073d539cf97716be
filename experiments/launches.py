"""How many kernels does a card start for an update? Counted in programs compiled for an H100.

    python -m experiments.launches [--configs low_memory,emg2pose_tracking] [--target h100]

Needs the extra plan-gpu, and no card. Each preset as it stands (its micro-batches in calls of
their own, and in one), with its whole batch at once, with a decoder that is one kernel, and a batch
of its evaluation.
"""

import argparse
import time

from rich.console import Console
from rich.table import Table

from experiments.measuring import load, make_blueprint
from tds_jax.budget import targets
from tds_jax.budget.needs import compiled
from tds_jax.pose.config import FUSED_HIDDEN
from tds_jax.sizes import format_bytes

PRESETS = "low_memory,quick_demo,emg2pose_tracking,forecast_air_temperature,voxel_ultra"


def ways(config):
    """What is compared: changes of a preset."""
    yield {"memory__call": "micro_batch"}
    if config.optim.accumulate > 1:
        yield {"memory__call": "update"}
        yield {"optim__accumulate": 1}
    if config.task == "pose" and config.model.hidden in FUSED_HIDDEN:
        yield {"memory__call": "update", "model__decoder_kernel": "fused"}


def row(name, changes, target):
    config = load(name, **changes)
    traced = make_blueprint(config).trace_step(target.mesh(config.optim.micro_batch))
    fused = ", fused" if "model__decoder_kernel" in changes else ""
    batch = f"{config.optim.micro_batch} x {config.optim.accumulate}{fused}"
    return counted(name, batch, config.calls_per_update, traced)


def evaluation(name, target):
    config = load(name)
    traced = make_blueprint(config).trace_evaluation(target.mesh(config.eval.batch_size))
    return counted(name, f"evaluation, {config.eval.batch_size}", 1, traced)


def counted(name, batch, calls, traced):
    started = time.perf_counter()
    need = compiled(traced)
    return (
        name,
        batch,
        f"{calls} x {need.launches:,}",
        f"{calls * need.launches:,}",
        format_bytes(need.bytes.total),
        f"{time.perf_counter() - started:.0f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", default=PRESETS)
    parser.add_argument("--target", default="h100")
    options = parser.parse_args()
    targets.prepare(options.target)
    target = targets.find(options.target)
    table = Table(title=f"kernels started for one update, f32, compiled for {target.kind}")
    for column in (
        "config",
        "micro-batch",
        "calls x kernels",
        "an update",
        "bytes",
        "compiled in s",
    ):
        table.add_column(column, justify="right")
    for name in options.configs.split(","):
        for changes in ways(load(name)):
            table.add_row(*row(name, changes, target))
        table.add_row(*evaluation(name, target))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
