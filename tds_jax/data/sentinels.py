"""Numbers that stand for "missing" where no attribute says so."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Written by converters, models and libraries, each for nothing but "no value here". Positive ones
# below 9999 are not among them: 999 may be rain.
LARGE = (1e15, 1e20, 9.999e20, 1e30, 1e36, 9.969209968386869e36, float(np.finfo(np.float32).max))
MARKS = np.array(
    [-99, -999, -9999, 9999, -99999, 99999, -999999, 999999, -32767, -32768]
    + [sign * size for size in LARGE for sign in (1, -1)],
    np.float32,
)
# A mark counts as one only this many spans of all other values away from them.
APART = 1.0
FEWEST = 4  # times that a number repeats before it is suspect
FAR = 10.0  # spans between it and all others


class Bounds(NamedTuple):
    """low, high: MARKS outside of them are missing values; inside they are values like others.

    stored: numbers of files that are missing values there, too; see `packing`.
    """

    low: float
    high: float
    stored: tuple[float, ...] = ()


def bounds_of(sample: np.ndarray, stored: np.ndarray | None = None) -> Bounds:
    """Of values of one variable; NaN and marks among them tell nothing, nor do none or equal ones.

    Equal ones leave no span: all that is further away than they are from 0 is outside. stored: like
    `sample`, as of `Packing.stored`: what repeats there, and is outside, counts as a mark.
    """
    stored = np.zeros(sample.shape) if stored is None else stored
    is_value = np.isfinite(sample) & ~np.isin(sample, MARKS) & (stored == 0)
    known = sample[is_value].astype(np.float64)
    if not known.size:
        return Bounds(-np.inf, np.inf)
    low, high = float(known.min()), float(known.max())
    span = APART * ((high - low) or abs(high) or 1.0)
    outside = (sample < low - span) | (sample > high + span)
    marks = tuple(
        float(one)
        for one in np.unique(stored[stored != 0])
        if (outside & (stored == one)).sum() >= FEWEST
    )
    return Bounds(low - span, high + span, marks)


def marks_in(values: np.ndarray, bounds: Bounds, stored: np.ndarray | None = None) -> np.ndarray:
    """bool like f32 values: which of them stand for a missing one; stored: see `bounds_of`."""
    outside = (values < bounds.low) | (values > bounds.high)
    if not outside.any():
        return outside
    marks = np.isin(values, MARKS)
    return outside & (marks if stored is None else marks | np.isin(stored, bounds.stored))


def lines(name: str, sample: np.ndarray, stored: np.ndarray | None = None) -> list[str]:
    """What is to be said of steps (n, H, W) f32 of a variable; stored: see `bounds_of`."""
    steps = f"{len(sample)} steps looked at"
    stored = np.zeros(sample.shape) if stored is None else stored
    found = marks_in(sample, bounds_of(sample, stored), stored)
    marks = zip(*np.unique(sample[found & (stored == 0)], return_counts=True), strict=True)
    words = [(f"{value:g}", count) for value, count in marks]
    words += [
        (f"{value:g}, stored as {one:.0f},", count)
        for one, value, count in _numbers(sample, stored, found)
    ]
    said = [
        f"{name}: {which} stands for what is missing in {count} of {sample.size} cells on {steps}"
        for which, count in words
    ]
    said += [
        f"{name}: {value:g}, stored as {one:.0f}, is in the same {count // len(sample)} of "
        f"{sample[0].size} cells on all {steps} and in no other; if it means missing, name it as "
        "_FillValue or write NaN"
        for one, value, count in _numbers(sample, stored, ~found)
        if value and _is_still(stored == one)
    ]
    rest = np.where(found, np.float32(np.nan), sample)
    if strange := suspect(rest):
        said.append(
            f"{name}: {strange[0]:g} stands {strange[1]} times on {steps}, far from all other "
            "values; if it means missing, name it as _FillValue or write NaN"
        )
    if empty := always_zero(rest):
        said.append(
            f"{name}: {empty} of {sample[0].size} cells are 0 on all {steps}, and no other cell "
            "ever is; if that is sea, name a land mask or write NaN there"
        )
    return said


def _numbers(
    sample: np.ndarray, stored: np.ndarray, where: np.ndarray
) -> Iterator[tuple[float, float, int]]:
    """(stored, one of its values, how often) of stored numbers."""
    for one in np.unique(stored[where & (stored != 0)]):
        values = sample[where & (stored == one)]
        yield float(one), float(values[0]), len(values)


def always_zero(sample: np.ndarray) -> int:
    """Cells that are 0 on every step of (n, H, W), where no other is on any; else 0."""
    zero = sample == 0
    return int(zero[0].sum()) if _is_still(zero, 1) else 0


def _is_still(here: np.ndarray, fewest: int = 2) -> bool:
    """Whether (n, H, W) is true in the same cells, not all of them, on `fewest` steps or more."""
    alike = bool((here == here[0]).all())
    return alike and len(here) >= fewest and bool(here[0].any()) and not here[0].all()


def suspect(sample: np.ndarray) -> tuple[float, int] | None:
    """(value, how often it is there): an extreme that repeats exactly, far from all others.

    It may be a mark that MARKS lacks, and may be true, as ice sheets in snow depth are.
    """
    values, counts = np.unique(sample[np.isfinite(sample)], return_counts=True)
    if len(values) < 3:
        return None
    values = values.astype(np.float64)
    for end, others in ((0, values[1:]), (-1, values[:-1])):
        gap = np.abs(others - values[end]).min()
        if counts[end] >= FEWEST and gap > FAR * (others[-1] - others[0]):
            return float(values[end]), int(counts[end])
    return None
