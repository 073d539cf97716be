"""Denoising over all noise levels: preconditioning, weights, the grid of levels, Heun's sampler.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022). Data are
x with standard deviation `data`; at level sigma a network sees x + sigma * noise, noise of unit
Gaussians. Levels are (B,), volumes (B, ...).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.nn.noise import key_of

Denoise = Callable[[jax.Array, jax.Array], jax.Array]
"""(noisy x (B, ...), sigma (B,)) -> an estimate of x."""

# Numbers of the draws an example's key is asked for in training.
LEVEL_DRAW = 0
NOISE_DRAW = 1
CONDITION_DRAW = 2
REPEAT_DRAW = 3  # and above: keys of an example's further draws
TIME_SCALE = 250.0  # log-levels, a few units wide, spread over the waves of the U-Net's embedding


@dataclasses.dataclass(frozen=True)
class Levels:
    """data: standard deviation of x. lowest, highest: noise levels of the sampler's grid.

    rho: how much denser the grid is at low levels (1: even). mean, spread: of the log of the
    levels seen in training, a Gaussian.
    """

    data: float
    lowest: float
    highest: float
    rho: float
    mean: float
    spread: float

    def grid(self, steps: int) -> np.ndarray:
        """(steps,) f32 falling levels from `highest` to `lowest`; a single one is the highest."""
        part = np.arange(steps) / max(steps - 1, 1)
        top, end = self.highest ** (1 / self.rho), self.lowest ** (1 / self.rho)
        return ((top + part * (end - top)) ** self.rho).astype(np.float32)

    def draw(self, keys: jax.Array) -> jax.Array:
        """(B,) training levels, one for each key data (B, 2)."""
        return jnp.exp(self.mean + self.spread * noise(keys, LEVEL_DRAW, ()))


class Mix(NamedTuple):
    """estimate = skip * x + out * network(inside * x, time); each (B,)."""

    skip: jax.Array
    out: jax.Array
    inside: jax.Array
    time: jax.Array


def mix(sigma: jax.Array, data: float) -> Mix:
    """What keeps the network's input, output and target near unit size at every level."""
    total = sigma**2 + data**2
    return Mix(
        skip=data**2 / total,
        out=sigma * data * jax.lax.rsqrt(total),
        inside=jax.lax.rsqrt(total),
        time=TIME_SCALE * jnp.log(sigma),
    )


def boundary_mix(sigma: jax.Array, data: float, lowest: float) -> Mix:
    """`mix` shifted so that the estimate is x itself at the lowest level: skip 1, out 0."""
    plain, above = mix(sigma, data), sigma - lowest
    return plain._replace(
        skip=data**2 / (above**2 + data**2), out=above * data * jax.lax.rsqrt(sigma**2 + data**2)
    )


def apply(network: Denoise, by: Mix, x: jax.Array) -> jax.Array:
    """The estimate of x that a mix and a network make."""
    answer = network(rows(by.inside, x) * x, by.time)
    return rows(by.skip, x) * x + rows(by.out, x) * answer


def loss_weight(sigma: jax.Array, data: float) -> jax.Array:
    """1 / out^2: every level then weighs the same for a fresh network."""
    return (sigma**2 + data**2) / (sigma * data) ** 2


def rows(values: jax.Array, like: jax.Array) -> jax.Array:
    """(B,) -> (B, 1, ...), to go with (B, ...)."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def noise(keys: jax.Array, draw: int | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """(B, *shape) unit Gaussians; row b depends on keys[b] (2,) and the number `draw` alone."""

    def one(key: jax.Array) -> jax.Array:
        return jax.random.normal(key_of(key, draw), shape)

    return jax.vmap(one)(keys)


def heun_step(denoise: Denoise, x: jax.Array, sigma: jax.Array, lower: jax.Array) -> jax.Array:
    """x at level sigma (B,) -> x at level lower (B,) > 0 along the ODE, by the trapezoid rule."""
    slope = (x - denoise(x, sigma)) / rows(sigma, x)
    step = rows(lower - sigma, x)
    guess = x + step * slope
    slope_there = (guess - denoise(guess, lower)) / rows(lower, x)
    return x + step * (slope + slope_there) / 2


def sample(denoise: Denoise, start: jax.Array, levels: np.ndarray) -> jax.Array:
    """Unit Gaussians (B, ...) -> samples of x: Heun down the levels (N,), then Euler to 0 exactly.

    2 N - 1 evaluations of `denoise`. Euler's step to 0 is the estimate at the last level.
    """
    batch = start.shape[0]

    def down(x: jax.Array, pair: jax.Array) -> tuple[jax.Array, None]:
        sigma, lower = jnp.broadcast_to(pair[:, None], (2, batch))
        return heun_step(denoise, x, sigma, lower), None

    pairs = jnp.stack([levels[:-1], levels[1:]], axis=1)
    x, _ = jax.lax.scan(down, start * levels[0], pairs)
    return denoise(x, jnp.full((batch,), levels[-1]))
