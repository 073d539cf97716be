"""Does a run survive a device that runs out of memory? Under a limit that is really there.

    python -m experiments.out_of_memory

quick_demo with one micro-batch of 1024 windows (1.1 GiB) under `ulimit -v` (RLIMIT_AS), so that
XLA's own allocation fails. The same run without a limit, in small pieces, is the reference. (Where
the limit leaves less than C++ needs for its own small things, it ends the process before anyone
could react; then the same command goes on from the last checkpoint.)
"""

import json
import resource
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

from tds_jax.sizes import MIB, format_bytes

ROOM = 900 * MIB  # beside what the small run takes: less than the large step, more than half

SETTINGS = {
    "data.synthetic_users": 1, "data.synthetic_sessions": 3, "data.synthetic_seconds": 10.0,
    "optim.batch_size": 1024, "optim.steps": 8, "optim.warmup_steps": 1, "optim.optimizer": "sgd",
    "eval.every": 4, "checkpoint.every": 2, "log.every": 1, "log.plots": False,
    "memory.compile_cache": "off",
}  # fmt: skip


def train(workdir, limit=None, **changes):
    """(seconds, largest address space, lines said) of a run under a limit from its start."""
    values = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    command = [sys.executable, "-m", "tds_jax.train", "--config=configs/quick_demo.py"]
    command += [f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in values.items())]

    def at_start():
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    started = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=at_start
    )
    seen = []
    watcher = threading.Thread(target=_watch, args=(child, seen))
    watcher.start()
    said = [line.rstrip() for line in child.stdout]
    watcher.join()
    assert child.wait() == 0, "\n".join(said)
    return time.perf_counter() - started, max(seen), said


def _watch(child, seen):
    process = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            seen.append(process.memory_info().vms)
        except psutil.Error:
            return
        time.sleep(0.02)


def losses(workdir):
    """Training losses by step."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return np.array([line["loss"] for line in found if line["split"] == "train"])


def main():
    table = Table(title="quick_demo, batch 1024, 8 updates of SGD, f32, CPU")
    for name in ("run", "limit", "micro-batch", "seconds", "losses"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        seconds, peak, _ = train(base / "free", optim__accumulate=16)
        expected = losses(base / "free")
        table.add_row("no limit", "none", "64 x 16", f"{seconds:.0f}", "")
        limit = peak + ROOM
        seconds, _, said = train(base / "limited", limit, optim__accumulate=1)
        optim = json.loads((base / "limited" / "config.json").read_text())["optim"]
        away = np.abs(losses(base / "limited") / expected - 1).max()
        table.add_row(
            *("begun as 1024 x 1", format_bytes(limit)),
            f"{optim['batch_size'] // optim['accumulate']} x {optim['accumulate']}",
            *(f"{seconds:.0f}", f"within {away:.0e}"),
        )
        print(*(line for line in said if "memory" in line or "on the device" in line), sep="\n")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
