"""Normalisation by the statistics of a batch, kept running for evaluation."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.module import Module
from tds_jax.nn.moments import Moments, along_last
from tds_jax.nn.normalizer import Statistic
from tds_jax.nn.precision import at_least_f32

MOMENTUM = 0.1  # weight of the newest batch in the running statistics, as PyTorch counts it
EPS = 1e-5


def moments(x: jax.Array) -> Moments:
    """Mean and biased variance of x (..., F) over all axes but the last, f32 at least.

    The mean first, then the mean square of what is left. Means of rows before means of those: one
    running f32 sum over the million cells of a map would lose digits.
    """
    x = x.astype(at_least_f32(x.dtype))
    mean = _mean(x)
    return Moments(mean, _mean((x - along_last(mean, x)) ** 2))


def merge(parts: Moments) -> Moments:
    """Moments of a whole from those (N, F) of its N equal parts."""
    mean = jnp.mean(parts.mean, axis=0)
    return Moments(mean, jnp.mean(parts.var + (parts.mean - mean[None]) ** 2, axis=0))


def pull_moments(cotangent: Moments, by: Moments, x: jax.Array, count: int) -> jax.Array:
    """What `cotangent` of the moments `by` of `count` positions adds to that of their part x."""
    x = x.astype(cotangent.var.dtype)
    mean, var = (along_last(part / count, x) for part in cotangent)
    return mean + 2 * var * (x - along_last(by.mean, x))


def unbiased(found: Moments, count: int) -> Moments:
    """`found` of `count` positions with the variance that PyTorch remembers: times n / (n - 1)."""
    return Moments(found.mean, found.var * (count / max(count - 1, 1)))


def normalize(x: jax.Array, by: Moments, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(var + EPS) * scale + bias over the last axis, f32 at least."""
    x = x.astype(at_least_f32(x.dtype))
    rows = (scale * jax.lax.rsqrt(by.var + EPS), by.mean, bias)
    gain, centre, shift = (along_last(row.astype(x.dtype), x) for row in rows)
    return (x - centre) * gain + shift


class BatchNorm(Module):
    """Normalises (..., F) over all but F: in training by the batch, else by running statistics.

    `mean` and `var` are data, not parameters: each training batch moves them by MOMENTUM, the
    variance by its unbiased estimate, as PyTorch does. Everything is f32 (f64 for f64), whatever
    the type of x, and so is the result.
    """

    def __init__(self, features: int) -> None:
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = Statistic(jnp.zeros((features,), jnp.float32))
        self.var = Statistic(jnp.ones((features,), jnp.float32))

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, Moments]:
        """(normalised x, moments for `update`); changes nothing, so that it may be rematerialised.

        A Variable that is set inside `jax.checkpoint` loses its new value without a word.
        """
        by = moments(x) if train else self.running()
        y = normalize(x, by, self.scale[...], self.bias[...])
        return y, unbiased(by, math.prod(x.shape[:-1]))

    def running(self) -> Moments:
        """What evaluation normalises by."""
        return Moments(self.mean[...], self.var[...])

    def update(self, found: Moments) -> None:
        """Moves the running statistics towards a training batch's, its variance `unbiased`."""
        self.mean[...] += MOMENTUM * (found.mean - self.mean[...])
        self.var[...] += MOMENTUM * (found.var - self.var[...])


def _mean(x: jax.Array) -> jax.Array:
    while x.ndim > 1:
        x = jnp.mean(x, axis=-2)
    return x
