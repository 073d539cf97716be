"""Linear maps from the last days around a cell to the coming ones, fitted as training days pass.

Both correct the damped persistence: what they are fitted to is what it leaves. One map for all
cells is what a convolution is; one for each cell knows places, and needs more days than there
mostly are, so that it wins a day ahead and loses later.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.data.crew import ALONE, Crew
from tds_jax.forecast.climatology import Climatology, blocks, with_earlier
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.least_squares import Sums
from tds_jax.forecast.steps import Step
from tds_jax.nn.conv_nd import encircled

KERNEL = 5  # cells per side of the square that a baseline reads
DAYS = 2  # the last ones, that it reads
# Of steps finer than a day: of the last two days of air temperature in steps of 6 hours all are
# worth reading (RMSE on train days left out 2.328 K over two days, of the last 4 steps 2.364, of 2
# 2.399); of more, equations grow with their square.
MOST_STEPS = 8
# Added to the squares of each input, as a share of them. One map has thousands of days of cells for
# each of its inputs; a cell's own has a few: chosen on blocks of train days left out (air
# temperature, a day ahead and over all leads 2.13 and 3.46 K; with 0.01 2.12 and 3.51, 1: 2.21 and
# 3.44).
RIDGE, CELL_RIDGE = 1e-5, 0.1
CELL_BYTES = 2**28  # of the cells' own normal equations, by which their square is chosen
ROWS = 2**15  # cells whose inputs are gathered at once


def reach(step: Step) -> int:
    """Last steps that a baseline reads."""
    return min(DAYS * step.per_day, MOST_STEPS)


class Sample(NamedTuple):
    """A day and those that follow. day: index of the former. recent: (H, W, days, C) anomalies of
    the last days, 0 where missing, newest last. coming: (L, H, W) what is to be explained, 0 where
    it is not known; known: where it is."""

    day: int
    recent: np.ndarray
    coming: np.ndarray
    known: np.ndarray

    def last(self, days: int, channels: slice) -> np.ndarray:
        """(H, W, days * C) the last days of some channels."""
        chosen = self.recent[:, :, -days:, channels]
        return chosen.reshape(*chosen.shape[:2], -1)


def samples(
    fields: Fields,
    days: range,
    usual: Climatology,
    damping: np.ndarray,
    before: int,
    crew: Crew = ALONE,
) -> Iterator[Sample]:
    """One for every day that ends `before` of them and has all leads after it; one pass.

    A crew gets a part of them each.

    usual: of all variables. Anomalies are in units of its scale. damping: (L, H, W) of the target.
    """
    leads, target = len(damping), fields.variables.index(fields.target)
    window: deque[np.ndarray] = deque(maxlen=before + leads)
    yesterday, step = None, Step.of(fields.days).delta
    own, earlier = with_earlier(days, crew, before + leads - 1)
    for indices, block in blocks(fields, [*earlier, *own]):
        dates = fields.days[indices]
        anomalies = ((block - usual.at(dates)) / usual.scale).astype(np.float32)
        for index, date, anomaly in zip(indices, dates, anomalies, strict=True):
            if yesterday is not None and date - yesterday != step:
                window.clear()
            window.append(anomaly)
            yesterday = date
            if len(window) == before + leads and index not in earlier:
                yield _sample(int(index) - leads, [*window], damping, target)


def _sample(day: int, window: Sequence[np.ndarray], damping: np.ndarray, target: int) -> Sample:
    leads = len(damping)
    recent = np.nan_to_num(np.stack(window[:-leads], axis=2))
    coming = np.stack([day[..., target] for day in window[-leads:]])
    known = np.isfinite(coming)
    left = np.where(known, coming - damping * recent[:, :, -1, target], 0)
    return Sample(day, recent, left, known)


def patches(maps: np.ndarray, size: tuple[int, ...], periodic: bool, apart: int = 1) -> np.ndarray:
    """(H, W, r, c, C) view: around each cell of maps (H, W, C) `size` rows and columns, both odd,
    of cells that are `apart`.

    Beyond the edges it is 0, or with `periodic` columns the other edge.
    """
    high, wide = (apart * (n // 2) for n in size)
    around = ((0, 0), (wide, wide), (0, 0))
    larger = np.pad(maps, around, mode="wrap") if periodic else np.pad(maps, around)
    larger = np.pad(larger, ((high, high), (0, 0), (0, 0)))
    shape = 2 * high + 1, 2 * wide + 1
    windows = np.lib.stride_tricks.sliding_window_view(larger, shape, axis=(0, 1))
    return np.moveaxis(windows[..., ::apart, ::apart], 2, -1)


class Shared:
    """Least squares of one map for all cells, that reads `around` maps in a square of `kernel`
    cells and `own` maps in the cell alone."""

    def __init__(self, kernel: int, around: int, own: int, leads: int, periodic: bool) -> None:
        self._shape = kernel, kernel, around
        self._periodic = periodic
        self.sums = Sums.of(kernel**2 * around + own, leads)

    def add(self, sample: Sample, around: np.ndarray, own: np.ndarray | None = None) -> None:
        """Maps (H, W, F). Every cell whose target is known counts, at the leads it is at."""
        for place, x in inputs_at(sample, around, own, self._shape[0], self._periodic):
            self.sums.add(x, sample.coming[:, *place], sample.known[:, *place])

    def solve(self, ridge: float) -> np.ndarray:
        """(kernel, kernel, around, L) f32 weights of a map without `own`.

        ridge: share of the inputs' mean square, that is added to each.
        """
        leads = len(self.sums.square)
        weights = self.sums.solve([ridge] * leads).astype(np.float32)
        return weights.reshape(*self._shape, leads)


def inputs_at(
    sample: Sample, around: np.ndarray, own: np.ndarray | None, kernel: int, periodic: bool
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """(rows and columns (N,), inputs (N, F) f64) of the cells with a target, ROWS at a time."""
    rows, columns = np.nonzero(sample.known.any(axis=0))
    squares = patches(around, (kernel, kernel), periodic)
    for first in range(0, len(rows), ROWS):
        place = rows[first : first + ROWS], columns[first : first + ROWS]
        x = squares[place].reshape(len(place[0]), -1)
        x = x if own is None else np.concatenate([x, own[place]], axis=1)
        yield place, x.astype(np.float64)


def applied(weights: np.ndarray, maps: np.ndarray, periodic: bool) -> np.ndarray:
    """(L, H, W) f64: what weights (k, k, F, L) of all cells make of maps (H, W, F)."""
    around = patches(maps, weights.shape[:2], periodic)
    return np.einsum("hwabf,abfl->lhw", around, weights.astype(np.float64), optimize=True)


class PerCell:
    """Normal equations of a map for each cell, of the target alone on its last `days`.

    The square is the largest of KERNEL and smaller ones whose equations take CELL_BYTES at most: 50
    inputs a cell are 20 kB. Days count on which all leads of a cell are known.
    """

    def __init__(
        self, cells: tuple[int, int], leads: int, periodic: bool, days: int = DAYS
    ) -> None:
        self._periodic, self._cells = periodic, cells
        self.kernel = next(k for k in (*range(KERNEL, 1, -2), 1) if k == 1 or _fits(cells, k, days))
        size = self.kernel**2 * days
        self._gram = np.zeros((cells[0] * cells[1], size, size))
        self._product = np.zeros((cells[0] * cells[1], size, leads))
        # Of many days at once sums are products of matrices, 30 times as fast as day by day. Those
        # of days are added as ever, to the last bit.
        self._at_once = 1 if days == DAYS else size
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, sample: Sample, maps: np.ndarray) -> None:
        """maps (H, W, days). Every cell, where all leads are known."""
        around = patches(maps, (self.kernel, self.kernel), self._periodic)
        x = around.reshape(len(self._gram), -1).astype(np.float64) * sample.known.all(
            axis=0
        ).reshape(-1, 1)
        self._waiting.append((x, sample.coming.reshape(len(sample.coming), -1).T))
        if len(self._waiting) == self._at_once:
            self._sum()

    def _sum(self) -> None:
        if not self._waiting:
            return
        x, y = (np.stack(each, axis=1) for each in zip(*self._waiting, strict=True))
        transposed = x.transpose(0, 2, 1)
        self._gram += transposed @ x
        self._product += transposed @ y
        self._waiting = []

    def solve(self) -> np.ndarray:
        """(H, W, kernel² days, L) f32 weights with CELL_RIDGE; 0 for a cell without a day."""
        self._sum()
        weights = _ridge(self._gram, self._product, CELL_RIDGE)
        return weights.reshape(*self._cells, *weights.shape[1:]).astype(np.float32)


def _fits(cells: tuple[int, int], kernel: int, days: int) -> bool:
    return 8 * cells[0] * cells[1] * (kernel**2 * days) ** 2 <= CELL_BYTES


def _ridge(gram: np.ndarray, product: np.ndarray, share: float) -> np.ndarray:
    """(N, F, L) of N normal equations (N, F, F), (N, F, L), each with `share` of its mean square.

    1 is added where there is nothing at all, so that nothing follows from it.
    """
    size = gram.shape[-1]
    typical = np.trace(gram, axis1=-2, axis2=-1) / size
    floor = np.where(typical > 0, share * typical, 1.0)
    return np.linalg.solve(gram + floor[:, None, None] * np.eye(size), product)


def flat(days: jax.Array) -> jax.Array:
    """(B, T, H, W, C) -> (B, H, W, T * C), as `Sample.last` puts them."""
    return jnp.moveaxis(days, 1, 3).reshape(days.shape[0], *days.shape[2:4], -1)


def leads_first(maps: jax.Array) -> jax.Array:
    """(B, H, W, L) -> (B, L, H, W)."""
    return jnp.moveaxis(maps, -1, 1)


def shared_map(recent: jax.Array, weights: jax.Array, periodic: bool, apart: int = 1) -> jax.Array:
    """(B, H, W, O): weights (r, c, F, O) of all cells applied to (B, H, W, F), r and c odd.

    apart: cells from one that is read to the next.
    """
    high, wide = (apart * (size // 2) for size in weights.shape[:2])
    recent = encircled(recent, 2 * wide + 1) if periodic else recent
    padding = [(high, high), (0, 0) if periodic else (wide, wide)]
    return jax.lax.conv_general_dilated(
        recent,
        weights,
        (1, 1),
        padding,
        rhs_dilation=(apart, apart),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def cell_map(recent: jax.Array, weights: jax.Array, periodic: bool) -> jax.Array:
    """(B, L, H, W): `PerCell` weights (H, W, k² F, L) applied to (B, H, W, F)."""
    size = weights.shape[2]
    kernel = round((size // recent.shape[-1]) ** 0.5)
    # One weight of 1 for each cell of the square: a convolution that only gathers.
    gather = jnp.eye(size, dtype=recent.dtype).reshape(kernel, kernel, recent.shape[-1], size)
    around = shared_map(recent, gather, periodic)
    return jnp.einsum("bhwf,hwfl->blhw", around, weights, precision="highest")
