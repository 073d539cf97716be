"""How pictures begin and end: matplotlib without a screen, files that are whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tds_jax.data.whole_file import whole_file


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure of so many inches, which lays itself out."""
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(width, height), layout="constrained")


def legend_below(figure: Any, handles: Sequence[Any], labels: Sequence[str], most: int) -> None:
    """One legend for all panels in rows of equal length, of no more than so many entries."""
    rows = -(-len(labels) // most)
    columns = -(-len(labels) // rows)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def save(figure: Any, path: Path, dpi: int = 110) -> Path:
    """Writes a PNG, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")
    return path
