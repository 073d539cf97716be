"""Dropout as a pure function of per-example keys, so that noise does not depend on the batch."""

import math

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

    return _kept(keys, layer, shape, rate).astype(dtype) / (1 - rate)


def _kept(keys: jax.Array, layer: int, shape: tuple[int, ...], rate: float) -> jax.Array:
    """(B, *shape) bool; on CPU by way of bits.

    What is drawn is two words a number, of which XLA would keep both for the backward pass there
    and make the rest anew; a sum over bits it does not make twice. Eight products with a ReLU and
    dropout there and back, temporaries: of one's arrays 33, by bits 19, without dropout 17. For a
    card it keeps no words, and bits would be two kernels more.
    """

    def drawn(keys: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            return jax.random.bernoulli(key_of(key, layer), 1 - rate, shape)

        return jax.vmap(one)(keys)

    def by_bits(keys: jax.Array) -> jax.Array:
        bits = jnp.packbits(drawn(keys).reshape(len(keys), -1), axis=1)
        kept = jnp.unpackbits(bits, axis=1, count=math.prod(shape))
        return kept.reshape(len(keys), *shape).astype(jnp.bool_)

    return jax.lax.platform_dependent(keys, cpu=by_bits, default=drawn)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, layer: int) -> jax.Array:
    """x (B, ...) with elements zeroed and the rest rescaled; keys None or rate 0 gives x itself."""
    if keys is None or rate == 0:
        return x
    rest = x * (jnp.ones((), x.dtype) / (1 - rate))
    return jnp.where(_kept(keys, layer, x.shape[1:], rate), rest, 0)
