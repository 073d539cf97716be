"""Trains a model within the memory you have; run it again to go on where it stopped.

    python -m tds_jax.train --config=configs/low_memory.py --workdir=runs/a \\
        [--config.data.path=DIR] [--config.optim.batch_size=32] [--seeds=3] \\
        [--folds=5 | --leave_one_user_out] [--sweep=FILE] ...

Writes config.json, metrics.jsonl, history.jsonl, checkpoints/ and plots/ into the workdir, shows
progress, and ends with the best checkpoint's table on `test`. Ctrl-C saves and exits with status
130, SIGTERM, a scheduler's, with 0; the same command goes on.
"""

import signal
import sys
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from tds_jax import cli, tasks, training
from tds_jax.data.workers import leave_out_jax
from tds_jax.engine import processes
from tds_jax.engine.peers import Left
from tds_jax.engine.stopping import GOES_ON, INTERRUPTED, StopError, StopSignal
from tds_jax.fields import require, require_at_least

# Data workers run this module again. Jax is therefore imported in functions only, which spares
# each of them 75 MiB.
leave_out_jax()

CONFIG = config_flags.DEFINE_config_file("config", None, cli.CONFIG)
FOLDS = flags.DEFINE_integer("folds", None, "Train so many times, another part being the test.")
USERS = flags.DEFINE_bool("leave_one_user_out", False, "Train for every user, who is the test.")
SWEEP = flags.DEFINE_string("sweep", None, "Train with each of the settings that a file lists.")
SEEDS = flags.DEFINE_integer("seeds", None, "Train so many seeds, in workdir/seed0 and so on.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
flags.mark_flag_as_required("config")
cli.define_processes()


def main() -> None:
    """Plan if there is a budget, train, then evaluate the best checkpoint on `test`."""
    if SEEDS.value is not None or FOLDS.value is not None or USERS.value or SWEEP.value:
        cli.leave(_several())
    try:
        with StopSignal() as stop, stop.raising():
            _main(stop)
    except StopError as stopped:
        print(GOES_ON)
        _leave(str(stopped))


def _several() -> int:
    from tds_jax import several

    config = CONFIG.value.to_dict()
    kinds = [several.sweep(SWEEP.value)] if SWEEP.value else []
    if FOLDS.value is not None or USERS.value:
        require(
            FOLDS.value is None or not USERS.value,
            "--folds and --leave_one_user_out are two ways to cut the data; give one",
        )
        count = 0 if USERS.value else int(FOLDS.value or 0)
        require_at_least("--folds", count, 0 if USERS.value else 3)
        parts = tasks.job("folds", config["task"])(cli.checked(config), count)
        kinds.append(several.folds(parts))
    if SEEDS.value is not None:
        require_at_least("--seeds", SEEDS.value, 1)
        kinds.append(several.seeds(SEEDS.value, CONFIG.value.seed))
    folder = Path(WORKDIR.value) if WORKDIR.value else cli.default_workdir()
    return several.train(several.together(kinds), config, folder, sys.argv[1:])


def _main(stop: StopSignal) -> None:
    asked = cli.resolve(CONFIG.value.to_dict())
    folder = Path(WORKDIR.value) if WORKDIR.value else cli.default_workdir()
    finished = training.train(asked, folder, stop)
    if finished.signal:
        _leave(finished.signal)


def _leave(name: str) -> NoReturn:
    """Of the signals that stop a run, Ctrl-C alone also stops what was to come after it."""
    status = INTERRUPTED if name == signal.SIGINT.name else 0
    processes.leave(Left(status, "stopped", name))
    cli.leave(status)


if __name__ == "__main__":
    cli.launch(main)
