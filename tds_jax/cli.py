"""What all doors share: parse, resolve, run, and one clear line when the user can fix it."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging

from tds_jax import config as configuration
from tds_jax.config import Config
from tds_jax.errors import UserError

USER_ERROR = 2


def launch(main: Callable[[], None]) -> NoReturn:
    """Parses the command line, runs main and exits: 0 done, 2 the user's input, 1 anything else."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        _parse(sys.argv)
        main()
    except UserError as error:
        _complain(str(error))
    except BrokenPipeError:  # the reader of our output has gone (e.g. `| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _parse(argv: list[str]) -> None:
    try:
        rest = flags.FLAGS(argv)
    # ml_collections raises the plain built-in errors for unknown fields, types and files.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(_flag_error(error)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; settings look like --config.optim.steps=100")


def _flag_error(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    return " ".join(text.split()) + "; see --help and configs/base.py"


def _complain(text: str) -> NoReturn:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(USER_ERROR)


def resolve(values: Mapping[str, Any]) -> Config:
    """The checked Config of nested values, and the allocator set up for it.

    Device memory settings act when jax first touches a device; nothing before this has.
    """
    from tds_jax import tasks  # imports jax: not before a data worker knows that it is one

    if "task" not in values:
        raise UserError("task is missing from the config; see configs/default.py")
    config = configuration.resolve(values, tasks.groups(values["task"]))
    _set_allocator(config.memory.preallocate, config.memory.fraction)
    return config


def _set_allocator(preallocate: bool, fraction: float) -> None:
    """How XLA takes GPU memory. A variable the user has set in the environment wins."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", str(preallocate).lower())
    # jax refuses to start when both the old and the new name are set.
    if fraction and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", f"{fraction:.3f}")


def default_workdir() -> Path:
    """runs/<config file's name>, for a command line that names none."""
    for argument in sys.argv:
        if found := re.match(r"--?config=(.*?)(\.py)?(:.*)?$", argument):
            return Path("runs") / Path(found[1]).name
    return Path("runs") / "default"
