"""What does a longer training window buy, and cost?

    python experiments/windows.py [--windows 500 1000 2000 4000] [--seconds-of-emg 20000]

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

RATE, LEFT_CONTEXT, SECONDS_PER_UPDATE = 2000, 208, 64


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
            batch = SECONDS_PER_UPDATE * RATE // window
            settings = [
                "--config=configs/default.py",
                f"--config.data.window={window}",
                f"--config.data.stride={window // 2}",
                f"--config.optim.batch_size={batch}",
                "--config.optim.accumulate=4",
                f"--config.optim.steps={steps}",
            ]
            plan = f"{folder}/plan.json"
            run = [sys.executable, "-m"]
            quiet = {"stdout": subprocess.DEVNULL, "check": True}
            subprocess.run([*run, "tds_jax.plan", *settings, f"--json={plan}"], **quiet)
            workdir = f"{folder}/{window}"
            subprocess.run([*run, "tds_jax.train", *settings, f"--workdir={workdir}"], **quiet)
            report = json.loads(Path(workdir, "report.json").read_text())
            values = report["splits"]["test"]["model"]
            mib = json.loads(Path(plan).read_text())["total"] / 2**20
            table.add_row(
                *(f"{window}", f"{window / RATE:g}", f"{batch}", f"{LEFT_CONTEXT / window:.0%}"),
                *(f"{mib:.0f} MiB", f"{values['r2']:.3f}", f"{values['mae_deg']:.2f}"),
            )
    Console().print(table)


if __name__ == "__main__":
    main()
