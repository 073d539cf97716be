"""Distilling a diffusion sampler into a network that jumps to its end from any noise level.

Song et al., "Consistency Models" (2023). Neighbouring points of a teacher's ODE must give the same
answer; at the lowest level the answer is the point itself, which `diffusion.boundary_mix` makes
exact. As in Song & Dhariwal (2023), the answer aimed at is the student's own, without gradient and
without an average over past weights, and distances are pseudo-Huber.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.voxel import diffusion
from tds_jax.voxel.diffusion import Denoise

HUBER = 0.00054  # times the square root of the number of elements: Song & Dhariwal's choice


def pseudo_huber(a: jax.Array, b: jax.Array) -> jax.Array:
    """(B,): sqrt(|a - b|^2 + c^2) - c, quadratic well below c and linear above."""
    axes = tuple(range(1, a.ndim))
    count = int(np.prod(a.shape[1:]))
    c = HUBER * count**0.5
    squares = jnp.sum((a - b) ** 2, axis=axes, dtype=jnp.float32)
    return jnp.sqrt(squares + c**2) - c


def draw_pairs(keys: jax.Array, levels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """(sigma, the next lower level), each (B,): neighbours on the falling grid (N,), uniform."""

    def one(key: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), diffusion.LEVEL_DRAW)
        return jax.random.randint(key, (), 0, len(levels) - 1)

    n = jax.vmap(one)(keys)
    grid = jnp.asarray(levels)
    return grid[n], grid[n + 1]


def distillation(
    student: Denoise,
    teacher: Denoise,
    x: jax.Array,
    noise: jax.Array,
    sigma: jax.Array,
    lower: jax.Array,
) -> jax.Array:
    """(B,): how far the student's answers at two neighbouring points of the teacher's ODE differ.

    x: data (B, ...); noise: unit Gaussians; sigma > lower (B,). Only the answer at sigma learns.
    Weighted 1 / (sigma - lower): finer grids do not make the charge vanish.
    """
    noisy = x + diffusion.rows(sigma, x) * noise
    below = diffusion.heun_step(teacher, noisy, sigma, lower)
    aim = jax.lax.stop_gradient(student(below, lower))
    return pseudo_huber(student(noisy, sigma), aim) / (sigma - lower)


def sample(
    student: Denoise,
    levels: Sequence[float],
    lowest: float,
    draw: Callable[[int], jax.Array],
) -> jax.Array:
    """One jump from each of the falling levels; between jumps, noise up to the next one.

    draw(n): the n-th unit Gaussians (B, ...). One level is one evaluation.
    """
    first = draw(0)
    x = student(first * levels[0], jnp.full((first.shape[0],), levels[0]))
    for n, level in enumerate(levels[1:], start=1):
        noisy = x + np.float32(level**2 - lowest**2) ** 0.5 * draw(n)
        x = student(noisy, jnp.full((first.shape[0],), level))
    return x
