"""Tables as narrow as the terminal, no cell of which is cut short."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console, ConsoleOptions
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from tds_jax.progress import table_console

FRAME, PADDING = 1, 3  # columns of a terminal beside a cell's own


class Grid(NamedTuple):
    """A table before it is known how wide it may be.

    names: heads the first column. rows: a name and its cells. bold: the name of a row to stress.
    """

    title: str
    names: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    bold: str = ""

    def tables(self, width: int) -> list[Table]:
        """As many tables below each other as the columns need; one at least is in each."""
        first = max(len(name) for name in (self.names, *(row[0] for row in self.rows)))
        widths = [
            max(len(text) for text in (name, *(cells[i] for _, cells in self.rows))) + PADDING
            for i, name in enumerate(self.columns)
        ]
        parts: list[list[int]] = [[]]
        room = width - FRAME - first - PADDING
        for i, wanted in enumerate(widths):
            if parts[-1] and sum(widths[j] for j in parts[-1]) + wanted > room:
                parts.append([])
            parts[-1].append(i)
        return [self._table(part) for part in parts]

    def _table(self, part: Sequence[int]) -> Table:
        table = Table()
        table.add_column(self.names, overflow="fold")
        for i in part:
            table.add_column(self.columns[i], justify="right", overflow="fold")
        for name, cells in self.rows:
            style = "bold" if name == self.bold else None
            table.add_row(name, *(cells[i] for i in part), style=style)
        return table


class Tables(JupyterMixin):
    """A grid for print() and for a notebook, as wide as there is room."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        if self._grid.title:
            yield Text(self._grid.title)
        yield from self._grid.tables(options.max_width)

    def __str__(self) -> str:
        console = table_console()
        with console.capture() as shown:
            console.print(self)
        return shown.get()
