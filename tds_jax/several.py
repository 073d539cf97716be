"""The same training several times, one process after another, and what the runs come to.

Seeds, folds of the data and settings of a sweep go together: each of one with each of the others.
"""

import itertools
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tds_jax import cli, compare
from tds_jax.data import json_file
from tds_jax.engine.stopping import GOES_ON, INTERRUPTED, SIGNALS, StopError
from tds_jax.errors import UserError
from tds_jax.settings import settings

# Flags that each training gets its own of; those of TRUE take no word after them.
OWN = ("seeds", "folds", "sweep", "workdir", "config.seed", "config.data.fold")
TRUE = ("leave_one_user_out", "noleave_one_user_out")
FOLD = "data.fold"

Variants = Mapping[str, Mapping[str, Any]]
"""What each training of several is called, and its settings."""


def seeds(count: int, first: int) -> Variants:
    """seed0, seed1 …: so many, from the config's on."""
    return {f"seed{seed}": {"seed": seed} for seed in range(first, first + count)}


def folds(parts: Sequence[str]) -> Variants:
    """fold1of5 …, or user=NAME …: each value of data.fold."""
    return {
        f"fold{part.replace('/', 'of')}" if "=" not in part else _plain(part): {FOLD: part}
        for part in parts
    }


def sweep(file: str) -> Variants:
    """The settings of a sweep's file, each called by its values.

    A .json file, or a .py file with get_sweep(): {setting: [values]} for each with each, or a list
    of {setting: value}. UserError for another.
    """
    found = _read(file)
    if isinstance(found, Mapping) and all(isinstance(v, list | tuple) for v in found.values()):
        pairs = [[(name, value) for value in values] for name, values in found.items()]
        found = [dict(chosen) for chosen in itertools.product(*pairs)]
    if not (isinstance(found, list) and found and all(isinstance(c, Mapping) and c for c in found)):
        raise UserError(
            f"--sweep={file} must hold {{setting: [values]}}, or a list of {{setting: value}}"
        )
    names = [_called(changes) for changes in found]
    if len(set(names)) < len(names):
        raise UserError(f"--sweep={file} names one set of settings twice; leave one out")
    return dict(zip(names, found, strict=True))


def _read(file: str) -> Any:
    if not Path(file).is_file():
        raise UserError(f"--sweep={file} is not there; check the path")
    if file.endswith(".json"):
        return json_file.read(Path(file), "correct it")
    try:
        return runpy.run_path(file)["get_sweep"]()
    except Exception as error:  # a program, in which anything may go wrong
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"--sweep={file} cannot be used ({reason}); check the file") from error


def _called(changes: Mapping[str, Any]) -> str:
    """'learning_rate=0.01,hidden=64'; whole names where two end alike."""
    short = [name.rpartition(".")[2] for name in changes]
    names = short if len(set(short)) == len(short) else list(changes)
    return ",".join(
        _plain(f"{n}={_short(v)}") for n, v in zip(names, changes.values(), strict=True)
    )


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(text: str) -> str:
    """As the name of a folder."""
    return re.sub(r"[^\w.,=+-]+", "-", text).strip("-")


def together(kinds: Sequence[Variants]) -> Variants:
    """Each of one kind with each of the others: names joined by '_', settings merged."""
    found: dict[str, Mapping[str, Any]] = {}
    for chosen in itertools.product(*(kind.items() for kind in kinds)):
        names, changes = zip(*chosen, strict=True)
        found["_".join(names)] = {k: v for each in changes for k, v in each.items()}
    return found


def train(variants: Variants, config: Mapping[str, Any], folder: Path, argv: list[str]) -> int:
    """Trains each variant in folder/<its name>, and prints them beside each other.

    argv: the command line's flags; config: the values they make. All variants are checked before
    the first begins. Returns the status of the first training that does not end with 0, or 0; a
    signal ends the training of now as it ends any, and none begins after it. Given again, it goes
    on with what is not finished. Raises UserError where the folder is a run of its own.
    """
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is a run; name another --workdir for several trainings")
    for changes in variants.values():
        cli.checked(settings(config, changes))
    for number, (name, changes) in enumerate(variants.items(), start=1):
        workdir = folder / name
        print(f"training {number} of {len(variants)}: {workdir}", flush=True)
        own = [f"--config.{setting}={_flag(value)}" for setting, value in changes.items()]
        flags = [*without(argv), f"--workdir={workdir}", *own]
        try:
            status = _run([sys.executable, "-m", "tds_jax.train", *flags])
        except StopError as stopped:
            print(GOES_ON)
            return INTERRUPTED if str(stopped) == signal.SIGINT.name else 0
        if status:
            return status
    compare.show([str(folder)], "test", str(folder / "compare.png"), str(folder / "compare.json"))
    return 0


def _flag(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, list) else str(value)


def without(argv: list[str]) -> list[str]:
    """The flags but for OWN, written --name=VALUE or --name VALUE."""
    kept, skipping = [], False
    for word in argv:
        name, equals, _ = word.lstrip("-").partition("=")
        own = word.startswith("-") and name in (*OWN, *TRUE)
        if not own and not skipping:
            kept.append(word)
        skipping = own and not equals and name not in TRUE
    return kept


def _run(command: list[str]) -> int:
    """Its status. A terminal's Ctrl-C reaches both processes; what it does is the training's.

    Raises StopError where a signal came and the training has saved and ended well: it is not the
    only one that is meant.
    """
    came: list[int] = []
    running: list[subprocess.Popen] = []

    def hear(number: int, frame: object) -> None:
        came.append(number)
        for process in running if number == signal.SIGTERM else ():
            process.send_signal(number)

    waking = signal.set_wakeup_fd(-1)  # else StopSignal would end this process before the other
    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        with subprocess.Popen(command) as process:
            running.append(process)
            status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waking)
    if came and status in (0, -came[0]):
        raise StopError(signal.Signals(came[0]).name)
    return status
