"""How far work has come, told to whoever watches.

Data workers import this for its types: rich is imported where something is shown, jax never.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Called as work goes on; words: what is being worked on."""

    def __call__(self, done: int, total: int, words: str = "", /) -> None: ...


def silent(done: int, total: int, words: str = "", /) -> None:
    """A Progress that nobody watches."""


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Shows a bar on a terminal for work that says how far it is."""
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        bars.TextColumn(title),
        bars.MofNCompleteColumn(),
        bars.BarColumn(bar_width=24),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[words]}"),
    )
    quiet = not console.is_terminal
    with bars.Progress(*columns, console=console, transient=True, disable=quiet) as shown:
        task = shown.add_task("", total=None, words="")

        def show(done: int, total: int, words: str = "", /) -> None:
            shown.update(task, completed=done, total=total, words=words)

        yield show


def table_console() -> Console:
    """A console for tables: as wide as the terminal, or 110 columns where there is none."""
    from rich.console import Console

    return Console(width=None if os.isatty(1) else 110, highlight=False)
