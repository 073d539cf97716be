"""What a data set is made of, file by file: told from sampled bytes, cheap for any size.

Sizes and sampled blocks decide. Times of change only say whether a file must be read again: one
that was touched, copied or moved is the same. They are the system's (ctime), since a copy can take
over the time of modification of what it replaces.
"""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tds_jax.data.drive import blame_the_drive
from tds_jax.errors import UserError

EDGE = 2**16  # bytes at both ends: headers, attributes, directories of archives
BLOCK = 2**12
BLOCKS = 8  # between them, spread evenly: 160 KiB of any file, 4 GB and minutes of 25,000
THREADS = 16  # on network drives a read is a wait

Identities = dict[str, str]
"""Name -> 'size time hash'."""


def of_files(files: Mapping[str, str], known: Mapping[str, str]) -> Identities:
    """The identity of each file, by name; files whose size and time are as known are not read.

    files: name -> path. Raises UserError for one that cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: of_file(files[name], known.get(name, "")), files)
        return dict(zip(files, found, strict=True))


def of_file(path: str, known: str = "") -> str:
    """Its identity, not read where size and time are as known; UserError if it cannot be read."""
    try:
        stamp = _stamp(path)
        return known if known.startswith(stamp) else stamp + _sampled(path, stamp)
    except OSError as error:
        blame_the_drive(error, path)
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore the file") from error


def is_as_known(path: str, known: str) -> bool:
    """Whether the file is there with the size and time it had; it is not read."""
    try:
        return known.startswith(_stamp(path))
    except OSError:
        return False


def _stamp(path: str) -> str:
    """Size and time of change, as an identity begins."""
    stat = os.stat(path)
    return f"{stat.st_size} {stat.st_ctime_ns} "


def below(paths: Sequence[str]) -> dict[str, str]:
    """Name -> path of files and of all files in folders, named from the folder they share."""
    if not paths:
        return {}
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    found = [file for path in paths for file in _inside(path)]
    return {os.path.relpath(os.path.abspath(path), shared): path for path in found}


def _inside(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return sorted(os.path.join(at, name) for at, _, names in os.walk(path) for name in names)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A few words for every file that was added, removed or holds other bytes."""
    words = [f"{name} is missing" for name in before if name not in now]
    words += [f"{name} is new" for name in now if name not in before]
    both = (name for name in before if name in now)
    return words + [f"{n} has changed" for n in both if content(before[n]) != content(now[n])]


def content(identity: str) -> tuple[str, str]:
    """Size and hash, without the time."""
    size, _, found = identity.split(" ")
    return size, found


def fingerprint(files: Mapping[str, str], *settings: object) -> str:
    """One short hash of the names and contents of files, and of settings that print as they are."""
    found = hashlib.blake2b(repr(settings).encode() if settings else b"", digest_size=8)
    for name, identity in sorted(of_files(files, {}).items()):
        found.update(repr((name, content(identity))).encode())
    return found.hexdigest()


@functools.lru_cache(maxsize=2**17)
def _sampled(path: str, stamp: str) -> str:
    """stamp: makes the memory of an earlier call of this process forget a changed file."""
    found = hashlib.blake2b(digest_size=8)
    with open(path, "rb", buffering=0) as file:
        for start, length in _blocks(int(stamp.split()[0])):
            file.seek(start)
            found.update(file.read(length))
    return found.hexdigest()


def _blocks(size: int) -> list[tuple[int, int]]:
    """(start, length) of what is read: all of a small file."""
    if size <= 2 * EDGE + BLOCKS * BLOCK:
        return [(0, size)]
    between = size - 2 * EDGE - BLOCK
    inner = [(EDGE + between * i // (BLOCKS - 1), BLOCK) for i in range(BLOCKS)]
    return [(0, EDGE), *inner, (size - EDGE, EDGE)]
