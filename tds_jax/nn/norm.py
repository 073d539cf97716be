"""Normalisation over channels."""

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.dtypes import at_least_f32
from tds_jax.nn.linear import add_bias


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
        x = x.astype(at_least_f32(x.dtype))
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        x = x * jnp.broadcast_to(self.scale[...].astype(x.dtype), x.shape)
        return add_bias(x, self.bias[...]).astype(self.dtype)
