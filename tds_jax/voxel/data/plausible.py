"""Whether the numbers of a file without names can be points in the columns they are read as."""

from pathlib import Path

import numpy as np

from tds_jax.errors import UserError

LARGEST, SMALLEST = 1e5, 1e-12  # metres, m/s, dB: other sizes are bytes read as what they are not
STRANGE = 0.01  # share of such numbers that is too many
WIDTHS = range(3, 13)
ROWS = 50  # fewer tell nothing of the columns
ALIKE = 0.1  # columns that differ explain more than this share of the spread


def require_plausible(path: Path, values: np.ndarray, names: tuple[str, ...]) -> None:
    """Raises UserError where flat `values` are hardly rows of the columns `names`.

    NaN and 0 are no evidence. Two kinds: sizes that no sensor has (another type), and columns that
    are as good as alike where another number of columns makes them differ (another width).
    """
    columns = f"{len(names)} {values.dtype} columns ({', '.join(names)})"
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    strange = np.count_nonzero((sizes > LARGEST) | (sizes < SMALLEST))
    strange += np.count_nonzero(np.isinf(values))
    if strange > STRANGE * max(values.size, 1):
        raise UserError(
            f"{path}: read as {columns}, {strange} of {values.size} numbers are beyond {LARGEST:g} "
            f"or nearer to 0 than {SMALLEST:g}; is it float64? Then begin its columns so, "
            f"--radar_columns or --lidar_columns=float64:x,y,z,…"
        )
    if not values.size:
        return
    others = [n for n in WIDTHS if values.size % n == 0 and values.size >= n * ROWS]
    others = [n for n in others if n % len(names) and len(names) % n]
    shares = {n: _explained(values, n) for n in others}
    least = max(ALIKE, 4 * _explained(values, len(names)), 0.8 * max(shares.values(), default=0))
    # A multiple of the true width explains as much, and by chance a little more.
    if best := next((n for n, share in shares.items() if share > least), 0):
        raise UserError(
            f"{path}: its numbers repeat every {best}, not every {len(names)}: it has hardly the "
            f"{columns}; name its columns in order, --radar_columns or --lidar_columns=x,y,z,…"
        )


def _explained(values: np.ndarray, width: int) -> float:
    """Share of the spread of sizes, with and without sign, that lies between columns."""
    known = np.arcsinh(np.where(np.isfinite(values), values, 0).astype(np.float64))
    parts = []
    for one in (known, np.abs(known)):
        spread = one.var()
        parts.append(one.reshape(-1, width).mean(axis=0).var() / spread if spread > 0 else 0.0)
    return float(max(parts))
