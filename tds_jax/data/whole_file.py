"""Files that are whole or not there, however many write them and whatever stops a writer."""

import contextlib
import errno
import itertools
import os
import platform
import shutil
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
        with naming(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """As `whole_file`, for a folder of files; for a moment, while names change, neither is there.

    Only its writer makes what is inside, so a folder that was there is replaced as a whole.
    """
    path = Path(path)
    temporary = temporary_of(path, os.getpid())
    old = temporary.with_name(f"{temporary.name}-old.tmp")
    try:
        with naming(path, temporary):
            temporary.mkdir()
            yield temporary
            if path.exists():
                path.rename(old)
            temporary.rename(path)
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Inside, the OSError of a full disk names `path`, and so does any of its temporary's.

    Libraries that write files say of a full disk what they like; all quote the system's words.
    """
    try:
        yield
    except OSError as error:
        of_temporary = temporary and error.filename == str(temporary)
        if number := _fullness(error) or (error.errno if of_temporary else None):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    except (ValueError, RuntimeError) as error:
        if full := _fullness(error):
            raise OSError(full, os.strerror(full), str(path)) from error
        raise


def _fullness(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno in FULL:
        return error.errno
    return next((number for number in FULL if os.strerror(number) in str(error)), None)


def temporary_of(path: Path, process: int) -> Path:
    """Where a process of this machine writes what shall be `path`."""
    return path.with_name(f"{path.name}.{platform.node()}-{process}.tmp")


def set_aside(path: Path, place: Path) -> Path:
    """Moves a file or folder into `place`, which may be new, under a name that is free there."""
    place.mkdir(exist_ok=True)
    names = (f"{path.name}{f'.{i}' if i else ''}" for i in itertools.count())
    target = next(place / name for name in names if not (place / name).exists())
    path.rename(target)
    return target


def sweep(folder: Path) -> None:
    """Removes the temporaries of writers on this machine that were killed."""
    for leftover in folder.rglob(f"*.{platform.node()}-*.tmp"):
        process = leftover.name.removesuffix(".tmp").rpartition("-")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
