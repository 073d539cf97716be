"""Global heaps of HDF5 files, where texts and lists of any length are: damage that HDF5 misses.

HDF5 2.0 walks through a heap by the sizes that stand in it, and where one is 0 it never returns
from the call; nothing in Python can interrupt that. So they are looked through before it opens the
file, at both ends of it: a writer puts them there, before or after the rows.
"""

import os
import struct

from tds_jax.data.drive import reading
from tds_jax.errors import UserError

EDGE = 2**16  # bytes at each end
_BEGINS = b"GCOL\x01\0\0\0"
_HEAD = 16  # bytes, of a heap and of each object in it


def require_ends(path: str) -> None:
    """UserError where HDF5 would read this file for ever."""
    if any(_is_endless(part) for part in _edges(path)):
        raise UserError(
            f"{path}: a heap in it is damaged, and HDF5 would never come back; copy it again"
        )


def _edges(path: str) -> list[bytes]:
    with reading(path), open(path, "rb", buffering=0) as file:
        first = file.read(EDGE)
        if len(first) < EDGE:
            return [first]
        file.seek(max(EDGE, os.fstat(file.fileno()).st_size - EDGE))
        return [first, file.read()]


def _is_endless(part: bytes) -> bool:
    """Whether a heap that begins in these bytes holds an object after which there is no next."""
    at = part.find(_BEGINS)
    while at >= 0:
        size = int.from_bytes(part[at + 8 : at + _HEAD], "little")
        end, place = min(at + size, len(part)), at + _HEAD
        while place + _HEAD <= end:
            index, length = struct.unpack_from("<H6xQ", part, place)
            step = (_HEAD + -(-length // 8) * 8 if index else length) % 2**64
            if not step:
                return True
            place += step
        at = part.find(_BEGINS, at + 1)
    return False
