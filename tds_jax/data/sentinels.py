"""Numbers that stand for "missing" where no attribute says so."""

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
    """low, high: MARKS outside of them are missing values; inside they are values like others."""

    low: float
    high: float


def bounds_of(sample: np.ndarray) -> Bounds:
    """Of values of one variable; NaN and marks among them tell nothing, nor do none or equal ones.

    Equal ones leave no span: all that is further away than they are from 0 is outside.
    """
    known = sample[np.isfinite(sample) & ~np.isin(sample, MARKS)].astype(np.float64)
    if not known.size:
        return Bounds(-np.inf, np.inf)
    low, high = float(known.min()), float(known.max())
    span = APART * ((high - low) or abs(high) or 1.0)
    return Bounds(low - span, high + span)


def marks_in(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    """bool like f32 values: which of them stand for a missing one."""
    outside = (values < bounds.low) | (values > bounds.high)
    return outside & np.isin(values, MARKS) if outside.any() else outside


def lines(name: str, sample: np.ndarray) -> list[str]:
    """What is to be said of steps (n, H, W) f32 of a variable."""
    steps = f"{len(sample)} steps looked at"
    found = marks_in(sample, bounds_of(sample))
    said = [
        f"{name}: {value:g} stands for what is missing in {count} of {sample.size} cells on {steps}"
        for value, count in zip(*np.unique(sample[found], return_counts=True), strict=True)
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


def always_zero(sample: np.ndarray) -> int:
    """Cells that are 0 on every step of (n, H, W), where no other is on any; else 0."""
    zero = sample == 0
    everywhere = zero.all(axis=0)
    return 0 if (zero & ~everywhere).any() or everywhere.all() else int(everywhere.sum())


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
