"""One writer per workdir: a lock that ends with its holder, whatever ends that.

The kernel holds it (flock) and lets go when the process dies. Where file systems do not carry such
locks from host to host, the file's age tells: a holder touches it every BEAT seconds.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tds_jax.data.whole_file import naming
from tds_jax.errors import UserError

LOCK = ".lock"
TURN = ".turn"
BEAT = 5.0  # s
PATIENCE = 4  # beats that a living holder on another host does not miss
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; UserError naming process and host of another holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+b", buffering=0) as file:
        _take(file, folder)
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(file, stop), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            file.truncate(0)


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Waits until nobody else reads and changes a file of a folder, who may not be its one writer.

    For moments: evaluations of a run go on beside each other, and beside its training. Where file
    systems have no such locks nobody waits.
    """
    with (folder / TURN).open("ab") as file:
        _flock(file, fcntl.LOCK_EX)
        yield


def _take(file: IO[bytes], folder: Path) -> None:
    locked = _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder = _holder(file)
    if locked is False:
        raise UserError(_words(folder, holder))
    elsewhere = holder.get("host") != platform.node()
    if holder and (elsewhere or locked is None) and _is_touched(file):
        raise UserError(_words(folder, holder))
    with naming(folder / LOCK):
        file.truncate(0)
        file.write(json.dumps({"host": platform.node(), "process": os.getpid()}).encode())


def _flock(file: IO[bytes], how: int) -> bool | None:
    """Whether the lock is ours now, which it is if waited for; None where there are no such."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return None
    return True


def _holder(file: IO[bytes]) -> dict[str, Any]:
    """What the last holder wrote; nothing if it has let go, or was killed while writing."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_touched(file: IO[bytes]) -> bool:
    """Looks for as long as a living holder needs to touch the file; clocks are not compared."""
    before = os.fstat(file.fileno()).st_mtime_ns
    for _ in range(PATIENCE):
        time.sleep(BEAT)
        os.stat(file.name)  # a network file system asks its server again
        if os.fstat(file.fileno()).st_mtime_ns != before:
            return True
    return False


def _beat(file: IO[bytes], stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with contextlib.suppress(OSError):  # a drive may come back before PATIENCE ends elsewhere
            os.utime(file.fileno())


def _words(folder: Path, holder: dict[str, Any]) -> str:
    who = "another process"
    if {"process", "host"} <= holder.keys():
        who = f"process {holder['process']} on {holder['host']}"
    return f"--workdir={folder} is being written by {who}; wait for it, stop it or name another"
