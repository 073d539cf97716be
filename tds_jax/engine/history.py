"""What happened to a run: history.jsonl, a line at each start and one at each end.

Lines are only ever added. A start that no end follows was killed: the next start says so, since
the dead could not. Times are UTC; `metrics.jsonl` has what was learnt.
"""

import contextlib
import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from tds_jax.data import json_file
from tds_jax.data.whole_file import naming
from tds_jax.engine.stopping import StopError
from tds_jax.version import __version__

HISTORY = "history.jsonl"
START, END = "start", "end"
Line = dict[str, Any]
Made = Mapping[str, str | int]
UNTOLD: Made = MappingProxyType({})


def read(folder: Path) -> list[Line]:
    """Every whole line; one that a kill or a full disk has cut short is left out."""
    return json_file.read_lines(folder / HISTORY)[0]


def start(folder: Path, plan: str) -> None:
    """Notes that this process begins or goes on, and that one before it was killed.

    plan: how it trains, in words.
    """
    end(folder, "killed, or its machine stopped; found at the next start")
    about = {
        "host": platform.node(),
        "process": os.getpid(),
        "folder": str(folder.absolute()),
        **made_with(),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "plan": plan,
    }
    _append(folder, START, about)


def made_with() -> Line:
    """Versions and device, of which results may depend."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def made_by(folder: Path, step: int) -> Made:
    """What a file of predictions says of the model: its run's folder, updates, our version."""
    name = folder.resolve().name.encode(errors="backslashreplace").decode()
    return {"run": " ".join(name.split()), "step": step, "version": f"tds_jax {__version__}"}


def now() -> str:
    """This second, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def end(folder: Path, how: str, **more: Any) -> None:
    """Notes how the run ended that was noted last; nothing if its end is known, or none began."""
    lines = read(folder)
    if lines and lines[-1].get("event") == START:
        _append(folder, END, {"how": how, **more})


@contextlib.contextmanager
def recorded(folder: Path, plan: str) -> Iterator[None]:
    """Inside, a run goes on; what ends it by raising is noted."""
    start(folder, plan)
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # on a full disk, the error itself says more
            end(folder, _words(error))
        raise


def _words(error: BaseException) -> str:
    if isinstance(error, StopError):
        return stopped(str(error))
    text = " ".join(str(error).split())
    return f"error: {type(error).__name__}{': ' if text else ''}{text}"


def stopped(signal_name: str) -> str:
    """How a run ended that a signal ended, with all saved."""
    return f"stopped by {signal_name}"


def _append(folder: Path, event: str, values: Line) -> None:
    path = folder / HISTORY
    with naming(path), path.open("a+b") as file:
        text = json.dumps({"event": event, "time": now(), **values}) + "\n"
        file.write((_newline(file) + text).encode())
        file.flush()
        os.fsync(file.fileno())


def _newline(file: Any) -> str:
    """One, where the last line was cut short."""
    if not file.seek(0, os.SEEK_END):
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == b"\n" else "\n"
