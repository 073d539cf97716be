"""How many windows does one core load, against a plain copy of the same bytes?

    python -m experiments.loader_rates [--rounds 15] [--files 25000] [--batch 16]
        [--against CHECKOUT]

Windows of `low_memory`, shuffled, one thread, files in the system's cache. batch: windows read at
once, 16 as one micro-batch, 64 as a card's whole update.
Plain: as many windows at random rows of the same contiguous files, mapped, copied into as large an
array. Every case is a process of its own that answers in turn, a round of 320 windows at a
time; CPU seconds, so that other work on the machine counts only by its use of caches. against:
another checkout, whose loader runs the same cases. Many files: hard links to a few recordings of
one window and a half each, contiguous, `first` when no file was read before, `again` when all were.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUND = 320  # windows


def loader(config, batch):
    """One thread's loader of a config's train split."""
    from tds_jax import tasks
    from tds_jax.data.pipeline import Loader

    source = tasks.get(config).source("train")
    return Loader(source, micro_batch=batch, seed=0, train=True, workers=0, threads=0, prefetch=1)


def plain(folder, count):
    """Endless copies of as many windows from mapped files."""
    import h5py

    fields = []
    for path in sorted(Path(folder).glob("*.hdf5")):
        with h5py.File(path) as file:
            rows = file["emg2pose/timeseries"]
            where = {"offset": rows.id.get_offset(), "shape": rows.shape}
            fields.append(np.memmap(path, rows.dtype, "r", **where).view(np.ndarray)["emg"])
    rng = np.random.default_rng(0)
    while True:
        batch = np.empty((count, 2000, 16), np.float32)
        for window in batch:
            emg = fields[rng.integers(len(fields))]
            start = rng.integers(len(emg) - 2000)
            window[...] = emg[start : start + 2000]
        yield batch


def serve(folder, cache, visit, rounds, batch):
    """Answers every line of input with the CPU microseconds a window of the next round took."""
    if visit == "plain":
        batches = plain(folder, batch)
    else:
        from experiments.measuring import load

        made = loader(load("low_memory", data__path=folder, data__cache_dir=cache), batch)
        batches = made.train_batches(0)
        if visit == "again":
            for _ in range(rounds * ROUND // batch):
                next(batches)
            batches = made.train_batches(0)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        for _ in range(ROUND // batch):
            next(batches)
        print((time.process_time() - started) * 1e6 / ROUND, flush=True)


def child(root, *arguments):
    """A process that serves with the tds_jax of a checkout."""
    command = [sys.executable, os.path.abspath(__file__), "--serve", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)}, **pipes)


def ask(process):
    """One answer; a case that has none ends the whole."""
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def many(base, count):
    """A folder of so many short recordings."""
    from experiments.loader import multiplied, stored
    from tds_jax.data.generated import synthesize
    from tds_jax.pose.synthetic import Simulation

    packed, made, target = base / "packed", base / "short", base / "many"
    synthesize(packed, Simulation(users=2, sessions=3, seconds=1.5, seed=0))
    stored(packed, made, "contiguous")
    multiplied(made, target, -(-count // len(list(made.glob("*.hdf5")))))
    return target


def main():
    from rich.console import Console
    from rich.table import Table

    from experiments.loader import stored
    from tds_jax.data.generated import synthesize
    from tds_jax.pose.synthetic import Simulation

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--files", type=int, default=25_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--against", default="")
    options = parser.parse_args()
    batch = options.batch
    here = Path(__file__).parents[1]
    versions = {"": here} | ({"before": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        synthesize(base / "made", Simulation(users=3, sessions=7, seconds=40.0, seed=0))
        folders = {kind: base / kind for kind in ("contiguous", "gzip")}
        for kind, folder in folders.items():
            stored(base / "made", folder, kind)
        folders[f"{options.files} files"] = many(base, options.files)
        cases = [(kind, "first" if "files" in kind else "again") for kind in folders]
        cases += [(kind, "again") for kind in folders if "files" in kind]
        running = {("plain copy", ""): child(here, folders["contiguous"], "", "plain", 0, batch)}
        for kind, visit in cases:
            for version, root in versions.items():
                asked = folders[kind], base / f"cache{version}", visit, options.rounds, batch
                running[f"{kind}, {visit}", version] = process = child(root, *asked)
                process.stdout.readline()  # one after the other: they share an index
        running["plain copy", ""].stdout.readline()
        found = {case: [] for case in running}
        for _ in range(options.rounds):
            for case, process in running.items():
                found[case].append(ask(process))
        for process in running.values():
            process.communicate()
    table = Table(title="one core, windows of low_memory")
    for name in ("case", "version", "us a window: least", "median", "windows/s: best", "median"):
        table.add_column(name, justify="right")
    table.add_column("of plain: best, median", justify="right")
    least = min(found["plain copy", ""]), statistics.median(found["plain copy", ""])
    for (kind, version), times in found.items():
        both = min(times), statistics.median(times)
        shares = ", ".join(f"{a / b:.0%}" for a, b in zip(least, both, strict=True))
        cells = *(f"{one:.1f}" for one in both), *(f"{1e6 / one:.0f}" for one in both)
        table.add_row(kind, version, *cells, shares)
    Console(width=120).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:5], *map(int, sys.argv[5:]))
    else:
        main()
