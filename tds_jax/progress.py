"""How far work has come, told to whoever watches; imports no jax."""

import contextlib
import os
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress(Protocol):
    """Called as work goes on; words: what is being worked on."""

    def __call__(self, done: int, total: int, words: str = "", /) -> None: ...


def silent(done: int, total: int, words: str = "", /) -> None:
    """A Progress that nobody watches."""


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Shows a bar on a terminal for work that says how far it is."""
    console = Console(stderr=True)
    columns = (
        TextColumn(title),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None, words="")

        def show(done: int, total: int, words: str = "", /) -> None:
            bars.update(task, completed=done, total=total, words=words)

        yield show


def table_console() -> Console:
    """A console for tables: as wide as the terminal, or 110 columns where there is none."""
    return Console(width=None if os.isatty(1) else 110, highlight=False)
