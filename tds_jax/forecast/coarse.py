"""Means over blocks of cells."""

import numpy as np


def coarsen(fields: np.ndarray, factor: int) -> np.ndarray:
    """(n, ceil(H/f), ceil(W/f), C) means of the finite values of f x f blocks; NaN where none."""
    finite = np.isfinite(fields)
    total, count = (_block_sums(x, factor) for x in (np.where(finite, fields, 0), finite))
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def _block_sums(values: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (np.arange(0, n, factor) for n in values.shape[1:3])
    by_row = np.add.reduceat(values, rows, axis=1, dtype=np.float64)
    return np.add.reduceat(by_row, columns, axis=2)


def block_means(axis: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks of an axis, the last of which may be smaller."""
    starts = range(0, len(axis), factor)
    return np.array([axis[start : start + factor].mean() for start in starts])
