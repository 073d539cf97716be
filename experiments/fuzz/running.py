"""Reads damaged copies in children that may die, hang or swell without harm to the rest."""

import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.fuzz.damage import damage
from experiments.fuzz.parsers import Parser
from tds_jax.errors import UserError

SECONDS = 10  # a file of a kilobyte that takes longer hangs
MORE_BYTES = (
    2 * 2**30
)  # of address space, beside what is used: a kilobyte that needs more is a bomb
HANGS = "hangs.txt"
# What only a program that was smuggled in would do.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")


class Finding(NamedTuple):
    """fault: '' for what is right, a value or one line; `where`: the innermost line of ours."""

    seed: int
    done: str
    fault: str
    where: str


class ForbiddenError(BaseException):
    """Raised by the audit hook."""


def readings(parser: Parser, seeds: range) -> Iterator[Finding]:
    """One finding per seed; a child reads them in turn until one kills it."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        good = parser.make(folder)
        parser.read(good)
        rest = list(seeds)
        while rest:
            found, code = _child(parser, good, folder, rest)
            yield from found
            rest = rest[len(found) :]
            if code and rest:
                yield _death(rest.pop(0), code, folder / HANGS)


def _death(seed: int, code: int, hang: Path) -> Finding:
    """What killed a child: a signal, or the watch over what no exception can interrupt."""
    if code < 0:
        return Finding(seed, "", f"the interpreter died: {signal.Signals(-code).name}", "")
    frames = re.findall(r'File "(.*)", line (\d+)', hang.read_text())
    inside, line = next(iter(frames), ("?", "?"))
    library = "/".join(Path(inside).parts[-3:])
    return Finding(seed, "", f"hangs: more than {2 * SECONDS} s in {library}:{line}", library)


def _child(parser: Parser, good: Path, folder: Path, seeds: list[int]) -> tuple[list[Finding], int]:
    """What a child found before it ended, and how it ended: 0, or minus the signal."""
    log = folder / "log.jsonl"
    log.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        _read_all(parser, good, log, seeds)
    _, status = os.waitpid(child, 0)
    lines = log.read_text().splitlines() if log.exists() else []
    return [Finding(*json.loads(line)) for line in lines], os.waitstatus_to_exitcode(status)


def _read_all(parser: Parser, good: Path, log: Path, seeds: list[int]) -> None:
    """Never returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries complain there
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, used + MORE_BYTES))
    signal.signal(signal.SIGALRM, _hangs)
    sys.addaudithook(_audit)
    with log.open("a") as file, (log.parent / HANGS).open("w") as hangs:
        for seed in seeds:
            faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=hangs)
            print(json.dumps(_read(parser, good, seed)), file=file, flush=True)
    os._exit(0)


def _read(parser: Parser, good: Path, seed: int) -> Finding:
    place = good.parent / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    copy = place / good.name
    (shutil.copytree if good.is_dir() else shutil.copy)(good, copy)
    done = damage(copy, np.random.default_rng(seed))
    signal.alarm(SECONDS)
    try:
        parser.read(copy)
    except UserError as error:
        fault = "" if str(error).strip() and "\n" not in str(error).strip() else "not one line"
        return Finding(seed, done, fault, str(error)[:200] if fault else "")
    except BaseException as error:
        return Finding(seed, done, f"{type(error).__name__}: {str(error)[:120]}", _where(error))
    finally:
        signal.alarm(0)
    return Finding(seed, done, "", "")


def _where(error: BaseException) -> str:
    """The innermost frame in this package, by which findings of one cause are told."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tds_jax/" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _hangs(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _audit(event: str, _: Any) -> None:
    if event in FORBIDDEN:
        raise ForbiddenError(event)
