"""How fast are windows read, and does memory grow with the data? No model, only the loader.

    python -m experiments.loader [--seconds 4]

Windows of `low_memory` (2000 samples of 16 channels, labels at 50 Hz), batches of 16, shuffled,
files in the system's cache. `of raw`: against reading the same bytes in sequence with h5py, one
thread. Larger data sets are the same files under more names. Memory is the whole process tree's,
without the interpreter and libraries it started with.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import h5py
from rich.console import Console
from rich.table import Table

from tds_jax.data.workers import leave_out_jax
from tds_jax.sizes import MIB

leave_out_jax()  # workers run this module again, as they do `train`

CASES = (
    # copies of the data, stored as, workers, threads
    (1, "contiguous", 0, 0),
    (1, "contiguous", 0, 2),
    (1, "contiguous", 1, 2),
    (1, "contiguous", 2, 2),
    (1, "gzip", 0, 0),
    (1, "gzip", 0, 2),
    (1, "gzip", 1, 2),
    (1, "gzip", 2, 2),
    (4, "contiguous", 0, 2),
    (16, "contiguous", 0, 2),
    (64, "contiguous", 0, 2),
)


def stored(source, target, kind):
    """The recordings again, contiguous as they are or in gzip chunks of 2000 rows."""
    target.mkdir()
    for path in source.glob("*"):
        shutil.copy(path, target)
        if kind == "gzip" and path.suffix == ".hdf5":
            (target / path.name).unlink()
            with h5py.File(path) as old, h5py.File(target / path.name, "w") as new:
                group = new.create_group("emg2pose")
                group.attrs.update(old["emg2pose"].attrs)
                rows = old["emg2pose/timeseries"][:]
                group.create_dataset("timeseries", data=rows, chunks=(2000,), compression="gzip")


def multiplied(folder, target, copies):
    """`copies` hard links (symbolic ones are left out) to each recording, and metadata.csv."""
    target.mkdir()
    lines = (folder / "metadata.csv").read_text().splitlines()
    table = [lines[0]]
    for copy in range(copies):
        for line in lines[1:]:
            name, _, rest = line.partition(",")
            (target / f"{copy:02d}{name}.hdf5").hardlink_to(folder / f"{name}.hdf5")
            table.append(f"{copy:02d}{name},{rest}")
    (target / "metadata.csv").write_text("\n".join(table) + "\n")


def raw(folder):
    """Bytes of rows per second, read in sequence."""
    started, count = time.perf_counter(), 0
    for path in sorted(folder.glob("*.hdf5")):
        with h5py.File(path) as file:
            rows = file["emg2pose/timeseries"]
            for start in range(0, len(rows), 65536):
                count += rows[start : start + 65536].nbytes
    return count / (time.perf_counter() - started)


def windows_per_second(folder, cache, workers, threads, seconds):
    """(windows/s, bytes a window reads, peak of added memory)."""
    from experiments.measuring import load
    from tds_jax import config as configuration
    from tds_jax import tasks
    from tds_jax.budget.memory import HostMeter, host_bytes
    from tds_jax.data.pipeline import Loader

    config = load("low_memory", data__path=str(folder), data__cache_dir=str(cache))
    config = configuration.replace(config, {"data.workers": workers, "data.threads": threads})
    before = host_bytes()
    with HostMeter(seconds=0.2) as meter:
        task = tasks.get(config)
        source = task.source("train")
        loader = Loader(
            source, micro_batch=16, seed=0, train=True,
            workers=workers, threads=threads, prefetch=config.data.prefetch,
        )  # fmt: skip
        batches = loader.train_batches(0)
        for _ in range(8):
            next(batches)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            count += len(next(batches)["emg"])
        rate = count / (time.perf_counter() - started)
        loader.close()
    with h5py.File(next(folder.glob("*.hdf5"))) as file:
        row = file["emg2pose/timeseries"].dtype.itemsize
    return rate, row * config.data.window, meter.peak - before


def main():
    from tds_jax.data.generated import synthesize
    from tds_jax.pose.synthetic import Simulation

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    table = Table(title="windows of low_memory, 2 CPU cores")
    for name in ("data", "hours", "stored", "workers", "threads"):
        table.add_column(name, justify="right")
    for name in ("windows/s", "MB/s", "of raw", "added memory"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        synthesize(base / "made", Simulation(users=2, sessions=3, seconds=40.0, seed=0))
        for kind in ("contiguous", "gzip"):
            stored(base / "made", base / kind, kind)
        for copies, kind, workers, threads in CASES:
            folder = base / f"{kind}{copies}"
            if not folder.exists():
                multiplied(base / kind, folder, copies)
            speed = raw(base / kind)
            rate, size, added = windows_per_second(
                folder, base / "cache", workers, threads, options.seconds
            )
            hours = len(list(folder.glob("*.hdf5"))) * 40 / 3600
            table.add_row(
                *(f"{copies}x", f"{hours:.2f}", kind, str(workers), str(threads), f"{rate:.0f}"),
                *(f"{rate * size / 1e6:.0f}", f"{rate * size / speed:.0%}"),
                f"{added / MIB:.0f} MiB",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
