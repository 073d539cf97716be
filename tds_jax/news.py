"""What work in the background says: only what is news. What it fails of, it raises.

Orbax and Zarr read and write many parts at once, each in a task of a loop. The first error is
raised, and Orbax then closes the loop. Those that end later find it closed, or nobody who asks for
their error, and tensorstore and asyncio say so, each with a traceback beside our one line. So do
h5netcdf, of a file that it could not open and then cannot close, and asyncio of such a loop.
"""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

# Orbax warns of what is meant: checkpoints without a score, and reading only; and of a damaged
# file, which `engine.checkpoint` names.
_MEANT = ("did not provide metrics", "read_only=True", "directory is read only")
_TOLD = ("Failed to json parse Metadata file", "Failed to read Metadata file")
_CLOSED = "Event loop is closed"


def only_news() -> None:
    """From here on, in this process; calling it again changes nothing."""
    for name in ("absl", "asyncio"):  # of Orbax, and of what runs such work
        logging.getLogger(name).addFilter(_is_news)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if getattr(sys.unraisablehook, "func", None) is not _unless_told:
        sys.unraisablehook = functools.partial(_unless_told, sys.unraisablehook)


def _is_news(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    return not record.exc_info and not any(words in text for words in _MEANT + _TOLD)


def _unless_told(say: Callable[[Any], Any], unraisable: Any) -> None:
    """Says what could not be raised, as `say` does, unless what went before it was raised."""
    error, where = unraisable.exc_value, getattr(unraisable.object, "__module__", None) or ""
    late = isinstance(error, RuntimeError) and str(error) == _CLOSED
    half_open = isinstance(error, AttributeError) and where.split(".")[0] in ("h5netcdf", "asyncio")
    if not late and not half_open:
        say(unraisable)
