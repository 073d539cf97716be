"""Many forecasts of one day, and what they are worth together."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from tds_jax.nn.noise import key_of

REACH = 3  # cells of the noise's standard width: what neighbours share of an error
FIRST_DRAW = 2**16  # of noise and of members' keys; layers draw below


def smooth_noise(
    keys: jax.Array, member: jax.typing.ArrayLike, count: int, cells: tuple[int, int]
) -> jax.Array:
    """(B, H, W, count) normal fields of variance 1 in every cell, alike over some REACH cells.

    keys: (B, 2) uint32. Row b is a function of (keys[b], member) alone.
    """
    place = np.arange(-2 * REACH, 2 * REACH + 1)
    weights = np.exp(-0.5 * (place / REACH) ** 2)
    weights = (weights / np.sqrt(np.square(weights).sum())).astype(np.float32)
    shape = (*(size + len(weights) - 1 for size in cells), count)

    def one(key: jax.Array) -> jax.Array:
        white = jax.random.normal(key_of(key, FIRST_DRAW + member), shape)
        return _moving_sum(_moving_sum(white, weights, 0), weights, 1)

    return jax.vmap(one)(keys)


def _moving_sum(x: jax.Array, weights: np.ndarray, axis: int) -> jax.Array:
    """Weighted sums of as many neighbours as there are weights; shorter by one less than these.

    Term by term: as a product with a band of weights a card's compiler may not find a way for it.
    """
    size = x.shape[axis] - len(weights) + 1
    terms = (jax.lax.slice_in_dim(x, k, k + size, axis=axis) for k in range(len(weights)))
    return sum((w * term for w, term in zip(weights, terms, strict=True)), jnp.zeros(()))


def member_keys(keys: jax.Array, member: jax.typing.ArrayLike) -> jax.Array:
    """(B, 2) uint32 keys of one member's dropout."""
    draw = FIRST_DRAW // 2 + member
    return jax.vmap(lambda key: jax.random.key_data(key_of(key, draw)))(keys)


def keys_of_days(phase: jax.Array) -> jax.Array:
    """(B, 2) uint32 keys from the places (B,) of the last days in the year: the same day, the same
    ensemble, wherever and beside whatever it is made."""
    bits = jax.lax.bitcast_convert_type(phase.astype(jnp.float32), jnp.uint32)
    return jnp.stack([bits, jnp.zeros_like(bits)], axis=-1)


def fair_crps(members: jax.Array, truth: jax.Array) -> jax.Array:
    """(B, ...) of members (B, M, ...), M of 2 or more, and truth (B, ...).

    E|x - y| - E|x - x'| / 2 with x, x' two different members (Ferro 2014): as good, on average, for
    few members as for many, and best for members that are drawn as the truth is.
    """
    count = members.shape[1]
    away = jnp.mean(jnp.abs(members - truth[:, None]), axis=1)
    # Of sorted members, Σ_i<j (x_j - x_i) = Σ_i (2 i - M + 1) x_i, i from 0.
    order = (2 * jnp.arange(count) - count + 1).astype(members.dtype)
    order = order.reshape(1, -1, *(1,) * (truth.ndim - 1))
    apart = jnp.sum(order * jnp.sort(members, axis=1), axis=1)
    return away - apart / (count * (count - 1))


def normal_crps(error: jax.Array, spread: jax.Array) -> jax.Array:
    """CRPS of a normal forecast whose mean errs by `error`: Gneiting et al. 2005, equation 5."""
    z = error / spread
    density, below = jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), jax.scipy.stats.norm.cdf(z)
    return spread * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


def rank_counts(members: jax.Array, truth: jax.Array, weight: jax.Array) -> jax.Array:
    """(L, M + 1) Σ weight of cells (B, L, H, W) whose truth lies above so many of the M members.

    A truth that equals members, as where all say that there is no rain, has an equal part in each
    of the ranks that it could be given (Hamill 2001).
    """
    low = jnp.sum(members < truth[:, None], axis=1)
    high = jnp.sum(members <= truth[:, None], axis=1)
    part = weight / (high - low + 1).astype(weight.dtype)
    ranks = jnp.arange(members.shape[1] + 1)

    def of(n: jax.Array) -> jax.Array:
        there = (low <= n) & (n <= high)
        return jnp.sum(jnp.where(there, part, 0), axis=(0, 2, 3), dtype=jnp.float32)

    return jnp.moveaxis(jax.lax.map(of, ranks), 0, 1)
