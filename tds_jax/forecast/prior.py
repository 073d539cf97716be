"""The forecast that a network's answer is added to, as far as train days say it by least squares.

A network that must find these weights step by step, beside all others, has not found them when it
begins to learn single days by heart.
"""

from typing import NamedTuple

import numpy as np

from tds_jax.data.crew import ALONE, Crew
from tds_jax.forecast.climatology import Climatology
from tds_jax.forecast.gridded_days import Fields
from tds_jax.forecast.linear import Sample, Shared, applied, samples


class Inputs(NamedTuple):
    """What the linear prior reads: all variables on the last `days` in a square of `kernel` cells,
    and of the cell alone means of the target over as many last days as each of `means` says."""

    kernel: int
    days: int
    means: tuple[int, ...]

    @property
    def before(self) -> int:
        """Days that it reads of."""
        return max(self.days, *self.means, 1)


class Weights(NamedTuple):
    """around (k, k, days * C, L), own (means, L), f32."""

    around: np.ndarray
    own: np.ndarray


def fit_linear(
    fields: Fields,
    days: range,
    usual: Climatology,
    damping: np.ndarray,
    inputs: Inputs,
    ridge: float,
    periodic: bool,
    crew: Crew = ALONE,
) -> Weights:
    """The weights that explain best what the damped persistence leaves; one pass over `days`.

    usual: of all variables; all is in units of its scale. ridge: see `Shared.solve`.
    """
    target = fields.variables.index(fields.target)
    around = inputs.days * len(fields.variables)
    shared = Shared(inputs.kernel, around, len(inputs.means), len(damping), periodic)
    for sample in samples(fields, days, usual, damping, inputs.before, crew):
        shared.add(sample, sample.last(inputs.days, slice(None)), _means(sample, inputs, target))
    shared.merge(crew)
    return Weights(*shared.solve(ridge))


def fit_spread(
    fields: Fields,
    days: range,
    usual: Climatology,
    damping: np.ndarray,
    linear: tuple[Inputs, Weights] | None,
    periodic: bool,
    crew: Crew = ALONE,
) -> np.ndarray:
    """(L, H, W) root mean square of what damped persistence leaves on these days, less what a
    linear map says; 1 for a cell without a day. One pass."""
    target = fields.variables.index(fields.target)
    squares, count = np.zeros(damping.shape), np.zeros(damping.shape)
    before = linear[0].before if linear else 1
    for sample in samples(fields, days, usual, damping, before, crew):
        left = sample.coming
        if linear:
            inputs, weights = linear
            recent = sample.last(inputs.days, slice(None))
            left = left - applied(weights.around, recent, periodic)
            left = left - np.moveaxis(_means(sample, inputs, target) @ weights.own, -1, 0)
        squares += np.where(sample.known, left**2, 0)
        count += sample.known
    squares, count = crew.add([squares, count])
    return np.sqrt(np.where(count > 0, squares / np.maximum(count, 1), 1))


def _means(sample: Sample, inputs: Inputs, target: int) -> np.ndarray:
    """(H, W, means) of the target's last days."""
    own = sample.recent[..., target]
    means = [own[:, :, -days:].mean(axis=2) for days in inputs.means]
    return np.stack(means, axis=-1) if means else np.zeros((*own.shape[:2], 0))
