"""Normalisation over channels."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.dtypes import at_least_f32


class LayerNorm(nnx.Module):
    """Normalises the last axis with its biased variance, then scales and shifts.

    Statistics are taken in f32 (f64 when the input is f64) whatever `dtype`; the result is `dtype`.
    eps is PyTorch's 1e-5, not Flax's 1e-6: imported weights depend on it.
    """

    def __init__(self, features: int, *, dtype: jnp.dtype, eps: float = 1e-5) -> None:
        self.dtype = dtype
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = at_least_f32(x.dtype)
        scale, bias = self.scale[...].astype(wide), self.bias[...].astype(wide)
        return _normalize(self.eps, x, scale, bias).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(eps: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + eps) * scale + bias over the last axis, in scale's dtype.

    Keeps x and two numbers per row for the backward pass. On CPU that halves the temporaries of
    autodiff's: (8, 2356, 256) with the ReLU before it, forward and backward, 73 -> 36 MiB.
    """
    return _forward(eps, x, scale, bias)[0]


def _forward(
    eps: float, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(scale.dtype)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean((wide - mean) ** 2, axis=-1, keepdims=True) + eps)
    y = (wide - mean) * inverse * _rows(scale, x) + _rows(bias, x)
    return y, (x, mean, inverse, scale)


def _backward(
    eps: float, saved: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = saved
    y = (x.astype(scale.dtype) - mean) * inverse
    h = g * _rows(scale, x)
    along_mean = jnp.mean(h, axis=-1, keepdims=True)
    along_y = jnp.mean(h * y, axis=-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    dx = (inverse * (h - along_mean - y * along_y)).astype(x.dtype)
    return dx, jnp.sum(g * y, axis=rows), jnp.sum(g, axis=rows)


_normalize.defvjp(_forward, _backward)


def _rows(vector: jax.Array, like: jax.Array) -> jax.Array:
    """(C,) -> (1, ..., 1, C), to go with (..., C)."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
