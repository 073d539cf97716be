"""Dropout as a pure function of per-example keys, so that noise does not depend on the batch."""

import jax
import jax.numpy as jnp

from tds_jax.nn.noise import key_of


def keep_scale(
    keys: jax.Array, layer: int, shape: tuple[int, ...], rate: float, dtype: jnp.dtype
) -> jax.Array:
    """(B, *shape) of 0 with probability `rate`, else 1/(1 - rate).

    keys: (B, 2) uint32 key data, one key per example; `layer` separates the layers of one model.
    Row b is a function of (keys[b], layer, shape, rate) alone: micro-batch, order and neighbours
    do not matter.
    """

    def one(key: jax.Array) -> jax.Array:
        key = key_of(key, layer)
        return jax.random.bernoulli(key, 1 - rate, shape)

    return jax.vmap(one)(keys).astype(dtype) / (1 - rate)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, layer: int) -> jax.Array:
    """x (B, ...) with elements zeroed and the rest rescaled; keys None or rate 0 gives x itself."""
    if keys is None or rate == 0:
        return x
    return x * keep_scale(keys, layer, x.shape[1:], rate, x.dtype)
