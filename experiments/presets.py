"""What do the presets need, how fast are they, and which fits which memory?

    python -m experiments.presets [--train] [--presets quick_demo low_memory] [--steps NAME=150]

Predicted bytes are XLA's for the compiled training step, measured ones the resident set of two
steps in a process of their own, times the least of a few updates (all presets interleaved). The
recommendation is the planner's: the most capable preset with a plan within that much memory, for
the step on the device (CPU) and for the whole process.

--train also trains each through the doors, on generated recordings: host peak of the whole process
tree, errors on held-out sessions of seen users beside the linear baseline. Targets of the original
system: R2 > 0.85, MAE < 0.15 rad; its memory claims 1, 2, 4 and 8 GB, smallest preset first.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tds_jax.budget import heap
from tds_jax.errors import UserError
from tds_jax.sizes import GIB, format_bytes

CLAIMED = {"quick_demo": 1, "low_memory": 2, "default": 4, "high_performance": 8}  # GB
OTHERS = ("forecast_air_temperature", "forecast_soil_moisture", "voxel_ultra", "voxel_diffusion")
CAPABLE_FIRST = ("high_performance", "default", "quick_demo")  # low_memory is default in parts
MEMORIES = (1, 2, 4, 8, 24, 80)  # GiB


def bytes_and_times(presets, rounds):
    """A table of what one step of each preset needs and takes."""
    from experiments.measuring import Step, interleaved, load, times
    from experiments.planner_accuracy import measure

    table = Table(title="training steps, f32, CPU, least (median) seconds per update")
    for name in ("preset", "parameters", "batch", "temporaries", "predicted", "measured"):
        table.add_column(name, justify="right")
    for name in ("s/update", "examples/s", "claimed"):
        table.add_column(name, justify="right")
    sides = {name: Step(load(name)) for name in presets}
    found = interleaved(sides, rounds)
    for name, side in sides.items():
        predicted, measured = measure(name, {})
        optim = load(name).optim
        table.add_row(
            *(name, f"{parameters(side):,}", f"{optim.micro_batch} x {optim.accumulate}"),
            format_bytes(side.program.predicted.temporaries),
            *(format_bytes(predicted), format_bytes(measured), times(found[name])),
            f"{optim.batch_size / min(found[name]):.0f}",
            f"{CLAIMED[name]} GB" if name in CLAIMED else "",
        )
    return table


def parameters(side):
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(side.state.params))


def recommended():
    """A table of the most capable preset per memory size, as the planner splits its batch."""
    from experiments.measuring import load, make_blueprint
    from tds_jax.budget import targets
    from tds_jax.budget.planner import Planner

    target = targets.find("here")
    planners = {
        name: Planner(make_blueprint, load(name), target, lambda words: None)
        for name in CAPABLE_FIRST
    }
    table = Table(title="the most capable preset whose whole process fits, CPU, predicted")
    for name in ("memory", "preset", "micro-batch", "device", "host"):
        table.add_column(name, justify="right")
    for size in MEMORIES:
        for name, planner in planners.items():
            try:
                plan = planner.choose(size * GIB, size * GIB)
            except UserError:
                continue
            optim = plan.config.optim
            table.add_row(
                *(f"{size} GiB", name, f"{optim.micro_batch} x {optim.accumulate}"),
                *(format_bytes(plan.device_peak), format_bytes(plan.host.total)),
            )
            break
    return table


def train(preset, overrides, folder):
    """(report, config, host peak, seconds) of one preset, through the door."""
    from experiments.host_memory import measure

    workdir = f"{folder}/{preset}"
    command = [sys.executable, "-m", "tds_jax.train", f"--config=configs/{preset}.py", *overrides]
    peak, _, seconds = measure([*command, f"--workdir={workdir}"])
    files = (f"{workdir}/report.json", f"{workdir}/config.json")
    return *(json.loads(Path(file).read_text()) for file in files), peak, seconds


def trained(presets, steps):
    """A table of what each preset learns and takes of the host."""
    table = Table(title="generated recordings, test sessions of seen users, 2 CPU cores")
    for name in ("preset", "updates", "host peak", "claimed", "minutes", "R2", "MAE", "linear R2"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for preset in filter(CLAIMED.get, presets):
            overrides = [f"--config.optim.steps={steps[preset]}"] if preset in steps else []
            report, config, peak, seconds = train(preset, overrides, folder)
            model = report["splits"]["test"]["model"]
            linear = report["splits"]["test"]["baselines"]["linear"]
            table.add_row(
                *(preset, str(config["optim"]["steps"]), format_bytes(peak)),
                *(f"{CLAIMED[preset]} GB", f"{seconds / 60:.1f}", f"{model['r2']:.3f}"),
                *(f"{model['mae_rad']:.3f} rad", f"{linear['r2']:.3f}"),
            )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=[*CLAIMED, *OTHERS])
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", nargs="*", default=[], help="preset=steps, with --train")
    options = parser.parse_args()
    console = Console(width=120)
    console.print(bytes_and_times(options.presets, options.rounds))
    console.print(recommended())
    if options.train:
        steps = dict(item.split("=") for item in options.steps)
        console.print(trained(options.presets, steps))


if __name__ == "__main__":
    heap.use_huge_pages()  # as every door does
    main()
