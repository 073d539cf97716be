"""The forecast that a network's answer is added to, as far as train days say it by least squares.

A network that must find these weights step by step, beside all others, has not found them when it
begins to learn single days by heart. How smooth they shall be, and how far the truth is from what
they say, are asked of days that they were not fitted to.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.data.crew import ALONE, Crew
from tds_jax.errors import UserError
from tds_jax.forecast.climatology import Climatology
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.least_squares import Sums, chosen
from tds_jax.forecast.linear import Sample, inputs_at, patches, samples, shared_map

BLOCK = 5  # cells per side of what is averaged far away, and from one such block to the next
NEAR = 5  # cells per side of the square whose weights change from place to place


class Inputs(NamedTuple):
    """What the linear prior reads: all variables on the last `days` in a square of `kernel` cells;
    of the cell alone means of the target over as many last days as each of `means` says; the same
    variables and days averaged over blocks, rows and columns of `wide` of them around the cell; and
    with `place` the last day in NEAR cells, times the cell's row and its column."""

    kernel: int
    days: int
    means: tuple[int, ...]
    wide: tuple[int, ...]
    place: bool

    @property
    def before(self) -> int:
        """Days that it reads of."""
        return max(self.days, *self.means, 1)

    def shapes(self, channels: int, leads: int) -> dict[str, tuple[int, ...]]:
        """Of the weights, in the order of the inputs."""
        return {
            "linear": (self.kernel, self.kernel, self.days * channels, leads),
            "slow": (len(self.means), leads),
            "wide": (*(self.wide or (0, 0)), self.days * channels, leads),
            "place": (2, NEAR, NEAR, channels * self.place, leads),
        }

    def weights(self, flat: np.ndarray, channels: int) -> dict[str, np.ndarray]:
        """f32 arrays by name, those that are not empty, of (F, L)."""
        shapes = self.shapes(channels, flat.shape[1])
        sizes = [int(np.prod(shape[:-1])) for shape in shapes.values()]
        parts = np.split(flat.astype(np.float32), np.cumsum(sizes)[:-1])
        named = zip(shapes.items(), parts, strict=True)
        return {name: part.reshape(shape) for (name, shape), part in named if part.size}


def places(grid: tuple[int, int]) -> np.ndarray:
    """(H, W, 2) f32: row and column, from -1 to 1."""
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in grid]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


Rows = Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]
Days = Callable[[int], np.ndarray | None]
"""Index of a day -> the weights (F, L) to judge there, or None for a day that does not count."""


def no_weights(day: int) -> np.ndarray | None:
    """No weights: of every day what the damped persistence leaves counts."""
    del day
    return np.zeros((0, 0))


class Prior(NamedTuple):
    """weights: see `Inputs.weights`. judged: by what the spread is measured."""

    weights: dict[str, np.ndarray]
    judged: Days


def fit_linear(
    fields: Fields,
    days: range,
    usual: Climatology,
    damping: np.ndarray,
    inputs: Inputs,
    ridge: float,
    folds: int,
    periodic: bool,
    crew: Crew = ALONE,
) -> Prior:
    """The weights that explain best what the damped persistence leaves; one pass over `days`.

    usual: of all variables; all is in units of its scale. ridge: share of the inputs' mean square,
    added to each; with folds, of so many blocks of days, leads choose theirs, see `chosen`.
    """
    leads, channels = len(damping), len(fields.variables)
    part_of = _parts(days, folds, leads)
    size = sum(int(np.prod(s[:-1])) for s in inputs.shapes(channels, leads).values())
    parts = [Sums.of(size, leads) for _ in range(max(2 * folds - 1, 1))]
    for sample in samples(fields, days, usual, damping, inputs.before, crew):
        own = parts[part_of(sample.day)]
        for place, x in _read(fields, sample, inputs, periodic):
            own.add(x, sample.coming[:, *place], sample.known[:, *place])
    parts = [one.merged(crew) for one in parts]
    if not folds:
        flat = parts[0].solve([ridge] * leads)
        return Prior(inputs.weights(flat, channels), lambda day: flat)
    found = chosen(parts[:folds], parts[folds:], ridge)

    def judged(day: int) -> np.ndarray | None:
        part = part_of(day)
        return found.without[part] if part < folds else None

    return Prior(inputs.weights(found.weights, channels), judged)


def _parts(days: range, folds: int, leads: int) -> Callable[[int], int]:
    """Of the index of a forecast's last known day its fold, or folds + n where it shares days with
    both fold n and the next."""
    if len(days) <= 2 * leads * folds:
        raise UserError(
            f"model.local_folds={folds} cuts {len(days)} train days into blocks of "
            f"{len(days) // folds}, too short for forecasts of {leads} days on both sides; use "
            f"{len(days) // (2 * leads + 1)} at most, or 0"
        )
    edges = np.linspace(days.start, days.stop, max(folds, 1) + 1)[1:-1]

    def of(day: int) -> int:
        near = np.flatnonzero(abs(edges - day) < leads)
        return folds + int(near[0]) if len(near) else int(np.searchsorted(edges, day))

    return of


def fit_spread(
    fields: Fields,
    days: range,
    usual: Climatology,
    damping: np.ndarray,
    inputs: Inputs | None,
    judged: Days,
    periodic: bool,
    crew: Crew = ALONE,
) -> np.ndarray:
    """(L, H, W) root mean square of what damped persistence leaves on these days, less what a
    linear map says; 1 for a cell without a day. One pass."""
    squares, count = np.zeros(damping.shape), np.zeros(damping.shape)
    before = inputs.before if inputs else 1
    for sample in samples(fields, days, usual, damping, before, crew):
        weights = judged(sample.day)
        if weights is None:
            continue
        left = sample.coming
        if inputs:
            left = left.copy()
            for place, x in _read(fields, sample, inputs, periodic):
                left[:, *place] -= (x @ weights).T
        squares += np.where(sample.known, left**2, 0)
        count += sample.known
    squares, count = crew.add([squares, count])
    return np.sqrt(np.where(count > 0, squares / np.maximum(count, 1), 1))


def _read(fields: Fields, sample: Sample, inputs: Inputs, periodic: bool) -> Rows:
    """What `inputs_at` yields."""
    around = sample.last(inputs.days, slice(None))
    own = _own(sample, inputs, fields.variables.index(fields.target), periodic)
    return inputs_at(sample, around, own, inputs.kernel, periodic)


def _own(sample: Sample, inputs: Inputs, target: int, periodic: bool) -> np.ndarray:
    """(H, W, F) all that is read beside the square of maps."""
    cells = sample.recent.shape[:2]
    own = sample.recent[..., target]
    found = [own[:, :, -days:].mean(axis=2)[..., None] for days in inputs.means]
    if inputs.wide:
        maps = patches(sample.last(inputs.days, slice(None)), (BLOCK, BLOCK), periodic)
        blocks = maps.mean(axis=(2, 3))
        far = patches(blocks, inputs.wide, periodic, BLOCK)
        found.append(far.reshape(*cells, -1))
    if inputs.place:
        near = patches(sample.last(1, slice(None)), (NEAR, NEAR), periodic).reshape(*cells, -1)
        found += [near * place[..., None] for place in np.moveaxis(places(cells), -1, 0)]
    return np.concatenate(found, axis=-1) if found else np.zeros((*cells, 0))


def wide_map(recent: jax.Array, weights: jax.Array, periodic: bool) -> jax.Array:
    """(B, H, W, L) of weights (r, c, F, L) of blocks of (B, H, W, F)."""
    mean = jnp.eye(recent.shape[-1]) / BLOCK**2
    blocks = shared_map(recent, jnp.tile(mean, (BLOCK, BLOCK, 1, 1)), periodic)
    return shared_map(blocks, weights, periodic, apart=BLOCK)


def placed_map(last: jax.Array, weights: jax.Array, where: jax.Array) -> jax.Array:
    """(B, H, W, L) of weights (2, k, k, C, L) of the last day (B, H, W, C) at (B or 1, H, W, 2)."""
    each = [shared_map(last, one, False) for one in weights]
    return where[..., :1] * each[0] + where[..., 1:] * each[1]
