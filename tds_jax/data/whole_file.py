"""Files that are whole or not there, however many write them and whatever stops a writer."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, to be written; takes that name when the block has ended.

    What was there before stays until then, and for good if the block raises. Each process has a
    temporary of its own, so of writers at once the last one's file is there, whole. Its name ends
    in '.tmp', which no reader takes; a writer that would add an ending takes an open file. Where
    it cannot be written, or the disk is full, the OSError names `path`.
    """
    path = Path(path)
    temporary = temporary_of(path, os.getpid())
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and (error.errno in FULL or error.filename == str(temporary)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_of(path: Path, process: int) -> Path:
    """Where a process of this machine writes what shall be `path`."""
    return path.with_name(f"{path.name}.{platform.node()}-{process}.tmp")


def sweep(folder: Path) -> None:
    """Removes the temporaries of writers on this machine that were killed."""
    for leftover in folder.rglob(f"*.{platform.node()}-*.tmp"):
        process = leftover.name.removesuffix(".tmp").rpartition("-")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
