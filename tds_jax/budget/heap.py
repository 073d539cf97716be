"""The host's heap, told to give back what compiling took. glibc only; elsewhere nothing happens."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from tds_jax.budget import cards

_M_ARENA_MAX = -8  # malloc.h
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Starts this program anew with 2 MiB pages for malloc, where Linux gives them on request.

    XLA on CPU takes a step's temporaries from malloc and gives them back at its end. In pages of
    4 KiB that is 120 000 page faults per step of the full-size pose network and a quarter of its
    CPU time; in huge pages 1100 faults. glibc reads the setting at its start only, hence the second
    one: call this before anything slow is imported. A GLIBC_TUNABLES of the user's wins.

    Not on a card, where malloc holds no step and each thread of the compiler would grow by 2 MiB at
    a time.
    """
    if "GLIBC_TUNABLES" in os.environ or not _HUGE_PAGES.exists() or cards.present():
        return
    if "[madvise]" in _HUGE_PAGES.read_text():
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


def limit_arenas(count: int = 2) -> None:
    """Lets threads share `count` arenas; call before threads start.

    By default each of the compiler's threads gets an arena of its own and keeps its peak: with
    two, compiling the low_memory step peaks 80 MiB lower and takes no longer (two cores; of a
    card's sixteen threads it is not measured). A MALLOC_ARENA_MAX of the user's wins.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, count)


def trim() -> None:
    """Gives freed pages back to the system; compiling leaves hundreds of MiB of them behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
