"""How many kernels does a card start for an update? Counted in programs compiled for an H100.

    python -m experiments.launches [--configs low_memory,emg2pose_tracking] [--target h100]
    python -m experiments.launches --shipped

Needs the extra plan-gpu, and no card. Each preset with its micro-batches in calls of their own, and
in one, with its whole batch at once, with a decoder that is one kernel, and a batch of its
evaluation; `--shipped`: every preset, only as a card runs it without a word. Compiling costs what
the distinct fusions do: each is code to be written. What does not compile is a row that says so.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from experiments.measuring import load, make_blueprint
from tds_jax.budget import memory, targets
from tds_jax.budget.launches import launches
from tds_jax.pose.config import FUSED_HIDDEN
from tds_jax.sizes import format_bytes

PRESETS = "low_memory,quick_demo,emg2pose_tracking,forecast_air_temperature,voxel_ultra"
BASES = ("base", "voxel_base")  # others are made of them
CONFIGS = Path(__file__).parent.parent / "configs"


def every_preset():
    """Names of the presets, comma between them."""
    return ",".join(sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in BASES))


def ways(config, shipped):
    """What is compared: changes of a preset."""
    if shipped:
        yield {"memory__call": "update"}
        return
    yield {"memory__call": "micro_batch"}
    if config.optim.accumulate > 1:
        yield {"memory__call": "update"}
        yield {"optim__accumulate": 1}
    lstm = config.task == "pose" and config.model.decoder == "lstm"
    if lstm and config.model.hidden in FUSED_HIDDEN:
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


def step(name, changes, target):
    """The cells of an update."""
    config = load(name, **changes)
    fused = ", fused" if "model__decoder_kernel" in changes else ""
    batch = f"{config.optim.micro_batch} x {config.optim.accumulate}{fused}"

    def trace():
        return make_blueprint(config).trace_step(target.mesh(config.optim.micro_batch))

    return name, batch, *counted(config.calls_per_update, trace)


def evaluation(name, target):
    """The cells of a batch of an evaluation."""
    config = load(name)

    def trace():
        return make_blueprint(config).trace_evaluation(target.mesh(config.eval.batch_size))

    return name, f"evaluation, {config.eval.batch_size}", *counted(1, trace)


def counted(calls, trace):
    """What is to be told of a program, or that the compiler has no way for it."""
    started = time.perf_counter()
    try:
        program = trace().lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return f"does not compile: {str(error).splitlines()[0][:80]}", "", "", "", ""
    seconds, text = time.perf_counter() - started, program.as_text()
    kernels, (fusions, differ) = launches(text), distinct(text)
    return (
        f"{calls} x {kernels:,}",
        f"{calls * kernels:,}",
        f"{fusions} ({differ})",
        format_bytes(memory.predict(program).total),
        f"{seconds:.0f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs")
    parser.add_argument("--target", default="h100")
    parser.add_argument("--shipped", action="store_true")
    options = parser.parse_args()
    configs = options.configs or (every_preset() if options.shipped else PRESETS)
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
        table.add_column(column, justify="right", no_wrap=True)

    def add(cells):
        table.add_row(*cells)
        print(" | ".join(cells), file=sys.stderr, flush=True)  # what there is so far

    for name in configs.split(","):
        for changes in ways(load(name), options.shipped):
            add(step(name, changes, target))
        add(evaluation(name, target))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
