"""What Orbax's work in the background says: only what is news. What it fails of, it raises.

It writes the parts of a checkpoint at once, each in a task of a loop that it closes when the first
of them fails. That error is raised. Those that end later find the loop closed, or nobody who asks
for their error, and tensorstore and asyncio say so, each with a traceback beside our one line.
"""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

# Warnings of what is meant: checkpoints without a score, and reading only.
_MEANT = ("did not provide metrics", "read_only=True", "directory is read only")
_CLOSED = "Event loop is closed"


def only_news() -> None:
    """From here on, in this process; calling it again changes nothing."""
    for name in ("absl", "asyncio"):  # Orbax, and what it runs its work with
        logging.getLogger(name).addFilter(_is_news)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if getattr(sys.unraisablehook, "func", None) is not _unless_late:
        sys.unraisablehook = functools.partial(_unless_late, sys.unraisablehook)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.exc_info and not any(words in str(record.msg) for words in _MEANT)


def _unless_late(say: Callable[[Any], Any], unraisable: Any) -> None:
    """Says what could not be raised, as `say` does, but not that nobody waits for a write."""
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == _CLOSED):
        say(unraisable)
