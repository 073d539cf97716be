"""Distilling a diffusion sampler into a network that jumps to its end from any noise level.

Song et al., "Consistency Models" (2023). Neighbouring points of a teacher's ODE must give the same
answer; at the lowest level the answer is the point itself, which `diffusion.boundary_mix` makes
exact. As in Song & Dhariwal (2023), the answer aimed at is the student's own, without gradient and
without an average over past weights, and distances are pseudo-Huber.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.nn.noise import key_of
from tds_jax.voxel.methods import diffusion
from tds_jax.voxel.methods.diffusion import Denoise

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
        key = key_of(key, diffusion.LEVEL_DRAW)
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
    student: Denoise, levels: np.ndarray, lowest: float, draw: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """One jump from each of the falling levels (N,), each from the answer before with new noise.

    draw(n): the n-th unit Gaussians (B, ...). The first jump is from noise alone. One level is one
    evaluation; at level sigma the noise added to an answer is sqrt(sigma^2 - lowest^2), as answers
    are at the lowest level.
    """

    def jump(x: jax.Array, this: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        n, sigma = this
        noisy = x + jnp.sqrt(sigma**2 - lowest**2) * draw(n)
        return student(noisy, jnp.full((x.shape[0],), sigma)), None

    start = jax.eval_shape(draw, jnp.int32(0))
    each = jnp.arange(len(levels)), jnp.asarray(levels)
    return jax.lax.scan(jump, jnp.zeros(start.shape, start.dtype), each)[0]
