"""How many kernels does a card start for an update? Counted in programs compiled for an H100.

    python -m experiments.launches [--configs low_memory,emg2pose_tracking] [--target h100]

Needs the extra plan-gpu, and no card. Each preset as it stands (its micro-batches in calls of
their own, and in one), with its whole batch at once, with a decoder that is one kernel, and a batch
of its evaluation. Compiling costs what the distinct fusions do: each is code to be written.
"""

import argparse
import re
import time

from rich.console import Console
from rich.table import Table

from experiments.measuring import load, make_blueprint
from tds_jax.budget import memory, targets
from tds_jax.budget.launches import launches
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


def distinct(program):
    """(fusions, those that differ) of an optimised program: what a card's compiler writes code for.

    Two are one kernel if their text is the same but for names, numbered as they come.
    """
    bodies, name = {}, ""
    for line in program.splitlines():
        if head := re.match(r"^%(\S*fus\S*|\S*computation\S*) \(", line):
            name = head[1]
            bodies[name] = []
        elif line.startswith("}"):
            name = ""
        elif name:
            bodies[name].append(re.sub(r", metadata=\{[^}]*\}", "", line))
    called = set(re.findall(r"fusion\(.*calls=%([\w.\-]+)", program))
    return len(called), len({anonymous(bodies[name]) for name in called})


def anonymous(lines):
    """A computation's text with its names numbered."""
    numbers = {}
    return re.sub(
        r"%[\w.\-]+", lambda m: f"%{numbers.setdefault(m[0], len(numbers))}", "\n".join(lines)
    )


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
    program = traced.lower().compile()
    seconds, text = time.perf_counter() - started, program.as_text()
    kernels, (fusions, differ) = launches(text), distinct(text)
    return (
        name,
        batch,
        f"{calls} x {kernels:,}",
        f"{calls * kernels:,}",
        f"{fusions} ({differ})",
        format_bytes(memory.predict(program).total),
        f"{seconds:.0f}",
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
        "fusions (distinct)",
        "bytes",
        "compiled in s",
    ):
        table.add_column(column, justify="right")
    console = Console(width=100)
    for name in options.configs.split(","):
        for changes in ways(load(name)):
            table.add_row(*row(name, changes, target))
        table.add_row(*evaluation(name, target))
        console.print(table)  # what there is so far, should a later one not compile


if __name__ == "__main__":
    main()
