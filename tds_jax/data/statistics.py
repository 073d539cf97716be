"""Mean and spread per channel, streamed in double precision or from a spread-out sample."""

import dataclasses
from collections.abc import Iterable

import numpy as np

SAMPLE_ROWS = 256  # rows read at one place: a compressed chunk is unpacked once for all of them


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean (C,) and sum of squared deviations (C,), all in float64; merged after Chan.

    The result does not depend on the order or size of the blocks beyond float64 rounding.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @staticmethod
    def of(rows: np.ndarray) -> "Moments":
        """Moments of (n, C) rows; rows with NaN or Inf are left out."""
        kept = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
        if not len(kept):
            return Moments(0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))
        mean = kept.mean(axis=0)
        return Moments(len(kept), mean, np.square(kept - mean).sum(axis=0))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of the rows of both."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        squares = self.squares + other.squares + delta**2 * (self.count * other.count / count)
        return Moments(count, mean, squares)

    def scale(self) -> np.ndarray:
        """(C,) population standard deviation; 1 for channels that are constant.

        Constant: no rows, or a spread below float32's resolution of the mean.
        """
        spread = np.sqrt(self.squares / max(self.count, 1))
        varies = spread > np.finfo(np.float32).eps * np.abs(self.mean)
        return np.where(varies, spread, 1.0)


def streamed_moments(blocks: Iterable[np.ndarray]) -> Moments:
    """Moments of all rows of (n, C) blocks; one block in memory at a time.

    ValueError when there is no block.
    """
    total = None
    for block in blocks:
        total = Moments.of(block) if total is None else total.merge(Moments.of(block))
    if total is None:
        raise ValueError("no blocks to take statistics from")
    return total


def spread_slices(lengths: np.ndarray, max_rows: int) -> list[tuple[int, int, int]]:
    """(session, start, stop) of pieces that sample about max_rows rows evenly over all sessions.

    lengths: (S,) rows. Deterministic. Pieces have at most SAMPLE_ROWS rows and never overlap, so
    the sample is never larger than max_rows; max_rows >= the number of rows gives every row.
    """
    total = int(lengths.sum())
    if max_rows >= total:
        return [(i, 0, int(n)) for i, n in enumerate(lengths) if n]
    pieces = -(-max_rows // SAMPLE_ROWS)
    width = max_rows // pieces
    starts = (np.arange(pieces) * 2 + 1) * total // (2 * pieces) - width // 2
    ends = np.cumsum(lengths)
    sessions = np.searchsorted(ends, starts, side="right")
    begins = starts - (ends - lengths)[sessions]
    stops = np.minimum(begins + width, lengths[sessions])
    found = zip(sessions.tolist(), begins.tolist(), stops.tolist(), strict=True)
    return list(found)
