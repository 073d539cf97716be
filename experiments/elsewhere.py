"""What would the presets need on a device that is not here? Compiled for it, on this machine.

    python -m experiments.elsewhere --target=h100 [--presets low_memory emg2pose_tracking]

Needs the target's compiler: `pip install -e '.[plan-gpu]'` for h100, `'.[tpu]'` for v5e. A row per
preset: the plan that training under `memory.budget=auto` would choose there.
"""

import argparse
import functools
import sys

from rich.console import Console
from rich.table import Table

from experiments.measuring import load, make_blueprint
from tds_jax.budget import targets
from tds_jax.budget.planner import Planner
from tds_jax.sizes import format_bytes

PRESETS = (
    *("quick_demo", "low_memory", "default", "high_performance", "emg2pose_tracking"),
    *("forecast_air_temperature", "forecast_soil_moisture", "voxel_ultra"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    options = parser.parse_args()
    targets.prepare(options.target)
    target = targets.find(options.target)
    table = Table(title=f"{target.name}, predicted; {format_bytes(target.limit)} there")
    for title in ("preset", "parameters", "micro-batch", "arguments", "temporaries", "device peak"):
        table.add_column(title, justify="right")
    for name in options.presets:
        say = functools.partial(print, f"{name}:", file=sys.stderr, flush=True)
        plan = Planner(make_blueprint, load(name), target, say).choose(target.limit, None)
        optim, step = plan.config.optim, plan.chosen.step
        table.add_row(
            *(name, f"{plan.parameters:,}", f"{optim.micro_batch} x {optim.accumulate}"),
            *(format_bytes(step.arguments), format_bytes(step.temporaries)),
            format_bytes(plan.device_peak),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
