"""Longitudes are equal up to a turn, and may begin anywhere on a circle."""

import numpy as np

TURN = 360.0
ATOL = 1e-4  # degrees; single and double precision axes of one grid differ by less
HOLE = 1.5  # of the usual distance of columns: more is a hole between them


def unbroken(stored: np.ndarray) -> tuple[np.ndarray, int]:
    """(lon, first): longitudes in which neighbours are neighbours, and the column that comes first.

    A box over 0 cut from 0 .. 360 is 356, 358, 0, 2 or, sorted, 0, 2, 356, 358: both become -4, -2,
    0, 2. All others stay as they are, whether they rise or not.
    """
    steps = np.diff(stored)
    if len(stored) < 3:
        return stored, 0
    first = 0
    if is_monotone(stored):
        usual, widest = np.median(np.abs(steps)), int(np.abs(steps).argmax())
        around = TURN - abs(stored[-1] - stored[0])
        if abs(steps[widest]) < HOLE * usual or abs(around - usual) > usual / 10:
            return stored, 0
        first = widest + 1
    lon = np.unwrap(np.roll(stored, -first), period=TURN)
    if not is_monotone(lon) or abs(lon[-1] - lon[0]) >= TURN:
        return stored, 0
    return lon - TURN * (lon.max() >= TURN), first


def is_monotone(axis: np.ndarray) -> bool:
    """Whether values rise, or fall, throughout."""
    steps = np.diff(axis)
    return bool(all(steps > 0) or all(steps < 0))


def is_global(lon: np.ndarray) -> bool:
    """Whether columns at equal distances go around the globe."""
    step = (lon[-1] - lon[0]) / max(len(lon) - 1, 1)
    even = np.allclose(np.diff(lon), step, rtol=0.1, atol=0)
    return bool(even and abs(len(lon) * abs(step) - TURN) < abs(step) / 10)


def offset(wanted: np.ndarray, lon: np.ndarray) -> int | None:
    """The column of `lon` that is the first wanted, where all others follow; None elsewhere."""
    if len(lon) != len(wanted):
        return None
    first = int(_apart(lon, wanted[0]).argmin())
    follows = (_apart(np.roll(lon, -first), wanted) < ATOL).all()
    return first if follows else None


def beginning(lon: np.ndarray, west: float) -> tuple[np.ndarray, int]:
    """(lon, first) of an axis that begins at `west`, if turning it does not tear neighbours apart;
    else as it is."""
    first = int(_apart(lon, west).argmin())
    if _apart(lon, west)[first] > ATOL or (first and not is_global(lon)):
        return lon, 0
    step = (lon[-1] - lon[0]) / max(len(lon) - 1, 1)
    rolled = np.roll(lon, -first)
    return rolled + TURN * np.round((west + step * np.arange(len(lon)) - rolled) / TURN), first


def _apart(a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    return np.abs((a - b + TURN / 2) % TURN - TURN / 2)


def columns(wanted: slice, first: int, width: int) -> list[slice]:
    """Where the columns of an axis that begins at `first` lie in the file: one slice, or two."""
    if not first:
        return [wanted]
    start, stop, _ = wanted.indices(width)
    start, stop = start + first, stop + first
    if start >= width:
        return [slice(start - width, stop - width)]
    return [slice(start, stop)] if stop <= width else [slice(start, width), slice(0, stop - width)]
