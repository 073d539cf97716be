"""Masks of land, and whether they are of the data at all."""

import numpy as np

from tds_jax.errors import UserError

ATOL = 1e-3  # a share of land may pass 1 by rounding


def land_of(share: np.ndarray, name: str) -> np.ndarray:
    """(H, W) bool: more than half land; UserError unless the values can be shares."""
    known = share[np.isfinite(share)]
    if not known.size or known.min() < -ATOL or known.max() > 1 + ATOL:
        span = f"{known.min():g} to {known.max():g}" if known.size else "missing everywhere"
        raise UserError(f"data.land_mask={name} is {span}; it must be a share of land, 0 to 1")
    return np.greater(share, 0.5)


def require_fit(name: str, land: np.ndarray, seen: np.ndarray, what: str) -> None:
    """UserError for a mask without land, or whose land mostly has no data, as an inverted one's.

    seen: (H, W) bool, where there are data; what: which ones.
    """
    shared, size = int((land & seen).sum()), int(land.sum())
    if 2 * shared <= size:
        raise UserError(
            f"data.land_mask={name} has {size} cells of land, and {what} is there in {shared} of "
            f"them and in {int((seen & ~land).sum())} others; give the share of land of this grid"
        )
