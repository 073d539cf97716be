"""Does host memory grow with the data? Peak of the whole process tree while training.

    python experiments/host_memory.py [--config=configs/low_memory.py] [--steps=30]

Trains on generated data sets of 1x and 16x the size (16 times the length, then 16 times the
files), and samples the proportional set size (PSS) of the trainer and its workers from outside
every 0.2 s, from start to the end of the final evaluation. Claim: peaks differ by less than 5 %.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tds_jax.engine.memory import format_bytes
from tds_jax.pose.synthetic import Simulation, synthesize


def tree_bytes(root):
    """PSS of a process and all its descendants; those that end meanwhile count 0."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def measure(command):
    """(peak bytes, seconds at the peak, seconds in all) of a command's process tree."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root, peak, when = psutil.Process(child.pid), 0, 0.0
    while child.poll() is None:
        try:
            now = tree_bytes(root)
        except psutil.NoSuchProcess:
            break
        if now > peak:
            peak, when = now, time.perf_counter() - started
        time.sleep(0.2)
    if child.wait():
        raise SystemExit(f"{' '.join(command)} failed with {child.returncode}")
    return peak, when, time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/low_memory.py")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    table = Table(title=f"{options.config}, {options.steps} steps, host PSS of the process tree")
    for name in (
        "data",
        "files",
        "minutes of EMG",
        "bytes on disk",
        "workers",
        "peak",
        "at",
        "vs 1x",
    ):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        # Sessions per user (the fifth is held-out poses) and seconds each.
        shapes = {"1x": (4, 20.0), "16x longer": (4, 320.0), "16x files": (78, 20.0)}
        for workers in options.workers:
            base = 0
            for size, (sessions, seconds) in shapes.items():
                simulation = Simulation(users=3, sessions=sessions, seconds=seconds)
                data = synthesize(Path(folder) / size.replace(" ", "_"), simulation)
                disk = sum(file.stat().st_size for file in data.iterdir())
                command = [
                    *(sys.executable, "-m", "tds_jax.train", f"--config={options.config}"),
                    f"--workdir={folder}/run_{data.name}_{workers}",
                    f"--config.data.path={data}",
                    f"--config.data.cache_dir={folder}/cache",
                    f"--config.data.workers={workers}",
                    f"--config.optim.steps={options.steps}",
                    "--config.optim.warmup_steps=5",
                    f"--config.eval.every={options.steps // 2}",
                ]
                peak, when, _ = measure(command)
                base = base or peak
                files = len(list(data.glob("*.hdf5")))
                minutes = files * simulation.seconds / 60
                table.add_row(
                    *(size, str(files), f"{minutes:.0f}", format_bytes(disk), str(workers)),
                    *(format_bytes(peak), f"{when:.0f} s", f"{peak / base - 1:+.1%}"),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
