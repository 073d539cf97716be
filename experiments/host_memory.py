"""Does host memory grow with the data? Peak of the whole process tree while training.

    python -m experiments.host_memory [--config=configs/low_memory.py] [--workers=0]

Trains on generated data sets of 1x and 16x the size (16 times the length, then 16 times the
files), and samples the proportional set size (PSS) of the trainer and its workers from outside
every 0.2 s, from start to the end of the final evaluation. The peak of the whole run is that of
the compiler, which varies by some 8 % from run to run with the timing of its threads; the peak
once compiled is that of training and evaluating. Medians over repeats, sizes interleaved. Claim:
the peak once compiled differs by less than 5 % between 1x and 16x.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from tds_jax.data.generated import synthesize
from tds_jax.pose.synthetic import Simulation
from tds_jax.sizes import format_bytes


def tree_bytes(root):
    """PSS of a process and all its descendants; those that end meanwhile count 0."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().pss
    return total


def measure(command):
    """(peak, peak once compiled, seconds in all) of a training command's process tree.

    The trainer says what a step needs when it has compiled it.
    """
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    compiled = threading.Event()

    def listen():
        for line in child.stdout:
            if "a step needs" in line:
                compiled.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    root, peak, later = psutil.Process(child.pid), 0, 0
    while child.poll() is None:
        now = tree_bytes(root)
        peak = max(peak, now)
        later = max(later, now) if compiled.is_set() else 0
        time.sleep(0.2)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {child.returncode}")
    return peak, later, time.perf_counter() - started


# Sessions per user (the fifth is of the held-out stage) and seconds each.
SHAPES = {"1x": (4, 20.0), "16x longer": (4, 320.0), "16x files": (78, 20.0)}


def train(config, steps, workers, data, workdir):
    """The peaks of one training run."""
    command = [
        *(sys.executable, "-m", "tds_jax.train", f"--config={config}", f"--workdir={workdir}"),
        f"--config.data.path={data}",
        f"--config.data.cache_dir={workdir.parent / 'cache'}",
        f"--config.data.workers={workers}",
        f"--config.optim.steps={steps}",
        "--config.optim.warmup_steps=5",
        f"--config.eval.every={steps // 2}",
    ]
    return measure(command)[:2]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/low_memory.py")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    title = f"{options.config}, {options.workers} workers, median of {options.repeats}, host PSS"
    table = Table(title=title)
    for name in ("data", "files", "EMG [min]", "disk", "whole run", "once compiled", "vs 1x"):
        table.add_column(name, justify="right", no_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        places = {}
        for size, (sessions, seconds) in SHAPES.items():
            simulation = Simulation(users=3, sessions=sessions, seconds=seconds)
            places[size] = synthesize(Path(folder) / size.replace(" ", "_"), simulation)
        peaks = {size: [] for size in SHAPES}
        for repeat in range(options.repeats):
            for size, data in places.items():
                workdir = Path(folder) / f"run_{data.name}_{repeat}"
                run = (options.config, options.steps, options.workers, data, workdir)
                peaks[size].append(train(*run))
        medians = {size: np.median(values, axis=0) for size, values in peaks.items()}
        for size, (whole, later) in medians.items():
            files = list(places[size].glob("*.hdf5"))
            disk = sum(file.stat().st_size for file in files)
            minutes = len(files) * SHAPES[size][1] / 60
            table.add_row(
                *(size, str(len(files)), f"{minutes:.0f}", format_bytes(disk)),
                *(format_bytes(whole), format_bytes(later), f"{later / medians['1x'][1] - 1:+.1%}"),
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
