"""The host's heap, told to give back what compiling took. glibc only; elsewhere nothing happens."""

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h


def limit_arenas(count: int = 2) -> None:
    """Lets threads share `count` arenas; call before threads start.

    By default each of the compiler's threads gets an arena of its own and keeps its peak: with
    two, compiling the low_memory step peaks 80 MiB lower and takes no longer.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, count)


def trim() -> None:
    """Gives freed pages back to the system; compiling leaves hundreds of MiB of them behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
