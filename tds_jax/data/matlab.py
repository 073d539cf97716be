"""Variables of MATLAB files of version 5, looked through before scipy reads them.

scipy trusts what such a file says of its own sizes, and a damaged one can end the interpreter.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import io

HEADER = 128  # bytes; the last two tell the byte order
MATRIX, COMPRESSED = 14, 15  # types of elements
# Classes of arrays, by their numbers, and the types of elements that numbers are stored as.
TEXT, FIRST_NUMBER, LAST_NUMBER = 4, 6, 15
COMPLEX = 0x800
SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}


def read(path: str) -> dict[str, np.ndarray]:
    """name -> array of the numbers and texts in a file; other kinds of variables are left out.

    ValueError where the file's sizes contradict each other.
    """
    names = _names(Path(path).read_bytes())
    return {n: v for n, v in io.loadmat(path, variable_names=names).items() if n in names}


def _names(content: bytes) -> list[str]:
    if content[HEADER - 2 : HEADER] not in (b"IM", b"MI"):
        raise ValueError("no MATLAB file of version 5 or 7.3")
    order = "<" if content[HEADER - 2 : HEADER] == b"IM" else ">"
    found = []
    for kind, body in _elements(content[HEADER:], order):
        if kind == COMPRESSED:
            ((kind, body),) = _elements(zlib.decompress(body), order)
        if kind != MATRIX:
            raise ValueError(f"an element of type {kind} where a variable should be")
        found += _name(body, order)
    return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of one element after another; all but compressed ones end at multiples of 8."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        start = at + 8
        if kind >> 16:  # up to four bytes, in the place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(content) or (start == at + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes, {len(content) - start} are there")
        yield kind, content[start : start + size]
        at = max(start + size, at + 8)
        at += 0 if kind == COMPRESSED else -at % 8


def _name(body: bytes, order: str) -> list[str]:
    """The name of an array of numbers or of a text, [] for other kinds."""
    parts = list(_elements(body, order))
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    if flags & 0xFF != TEXT and not FIRST_NUMBER <= flags & 0xFF <= LAST_NUMBER:
        return []
    if len(parts) != 4 + bool(flags & COMPLEX):
        raise ValueError(f"an array of {len(parts)} parts")
    count = math.prod(np.frombuffer(parts[1][1], f"{order}i4").tolist())
    for kind, values in parts[3:]:
        letters = flags & 0xFF == TEXT  # in UTF-8 a letter may take several bytes
        if kind not in SIZES and not letters:
            raise ValueError(f"numbers of type {kind}")
        if not letters and len(values) != count * SIZES[kind]:
            raise ValueError(f"{len(values)} bytes for {count} numbers of {SIZES[kind]}")
    return [parts[2][1].decode("latin-1")]
