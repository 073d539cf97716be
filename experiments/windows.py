"""What does a longer training window buy, and cost?

    python -m experiments.windows [--windows 500 1000 2000 4000] [--seconds-of-emg 20000]

Trains configs/default.py on generated recordings with each window, the same seconds of EMG in all
and as many windows per update as make 64 seconds; prints error on held-out sessions of seen users,
predicted device bytes and the share of each window lost to the left context.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tds_jax.sizes import format_bytes

RATE, LEFT_CONTEXT, SECONDS_PER_UPDATE = 2000, 208, 64


def settings(window, steps):
    """Flags of a run whose updates see so many seconds of EMG, whatever the window."""
    return [
        "--config=configs/default.py",
        f"--config.data.window={window}",
        f"--config.data.stride={window // 2}",
        f"--config.optim.batch_size={SECONDS_PER_UPDATE * RATE // window}",
        "--config.optim.accumulate=4",
        f"--config.optim.steps={steps}",
    ]


def door(name, *arguments):
    """Runs a door of tds_jax, its output thrown away."""
    command = [sys.executable, "-m", f"tds_jax.{name}", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def row(window, steps, folder):
    """The cells of one window: what its step needs, and what the trained model gives."""
    flags, plan, workdir = settings(window, steps), f"{folder}/plan.json", f"{folder}/{window}"
    door("plan", *flags, f"--json={plan}", "--overwrite")
    door("train", *flags, f"--workdir={workdir}")
    need = json.loads(Path(plan).read_text())["configured"]["device_peak_bytes"]
    values = json.loads(Path(workdir, "report.json").read_text())["splits"]["test"]["model"]
    return (
        *(f"{window}", f"{window / RATE:g}", f"{SECONDS_PER_UPDATE * RATE // window}"),
        *(f"{LEFT_CONTEXT / window:.0%}", format_bytes(need)),
        *(f"{values['r2']:.3f}", f"{values['mae_deg']:.2f}"),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--seconds-of-emg", type=int, default=20_000)
    options = parser.parse_args()
    steps = options.seconds_of_emg // SECONDS_PER_UPDATE
    table = Table(title=f"{steps} updates of {SECONDS_PER_UPDATE} s of EMG; device: CPU, predicted")
    for name in ("window", "s", "batch", "lost to context", "device", "R2", "MAE [deg]"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for window in options.windows:
            table.add_row(*row(window, steps, folder))
    Console().print(table)


if __name__ == "__main__":
    main()
