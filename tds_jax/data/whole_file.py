"""Files that are whole or not there, however many write them and whatever stops a writer."""

import contextlib
import csv
import errno
import functools
import itertools
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tds_jax.data.drive import number_of

DAMAGED = "damaged"  # where a run keeps what it could not read
TEMPORARY, OLD = ".tmp", ".old.tmp"  # what is written, and what it takes the name of
LONGEST = 255  # bytes of a name, of nearly all file systems
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_KNOWN = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of fsync, to some file systems


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, to be written; takes that name when the block has ended.

    What was there before stays until then, and for good if the block raises. Each process has a
    temporary of its own, so of writers at once the last one's file is there, whole. It is on the
    disk before it takes the name: a machine that fails leaves one of the two, too. Its name ends
    in '.tmp', which no reader takes; a writer that would add an ending takes an open file. Where
    it cannot be written, or the disk is full, the OSError names `path`. What killed writers have
    left in its folder is removed.
    """
    path = Path(path)
    _sweep_once(path.parent, os.getpid())
    temporary = temporary_of(path, os.getpid())
    try:
        with naming(path, temporary):
            yield temporary
            to_disk(temporary)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def whole_table(path: str | Path) -> Iterator[Any]:
    """As `whole_file`, of a `csv.writer`. Names of files need not be UTF-8: what is none in a text
    is escaped."""
    with (
        whole_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield csv.writer(file)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """As `whole_file`, for a folder of files; for a moment, while names change, neither is there.

    Only its writer makes what is inside, so a folder that was there is replaced as a whole. What
    raises in that moment, a signal too, gives it its name again. A writer killed in it leaves it
    beside; it has its name again when anything is next written there.
    """
    path = Path(path)
    _sweep_once(path.parent, os.getpid())
    temporary, old = (temporary_of(path, os.getpid(), ending) for ending in (TEMPORARY, OLD))
    _clear(path, temporary, old)  # in a container, one that was killed had the same number
    try:
        with naming(path, temporary):
            temporary.mkdir()
            yield temporary
            to_disk(temporary)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
    finally:
        _clear(path, temporary, old)


def _clear(path: Path, temporary: Path, old: Path) -> None:
    """Removes what a writer leaves beside; but what was to be replaced, only where all is done."""
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Inside, the OSError of a full disk names `path`, and so does any of its temporary's.

    Libraries that write files say what they like of a full disk, in the system's words, and of a
    file that they cannot make, by its name.
    """
    try:
        yield
    except OSError as error:
        of_temporary = temporary and str(temporary) in (error.filename or str(error))
        if number := number_of(error, FULL) or (error.errno if of_temporary else None):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    except (ValueError, RuntimeError) as error:
        if full := number_of(error, FULL):
            raise OSError(full, os.strerror(full), str(path)) from error
        raise


def temporary_of(path: Path, process: int, ending: str = TEMPORARY) -> Path:
    """Where a process of this machine writes what shall be `path`: a name that is not too long."""
    ending = f".{writer(process)}{ending}"
    begins = os.fsencode(path.name)[: LONGEST - len(ending)]
    return path.with_name(os.fsdecode(begins) + ending)


def to_disk(place: Path) -> None:
    """Returns when a file, or all in a folder, are on the disk: systems write what they are given
    seconds later, and some give a file its new name before that."""
    for path in place.rglob("*") if place.is_dir() else [place]:
        if path.is_dir():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NOT_KNOWN:
                raise
        finally:
            os.close(descriptor)


def set_aside(path: Path, place: Path) -> Path:
    """Moves a file or folder into `place`, which may be new, under a name that is free there."""
    place.mkdir(exist_ok=True)
    names = (f"{path.name}{f'.{i}' if i else ''}" for i in itertools.count())
    target = next(place / name for name in names if not (place / name).exists())
    path.rename(target)
    return target


def sweep(folder: Path) -> None:
    """Removes the temporaries of writers on this machine that were killed."""
    for leftover in folder.rglob("*.tmp"):
        _remove_if_left(leftover)


@functools.lru_cache
def _sweep_once(folder: Path, process: int) -> None:
    """The same for one folder, once in a process: it may hold very many files."""
    with contextlib.suppress(OSError):  # writing will say what is wrong with it
        for name in os.listdir(folder):
            _remove_if_left(folder / name)


def _remove_if_left(path: Path) -> None:
    """What a killed writer was about to replace has its name again, if nothing else has."""
    replaced = path.name.endswith(OLD)
    name = path.name.removesuffix(OLD if replaced else TEMPORARY)
    if name == path.name or not was_killed(name):
        return
    place = path.with_name(name.removesuffix(f".{writer(int(name.rpartition('-')[2]))}"))
    if replaced and len(os.fsencode(path.name)) < LONGEST and not place.exists():
        path.rename(place)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def writer(process: int) -> str:
    """How names of what is being written end: which process of which machine does it."""
    return f"{platform.node()}-{process}"


def was_killed(name: str) -> bool:
    """Whether a name ends with `writer` of a process of this machine that is no more."""
    rest, _, process = name.rpartition("-")
    mine = rest.endswith(f".{platform.node()}")
    return mine and process.isdecimal() and not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
