"""Blosc's chunks, looked at before they are unpacked.

Blosc believes the sizes that stand in a chunk: where a damaged one tells of more than there is, it
reads on behind it and may end the interpreter.
"""

from typing import Any

import numcodecs
import numpy as np
from numcodecs.compat import ensure_contiguous_ndarray

HEADER = 16  # bytes: versions, flags, size of an item; then three sizes, see `require_sound`
STORED = 0x2  # of the flags: the bytes lie behind the header as they are


def require_sound(chunk: np.ndarray) -> None:
    """ValueError unless a chunk's bytes (n,) are as many as its header says."""
    if len(chunk) < HEADER:
        raise ValueError(f"a chunk of {len(chunk)} bytes is shorter than its header")
    size, block, packed = (int(n) for n in chunk[4:HEADER].view("<u4"))
    blocks = -(-size // block) if block else 0
    least = HEADER + (size if chunk[2] & STORED else 4 * blocks)
    if packed != len(chunk) or least > packed or (size and not 0 < block <= size):
        sizes = f"{packed}, for {size} in blocks of {block}"
        raise ValueError(f"a chunk of {len(chunk)} bytes says that it has {sizes}")


class Blosc(numcodecs.Blosc):
    """The codec of that name, which refuses damaged headers."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The chunk's bytes; ValueError where they cannot be had."""
        require_sound(ensure_contiguous_ndarray(buf).view(np.uint8))
        return super().decode(buf, out)


def use() -> None:
    """From here on arrays of Zarr 2 are unpacked by it.

    Those of Zarr 3 come to Blosc by another way, where they do not have Zstandard, as is usual.
    """
    numcodecs.register_codec(Blosc)
