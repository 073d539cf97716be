"""Per-channel standardisation with statistics that are data, not parameters."""

import jax
import jax.numpy as jnp
from flax import nnx

from tds_jax.nn.module import Module


class Statistic(nnx.Variable):
    """A number measured on the training split; saved with the model, never optimised."""


class Normalizer(Module):
    """(..., C) -> (x - mean) / scale, both `Statistic`s (C,); identity until they are set."""

    def __init__(self, num_channels: int) -> None:
        self.mean = Statistic(jnp.zeros((num_channels,), jnp.float32))
        self.scale = Statistic(jnp.ones((num_channels,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = jnp.broadcast_to(self.mean[...].astype(x.dtype), x.shape)
        return (x - mean) / jnp.broadcast_to(self.scale[...].astype(x.dtype), x.shape)

    def inverse(self, x: jax.Array) -> jax.Array:
        """(..., C) -> x * scale + mean."""
        mean, scale = (jnp.broadcast_to(s[...], x.shape) for s in (self.mean, self.scale))
        return x * scale + mean
