"""The same training with several seeds, one process after another, and what they come to."""

import signal
import subprocess
import sys
from pathlib import Path

from tds_jax import compare
from tds_jax.errors import UserError

OWN = ("seeds", "workdir", "config.seed")  # flags that each training gets its own of
NAME = "seed"


def train(count: int, first: int, folder: Path, argv: list[str]) -> int:
    """Trains `count` seeds from `first` on, in folder/seed<n>, and prints their mean ± SD.

    argv: the command line's flags. Returns the status of the first training that does not end
    with 0, or 0; signals are its own from then on. Given again, it goes on with what is not
    finished. Raises UserError where the folder is a run of its own.
    """
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is a run; name another --workdir for several seeds")
    for seed in range(first, first + count):
        workdir = folder / f"{NAME}{seed}"
        print(f"seed {seed}: {workdir}", flush=True)
        flags = [*without(argv), f"--workdir={workdir}", f"--config.seed={seed}"]
        if status := _run([sys.executable, "-m", "tds_jax.train", *flags]):
            return status
    compare.show([str(folder)], "test", str(folder / "compare.png"), str(folder / "compare.json"))
    return 0


def without(argv: list[str]) -> list[str]:
    """The flags but for OWN, written --name=VALUE or --name VALUE."""
    kept, skipping = [], False
    for word in argv:
        name, equals, _ = word.lstrip("-").partition("=")
        own = word.startswith("-") and name in OWN
        if not own and not skipping:
            kept.append(word)
        skipping = own and not equals
    return kept


def _run(command: list[str]) -> int:
    """Its status. A terminal's Ctrl-C reaches both processes; what it does is the training's."""
    with subprocess.Popen(command) as process:
        signal.set_wakeup_fd(-1)  # else StopSignal would end this process before the other
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        return process.wait()
