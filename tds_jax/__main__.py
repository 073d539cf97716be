"""Says what there is to do. `python -m tds_jax train ...` does what tds_jax.train does.

Installed, `tds-jax train ...` and `tds-jax-train ...` do so, too.
"""

import ast
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import NoReturn

from tds_jax import presets
from tds_jax.version import __version__

DOORS = ["train", "evaluate", "predict", "plan", "check", "prepare", "synthesize"]
DOORS += ["import_torch", "export", "compare"]
USER_ERROR = 2


def main() -> NoReturn:
    """`tds-jax [DOOR] ...`: without a door, what there are."""
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first in DOORS:
        _become(first, sys.argv[2:])
    if first == "--version":
        print(f"tds_jax {__version__}")
    elif first in ("--help", "-h", "-help", "help"):
        _say("\n".join(_lines()))
    else:
        print(f"error: {first!r} is not known; use one of {', '.join(DOORS)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    sys.exit(0)


def _say(text: str) -> None:
    """Prints it, unless the reader has gone (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def script() -> NoReturn:
    """The door that the running script `tds-jax-<door>` is named after."""
    _become(Path(sys.argv[0]).stem.removeprefix("tds-jax-").replace("-", "_"), sys.argv[1:])


def _become(door: str, arguments: list[str]) -> NoReturn:
    """One way in: data workers and `heap` start the main module again."""
    os.execv(sys.executable, [sys.executable, "-m", f"tds_jax.{door}", *arguments])


def _lines() -> list[str]:
    """Names, and what each does in the words of its own first line, which needs no import."""
    width = shutil.get_terminal_size().columns
    lines = [f"tds_jax {__version__}: python -m tds_jax.DOOR --help has the options of", ""]
    for door in DOORS:
        text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{door}.py").read_text()))
        line = f"{door:<13} {(text or '').splitlines()[0]}"
        lines += textwrap.wrap(line, width, initial_indent="  ", subsequent_indent=" " * 16)
    lines += ["", "--config=FILE, or the name of one that comes with it:"]
    names = ", ".join(presets.names())
    return lines + textwrap.wrap(names, width, initial_indent="  ", subsequent_indent="  ")


if __name__ == "__main__":
    main()
