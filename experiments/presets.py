"""Do the presets fit, and learn, as claimed? One row per preset, trained on generated recordings.

    python -m experiments.presets [--presets quick_demo low_memory] [--steps high_performance=150]

Parameters and predicted device bytes come from the compiled training step (CPU target), the host
peak is the measured proportional set size of the whole process tree from start to the end of the
evaluation, errors are on held-out sessions of seen users. Targets of the seed system: R2 > 0.85,
MAE < 0.15 rad; memory claims 1, 2, 4 and 8 GB, smallest preset first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.host_memory import measure
from tds_jax.sizes import format_bytes

CLAIMED = {"quick_demo": 1, "low_memory": 2, "default": 4, "high_performance": 8}  # GB


def train(preset, overrides, folder):
    """(plan, report, config, host peak, seconds) of one preset, through the doors."""
    settings = [f"--config=configs/{preset}.py", *overrides]
    plan, workdir = f"{folder}/{preset}.json", f"{folder}/{preset}"
    command = [sys.executable, "-m", "tds_jax.plan", *settings, f"--json={plan}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    command = [sys.executable, "-m", "tds_jax.train", *settings, f"--workdir={workdir}"]
    peak, _, seconds = measure(command)
    files = (plan, f"{workdir}/report.json", f"{workdir}/config.json")
    return *(json.loads(Path(file).read_text()) for file in files), peak, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=list(CLAIMED))
    parser.add_argument("--steps", nargs="*", default=[], help="preset=steps")
    options = parser.parse_args()
    steps = dict(item.split("=") for item in options.steps)
    table = Table(title="generated recordings, test sessions of seen users, 2 CPU cores")
    for name in ("preset", "parameters", "batch", "updates", "device temp", "host peak"):
        table.add_column(name, justify="right")
    for name in ("claimed", "minutes", "R2", "MAE [rad]", "ridge R2"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for preset in options.presets:
            overrides = [f"--config.optim.steps={steps[preset]}"] if preset in steps else []
            plan, report, config, peak, seconds = train(preset, overrides, folder)
            test, optim = report["splits"]["test"], config["optim"]
            model, ridge = test["model"], test["baselines"]["ridge"]
            micro, times = optim["batch_size"] // optim["accumulate"], optim["accumulate"]
            table.add_row(
                *(preset, f"{plan['parameters']:,}", f"{micro} x {times}", str(optim["steps"])),
                *(format_bytes(plan["temporaries"]), format_bytes(peak)),
                *(f"{CLAIMED[preset]} GB", f"{seconds / 60:.1f}", f"{model['r2']:.3f}"),
                *(f"{model['mae_rad']:.3f}", f"{ridge['r2']:.3f}"),
            )
            Console(width=140).print(table)


if __name__ == "__main__":
    main()
