"""Whether answers are of the right kind: sharp as the truth is, as sure as they are right, diverse.

An answer that is blurred where it does not know may have the best IoU and look like nothing that a
LiDAR has ever seen. States as in `metrics`: they add up over frames.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Self

import jax
import numpy as np
from scipy.spatial.distance import jensenshannon

from tds_jax.engine.metrics import Additive, Mean, divide
from tds_jax.voxel.metrics import Cells

CORNERS = tuple(itertools.product((0, 1), repeat=3))
KINDS = 2 ** len(CORNERS)
BINS = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Patterns(Additive):
    """How often each of the 256 ways to fill 2 x 2 x 2 cells occurs, (256,) each."""

    predicted: Any
    true: Any

    @classmethod
    def of(cls, predicted: np.ndarray, true: np.ndarray) -> Self:
        """Of two boolean volumes."""
        return cls(_counts(predicted), _counts(true))

    def compute(self, name: str) -> dict[str, float]:
        """{<name>_jsd: the Jensen-Shannon divergence of both, 0 (alike) to 1 bit}.

        Without the empty way, which says how many cells are occupied, not how they lie. NaN where
        either has nothing.
        """
        both = self.predicted[1:], self.true[1:]
        if not all(counts.sum() for counts in both):
            return {f"{name}_jsd": float("nan")}
        return {f"{name}_jsd": float(jensenshannon(*both, base=2)) ** 2}


def _counts(volume: np.ndarray) -> np.ndarray:
    d, h, w = (n - 1 for n in volume.shape)
    corners = (volume[i : i + d, j : j + h, k : k + w] for i, j, k in CORNERS)
    ways = sum(corner.astype(np.int64) << n for n, corner in enumerate(corners))
    return np.bincount(np.ravel(ways), minlength=KINDS).astype(np.float64)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reliability(Additive):
    """Of cells by their probability in `BINS` equal bins, each (BINS,): how many there are, what
    they are given in sum, how many are occupied; squares: of what they are off, summed."""

    cells: Any
    given: Any
    occupied: Any
    squares: Any

    @classmethod
    def of(cls, probability: np.ndarray, true: np.ndarray) -> Self:
        """Of (N,) probabilities, cut to 0 ... 1, and (N,) booleans."""
        p = np.clip(probability.astype(np.float64), 0, 1)
        place = np.minimum((p * BINS).astype(int), BINS - 1)
        cells, given, occupied = (
            np.bincount(place, weights, BINS).astype(np.float64) for weights in (None, p, true)
        )
        return cls(cells, given, occupied, float(((p - true) ** 2).sum()))

    def compute(self, name: str) -> dict[str, float]:
        """ece: the mean over cells of how far their bin's probability is from how often its cells
        are occupied. brier: the mean squared error of the probability."""
        cells = float(self.cells.sum())
        off = float(np.abs(self.given - self.occupied).sum())
        return {"ece": divide(off, cells), "brier": divide(self.squares, cells)}


def of_samples(samples: Sequence[np.ndarray], true: np.ndarray) -> dict[str, Any]:
    """States of several boolean answers (D, H, W) to one frame, two or more.

    sample: cells of all of them. best: of the one with the highest IoU. diversity: 1 - IoU of two
    of them, over all pairs; of two empty ones 0.
    """
    each = [Cells.of(one, true) for one in samples]
    best = max(each, key=lambda cells: cells.hits / max(cells.hits + cells.false + cells.missed, 1))
    pairs = list(itertools.combinations(samples, 2))
    apart = [1 - (a & b).sum() / max((a | b).sum(), 1) if (a | b).any() else 0 for a, b in pairs]
    whole = each[0]
    for one in each[1:]:
        whole = whole.merge(one)
    return {"sample": whole, "best": best, "diversity": Mean(float(sum(apart)), float(len(pairs)))}
