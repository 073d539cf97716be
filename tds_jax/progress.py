"""How far work has come, told to whoever watches.

Data workers import this for its types: rich is imported where something is shown, jax never.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


FIRST_LINE, NEXT_LINE = 5.0, 30.0  # s until a log is told that work goes on, and from then on


class Progress(Protocol):
    """Called as work goes on; words: what is being worked on."""

    def __call__(self, done: int, total: int, words: str = "", /) -> None: ...


def silent(done: int, total: int, words: str = "", /) -> None:
    """A Progress that nobody watches."""


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Shows a bar on a terminal for work that says how far it is, in a log a line at times."""
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        with _lines(title) as said:
            yield said
        return
    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn(title),
        bars.MofNCompleteColumn(),
        bars.BarColumn(bar_width=24),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[words]}"),
    )
    with bars.Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=None, words="")

        def show(done: int, total: int, words: str = "", /) -> None:
            shown.update(task, completed=done, total=total, words=words)

        yield show


@contextlib.contextmanager
def working(title: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that work goes on which cannot say how far it is; in a log, a line.

    Yields what tells it the words for what is being done.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(title) as status:
            yield lambda words: status.update(f"{title}: {words}")
    else:
        with _lines(title) as said:
            yield lambda words: said(0, 0, words)


@contextlib.contextmanager
def _lines(title: str) -> Iterator[Progress]:
    """For a log: a line once work takes long, and then now and again."""
    state: list[tuple[int, int, str]] = [(0, 0, "")]
    ended, started = threading.Event(), time.monotonic()

    def tell() -> None:
        pause = FIRST_LINE
        while not ended.wait(pause):
            seconds = time.monotonic() - started
            with contextlib.suppress(OSError):  # whoever read it has gone
                print(in_words(title, *state[0], seconds), file=sys.stderr, flush=True)
            pause = NEXT_LINE

    teller = threading.Thread(target=tell, daemon=True, name="progress")
    teller.start()
    try:
        yield lambda done, total, words="", /: state.__setitem__(0, (done, total, words))
    finally:
        ended.set()
        teller.join()


def in_words(title: str, done: int, total: int, words: str, seconds: float) -> str:
    """'preparing: 3 of 12, for 0:00:40, 0:02:00 to go, a.hdf5'."""
    parts = [f"for {span(seconds)}"]
    if total:
        parts.insert(0, f"{done} of {total}")
    if done:
        parts.append(f"{span(seconds / done * (total - done))} to go")
    return f"{title}: {', '.join(parts + [words] * bool(words))}"


def span(seconds: float) -> str:
    """'1:02:03' of seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))


def table_console() -> Console:
    """A console for tables: as wide as the terminal or COLUMNS; 80 columns without either."""
    from rich.console import Console

    return Console(highlight=False)
